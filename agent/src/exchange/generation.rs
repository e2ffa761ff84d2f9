//! Follows what one response of a language model generates: when the first and the last token came, how many there were.
//!
//! It is fed the body as it is written, without chunk sizes or frames. `protocol::generation` parses it.
//! Does not depend on: heads, which protocol carries the body.

use crate::protocol::{
    content_type::BodyKind,
    generation::{
        Piece,
        event_stream::EventStream,
        json_values::JsonValues,
        part::Part,
        usage::{Usage, usage_at_start},
    },
    response_model::ResponseModel,
};

/// How the body is cut into parts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Parts {
    Events(EventStream),
    Values(JsonValues),
    /// Text, of which each piece that is written is a part; the first may show that it is one of the above.
    Text,
    /// They cannot be read.
    Hidden,
}

/// Events of an unknown form that all have the same members: the server's own form of what it generates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Repeated {
    /// What they have in common.
    shape: u64,
    count: u32,
    first_ns: u64,
    latest_ns: u64,
}

/// What was generated, as far as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    parts: Parts,
    model: ResponseModel,
    compressed: bool,
    /// Time of the first part with content, ns.
    first_ns: Option<u64>,
    /// Time of the latest part that a token may be in, ns.
    latest_ns: u64,
    /// Parts with content.
    contents: u32,
    choices: u32,
    usage: Usage,
    /// Whether bytes are missing: at all, before the first content, and after the latest.
    missing: bool,
    missing_before_first: bool,
    missing_after_latest: bool,
    /// Whether a part has an unknown form, and is none of the `repeated` ones.
    unknown_form: bool,
    repeated: Option<Repeated>,
}

/// Why a number of tokens, or the time of one, is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The response is compressed.
    Compressed,
    /// Bytes that may state it were not copied.
    NotCopied,
    /// The response does not state it.
    NotStated,
    /// The response has a form that the agent does not know.
    UnknownForm,
}

impl Unknown {
    /// Every reason, in order.
    pub const ALL: [Self; 4] = [
        Self::Compressed,
        Self::NotCopied,
        Self::NotStated,
        Self::UnknownForm,
    ];

    /// The reason's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotStated => "not_stated",
            Self::NotCopied => "not_copied",
            Self::Compressed => "compressed",
            Self::UnknownForm => "unknown_form",
        }
    }
}

impl Generation {
    /// Starts before the body of a response; `None` if it cannot be one of a language model.
    pub fn of(kind: Option<BodyKind>, compressed: bool) -> Option<Box<Self>> {
        match kind.unwrap_or(BodyKind::Text) {
            BodyKind::Other if !compressed => None,
            kind => Some(Box::new(Self::new(kind, compressed))),
        }
    }

    /// Starts before the body of a response.
    fn new(kind: BodyKind, compressed: bool) -> Self {
        let parts = match kind {
            _ if compressed => Parts::Hidden,
            BodyKind::Events => Parts::Events(EventStream::default()),
            BodyKind::Json => Parts::Values(JsonValues::default()),
            BodyKind::Text => Parts::Text,
            BodyKind::Other => Parts::Hidden,
        };
        Self {
            parts,
            model: ResponseModel::default(),
            compressed,
            first_ns: None,
            latest_ns: 0,
            contents: 0,
            choices: 0,
            usage: Usage::default(),
            missing: false,
            missing_before_first: false,
            missing_after_latest: false,
            unknown_form: false,
            repeated: None,
        }
    }

    /// Adds `bytes` of the body that were written at `at_ns`, of which the first are `visible`.
    pub fn push(&mut self, visible: &[u8], bytes: u64, at_ns: u64) {
        let visible = match usize::try_from(bytes) {
            Ok(bytes) if bytes < visible.len() => &visible[..bytes],
            _ => visible,
        };
        if !self.compressed {
            self.model.push(visible);
        }
        if self.parts == Parts::Text && self.contents == 0 {
            self.parts = parts_of(visible);
        }
        if self.parts == Parts::Text {
            // Whether it was copied does not matter.
            let part = Part {
                has_content: bytes > 0,
                is_known: true,
                ..Part::default()
            };
            return self.add(part, at_ns);
        }
        let mut parts = std::mem::replace(&mut self.parts, Parts::Hidden);
        match &mut parts {
            Parts::Events(events) => {
                events.push(visible, |event| self.add_piece(event, true, at_ns));
            }
            Parts::Values(values) => {
                let is_first = values.is_new();
                values.push(visible, |value| self.add_piece(value, false, at_ns));
                if is_first && (values.is_open() || (visible.len() as u64) < bytes) {
                    self.usage.update(usage_at_start(visible));
                }
            }
            Parts::Text | Parts::Hidden => {}
        }
        self.parts = parts;
        if (visible.len() as u64) < bytes {
            self.skip();
        }
    }

    /// Records that several writes are reported as one.
    pub fn lose_count(&mut self) {
        self.missing = true;
        self.missing_before_first |= self.first_ns.is_none() && self.repeated.is_none();
    }

    /// Adds bytes that were not copied.
    pub fn skip(&mut self) {
        self.model.skip();
        match &mut self.parts {
            Parts::Events(events) => events.skip(),
            Parts::Values(values) => values.skip(),
            Parts::Text | Parts::Hidden => return,
        }
        self.lose_count();
        self.missing_after_latest = true;
    }

    /// Ends the body, of which the last bytes were written at `at_ns`.
    pub fn finish(&mut self, at_ns: u64) {
        if let Parts::Values(values) = &mut self.parts {
            let mut values = std::mem::take(values);
            values.finish(|value| self.add_piece(value, false, at_ns));
            self.parts = Parts::Values(values);
        }
    }

    fn add_piece(&mut self, piece: Piece<'_>, in_events: bool, at_ns: u64) {
        if let Piece::End(end) = piece {
            self.model.end_with(end);
            // The part itself may be the first, or the last, that has content.
            self.lose_count();
            self.missing_after_latest = true;
            self.usage.update(Part::of(piece, in_events).usage);
            return;
        }
        if let Piece::Whole { data, .. } = piece {
            self.model.later_part(data);
        }
        self.add(Part::of(piece, in_events), at_ns);
    }

    fn add(&mut self, part: Part, at_ns: u64) {
        self.usage.update(part.usage);
        if !part.is_known {
            self.add_unknown(part.shape, at_ns);
        }
        self.choices = self.choices.max(part.choices);
        if part.has_content {
            self.contents = self.contents.saturating_add(1);
            self.first_ns.get_or_insert(at_ns);
        }
        if part.has_content || part.ends {
            self.latest_ns = at_ns;
            self.missing_after_latest = false;
        }
    }

    fn add_unknown(&mut self, shape: Option<u64>, at_ns: u64) {
        match (shape, &mut self.repeated) {
            (Some(shape), None) => {
                self.repeated = Some(Repeated {
                    shape,
                    count: 1,
                    first_ns: at_ns,
                    latest_ns: at_ns,
                });
            }
            (Some(shape), Some(repeated)) if repeated.shape == shape => {
                repeated.count = repeated.count.saturating_add(1);
                repeated.latest_ns = at_ns;
            }
            _ => self.unknown_form = true,
        }
        self.missing_after_latest = false;
    }

    /// The events of unknown form that are taken for content: there is nothing else, and more than one.
    fn repeated(&self) -> Option<&Repeated> {
        let repeated = self.repeated.as_ref()?;
        (repeated.count > 1 && self.contents == 0 && !self.unknown_form).then_some(repeated)
    }

    /// Whether a part has a form of which nothing is known.
    fn has_unknown_form(&self) -> bool {
        self.unknown_form || self.repeated.is_some() && self.repeated().is_none()
    }

    /// Model that the response names; `None` if it names none, or not in the bytes that were copied.
    pub fn model(&self) -> Option<&str> {
        self.model.found()
    }

    /// Tokens that the response states.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether the response is no stream, in however many pieces it was written: one JSON value.
    pub fn is_one_value(&self) -> bool {
        matches!(&self.parts, Parts::Values(values) if !values.has_several())
    }

    /// Why the response states no number of tokens, as far as that is known; `None` if it states one.
    pub fn usage_unknown(&self) -> Option<Unknown> {
        match self.usage.is_stated() {
            true => None,
            false => Some(self.reason()),
        }
    }

    fn reason(&self) -> Unknown {
        if self.compressed {
            Unknown::Compressed
        } else if self.missing {
            Unknown::NotCopied
        } else if self.has_unknown_form() || self.parts == Parts::Hidden {
            Unknown::UnknownForm
        } else {
            Unknown::NotStated
        }
    }

    /// Time of the first token, ns; `Ok(None)`: there is none.
    pub fn first_ns(&self) -> Result<Option<u64>, Unknown> {
        let repeated = self.repeated().map(|repeated| repeated.first_ns);
        match self.first_ns.or(repeated) {
            Some(_) if self.missing_before_first => Err(Unknown::NotCopied),
            None if self.reason() != Unknown::NotStated => Err(self.reason()),
            // A part of unknown form may have come before.
            Some(_) if self.has_unknown_form() => Err(Unknown::UnknownForm),
            first_ns => Ok(first_ns),
        }
    }

    /// Mean time from one token of a response to its next, ns; `Ok(None)`: it has fewer than two.
    ///
    /// Tokens are counted as the response states; if it does not, each part with content is one.
    pub fn token_gap_ns(&self) -> Result<Option<u64>, Unknown> {
        let Some(first_ns) = self.first_ns()? else {
            return Ok(None);
        };
        if self.missing_after_latest {
            return Err(Unknown::NotCopied);
        }
        let tokens = match self.usage.output {
            Some(tokens) => tokens,
            None if self.missing => return Err(Unknown::NotCopied),
            None => u64::from(
                self.repeated()
                    .map_or(self.contents, |repeated| repeated.count),
            ),
        };
        let choices = u64::from(self.choices.max(1));
        let latest_ns = self
            .repeated()
            .map_or(self.latest_ns, |repeated| repeated.latest_ns);
        let span_ns = latest_ns.saturating_sub(first_ns);
        Ok(match tokens.saturating_sub(choices) {
            0 => None,
            gaps => Some(span_ns.saturating_mul(choices) / gaps),
        })
    }
}

/// Tells by the first bytes what a text is made of: some servers do not say that it is JSON, or events.
fn parts_of(start: &[u8]) -> Parts {
    const FIELDS: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];
    match start {
        [b'{' | b'[', ..] => Parts::Values(JsonValues::default()),
        _ if FIELDS.iter().any(|field| start.starts_with(field)) => {
            Parts::Events(EventStream::default())
        }
        _ => Parts::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &[u8] = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    const ROLE: &[u8] =
        b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    const END: &[u8] = b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const USAGE: &[u8] =
        b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n";

    fn events(writes: &[&[u8]]) -> Generation {
        let mut generation = Generation::new(BodyKind::Events, false);
        for (at, write) in writes.iter().enumerate() {
            generation.push(write, write.len() as u64, 10 * (at as u64 + 1));
        }
        generation
    }

    #[test]
    fn the_model_is_named_in_the_first_event_or_value_or_at_the_end() {
        let named = br#"{"id":"c","model":"m","choices":[{"message":{"content":"a"}}]}"#;
        let late = [
            br#"{"choices":[{"message":{"content":"a"}}],"x":""#,
            &b"x".repeat(9_000)[..],
            br#"","model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        ]
        .concat();
        let mut generation = Generation::new(BodyKind::Json, false);
        generation.push(named, named.len() as u64, 10);
        assert_eq!(generation.model(), Some("m"));
        let mut generation = Generation::new(BodyKind::Json, false);
        generation.push(&late[..900], 8_000, 10);
        generation.push(&late[8_000..], late.len() as u64 - 8_000, 20);
        generation.finish(20);
        assert_eq!(generation.model(), Some("m"));
        let mut generation = Generation::new(BodyKind::Json, true);
        generation.push(named, named.len() as u64, 10);
        assert_eq!(generation.model(), None);
        assert_eq!(events(&[EVENT, EVENT]).model(), None);
    }

    #[test]
    fn the_first_token_is_the_first_content() {
        let generation = events(&[
            b": hi\n\n",
            ROLE,
            EVENT,
            EVENT,
            EVENT,
            END,
            b"data: [DONE]\n\n",
        ]);
        assert_eq!(generation.first_ns(), Ok(Some(30)));
        // Three parts with content, and the end is after the last.
        assert_eq!(generation.token_gap_ns(), Ok(Some(15)));
        assert_eq!(generation.usage_unknown(), Some(Unknown::NotStated));
    }

    #[test]
    fn stated_tokens_count_for_the_gap() {
        let generation = events(&[EVENT, EVENT, END, USAGE]);
        assert_eq!(generation.token_gap_ns(), Ok(Some(6)));
        let usage = generation.usage();
        assert_eq!((usage.input, usage.output), (Some(5), Some(4)));
        assert_eq!(generation.usage_unknown(), None);
    }

    #[test]
    fn an_event_has_the_time_of_its_end() {
        let (start, rest) = EVENT.split_at(20);
        let generation = events(&[ROLE, start, rest]);
        assert_eq!(generation.first_ns(), Ok(Some(30)));
    }

    #[test]
    fn several_choices_come_side_by_side() {
        let second = b"data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"a\"}}]}\n\n";
        let generation = events(&[EVENT, second, EVENT, second]);
        // Two tokens of each, 20 and 20 apart, from the first to the last: 30.
        assert_eq!(generation.token_gap_ns(), Ok(Some(30)));
    }

    #[test]
    fn a_response_without_content_has_no_first_token() {
        let generation = events(&[ROLE, END]);
        assert_eq!(
            (generation.first_ns(), generation.token_gap_ns()),
            (Ok(None), Ok(None))
        );
        let generation = events(&[EVENT]);
        assert_eq!(
            (generation.first_ns(), generation.token_gap_ns()),
            (Ok(Some(10)), Ok(None))
        );
    }

    #[test]
    fn missing_bytes_make_unknown_what_they_may_change() {
        let mut generation = events(&[EVENT, EVENT]);
        generation.push(&EVENT[..9], EVENT.len() as u64, 30);
        assert_eq!(generation.first_ns(), Ok(Some(10)));
        assert_eq!(generation.token_gap_ns(), Err(Unknown::NotCopied));
        generation.push(END, END.len() as u64, 40);
        assert_eq!(generation.token_gap_ns(), Err(Unknown::NotCopied));
        // The end of the event that was cut was not copied, so this is taken for its end.
        generation.push(USAGE, USAGE.len() as u64, 50);
        assert_eq!(generation.usage().output, Some(4));

        let mut generation = Generation::new(BodyKind::Events, false);
        generation.skip();
        generation.push(b"\n\n", 2, 10);
        generation.push(EVENT, EVENT.len() as u64, 20);
        assert_eq!(generation.first_ns(), Err(Unknown::NotCopied));
    }

    #[test]
    fn what_cannot_be_read_is_unknown_by_its_reason() {
        for (kind, compressed, expected) in [
            (BodyKind::Events, true, Unknown::Compressed),
            (BodyKind::Other, false, Unknown::UnknownForm),
        ] {
            let mut generation = Generation::new(kind, compressed);
            generation.push(b"\x1f\x8b", 2, 10);
            assert_eq!(generation.first_ns(), Err(expected));
            assert_eq!(generation.token_gap_ns(), Err(expected));
            assert_eq!(generation.usage_unknown(), Some(expected));
        }
        let generation = events(&[b"data: {\"tok\":1}\n\n"]);
        assert_eq!(generation.first_ns(), Err(Unknown::UnknownForm));
    }

    #[test]
    fn events_of_one_unknown_form_are_content() {
        let event = |name: &str, at: usize| format!("data: {{\"n\":{at},\"{name}\":\"x\"}}\n\n");
        let run = |names: &[&str]| {
            let texts = names.iter().enumerate().map(|(at, name)| event(name, at));
            let texts: Vec<String> = [": hi\n\n".to_owned()]
                .into_iter()
                .chain(texts)
                .chain(["data: [DONE]\n\n".to_owned()])
                .collect();
            let writes: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            events(&writes)
        };
        let generation = run(&["a", "a", "a"]);
        assert_eq!(generation.first_ns(), Ok(Some(20)));
        assert_eq!(generation.token_gap_ns(), Ok(Some(10)));
        assert_eq!(generation.usage_unknown(), Some(Unknown::NotStated));
        for names in [&["a"][..], &["a", "b"], &["a", "a", "b"]] {
            let generation = run(names);
            let first = generation.first_ns();
            assert_eq!(first, Err(Unknown::UnknownForm), "{names:?}");
        }
        // Something else is content: what the unknown events are is unknown.
        let unknown = event("a", 1);
        let generation = events(&[unknown.as_bytes(), unknown.as_bytes(), EVENT]);
        assert_eq!(generation.first_ns(), Err(Unknown::UnknownForm));
    }

    #[test]
    fn pieces_of_text_are_content() {
        let mut generation = Generation::new(BodyKind::Text, false);
        for at_ns in [10, 20, 40] {
            generation.push(b"", 5, at_ns);
        }
        assert_eq!(generation.first_ns(), Ok(Some(10)));
        assert_eq!(generation.token_gap_ns(), Ok(Some(15)));
    }

    #[test]
    fn text_may_turn_out_to_be_events_or_values() {
        for (body, first) in [
            (&b"data: {\"response\":\"\"}\n\n"[..], None),
            (b"data: {\"response\":\"a\"}\n\n", Some(10)),
            (b"{\"response\":\"\"}\n", None),
            (b"a", Some(10)),
        ] {
            let mut generation = *Generation::of(None, false).unwrap();
            generation.push(body, body.len() as u64, 10);
            assert_eq!(generation.first_ns(), Ok(first), "{body:?}");
        }
        assert_eq!(Generation::of(Some(BodyKind::Other), false), None);
    }

    #[test]
    fn one_value_in_pieces_is_no_stream() {
        let mut generation = Generation::new(BodyKind::Json, false);
        generation.push(b"{\"response\":\"a\",", 16, 10);
        generation.push(b"\"done\":true,\"eval_count\":3}", 27, 20);
        generation.finish(20);
        assert!(generation.is_one_value());
        assert_eq!(generation.usage().output, Some(3));
        let mut generation = Generation::new(BodyKind::Json, false);
        for at_ns in [10, 20] {
            let line = b"{\"response\":\"a\",\"done\":false}\n";
            generation.push(line, line.len() as u64, at_ns);
        }
        assert!(!generation.is_one_value());
        assert_eq!(generation.first_ns(), Ok(Some(10)));
    }

    #[test]
    fn usage_of_a_value_that_was_not_copied_whole_is_in_its_end() {
        let mut generation = Generation::new(BodyKind::Json, false);
        generation.push(b"{\"choices\":[{", 500, 10);
        let end = b"}],\"usage\":{\"prompt_tokens\":5}}";
        generation.push(end, end.len() as u64, 10);
        generation.finish(10);
        assert_eq!(generation.usage().input, Some(5));
        let mut generation = Generation::new(BodyKind::Json, false);
        generation.push(b"{\"choices\":[{", 500, 10);
        generation.finish(10);
        assert_eq!(generation.usage_unknown(), Some(Unknown::NotCopied));
    }
}
