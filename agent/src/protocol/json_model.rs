//! Finds the model that a JSON body names: the string `model` of its outermost object, as in OpenAI's API.
//!
//! Reads a body piece by piece, however long it is and wherever it is cut, in constant memory.
//! Does not depend on: heads, which server it is.

use memchr::memchr2;

/// What a body says about the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyModel {
    /// It names this one.
    Named(String),
    /// It names none.
    Absent,
    /// It may name one in the bytes that are missing.
    Unknown,
}

/// Member of the outermost object that names the model.
const MEMBER: &[u8] = b"model";
/// Longest name of a member that may be [`MEMBER`]: each of its letters may be an escape of six bytes.
const MEMBER_CAP: usize = 6 * MEMBER.len();
/// Longest value that is kept, with its escapes, bytes. The metrics take shorter names only.
const VALUE_CAP: usize = 2048;
/// What a text in UTF-8 may begin with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where the scan is, in the outermost object unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the object, after so many bytes of a byte order mark.
    Start(usize),
    /// Before a member, which must come unless it may be the end.
    BeforeName { may_end: bool },
    /// In the name of a member.
    Name,
    /// After the name of a member.
    AfterName,
    /// Before a value.
    BeforeValue,
    /// In a value that is a string.
    Text,
    /// In an object or array that is so deep.
    Nested(u32),
    /// In a string in an object or array that is so deep.
    NestedText(u32),
    /// In a number or literal.
    Scalar,
    /// After a value.
    AfterValue,
    /// After the object.
    Ended,
    /// In bytes that are not JSON.
    Malformed,
}

/// Looks for the model in the bytes of a body.
#[derive(Debug, Clone)]
pub struct JsonModel {
    state: State,
    /// Whether the byte before is a backslash that escapes the next one.
    escaped: bool,
    /// Whether the present member is the one that names the model.
    is_member: bool,
    /// The string that is being read, if it is of interest.
    text: Vec<u8>,
    /// What the last such member says, with its escapes; empty: nothing.
    model: Vec<u8>,
}

impl Default for JsonModel {
    fn default() -> Self {
        Self {
            state: State::Start(0),
            escaped: false,
            is_member: false,
            text: Vec::new(),
            model: Vec::new(),
        }
    }
}

impl JsonModel {
    /// Reads the next bytes; returns whether later ones matter.
    pub fn push(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.is_over() {
            bytes = &bytes[self.step(bytes)..];
        }
        !self.is_over()
    }

    /// Returns what the bytes so far say. Of members with the same name the last counts, as servers take it.
    pub fn verdict(&self) -> BodyModel {
        match (self.model.is_empty(), self.is_over()) {
            (false, _) => BodyModel::Named(unescape(&self.model)),
            (true, true) => BodyModel::Absent,
            (true, false) => BodyModel::Unknown,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Malformed)
    }

    /// Reads at least one byte; returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match self.state {
            State::Name => self.string(bytes, MEMBER_CAP + 1, |this| {
                this.is_member = this.text == MEMBER
                    || (this.text.contains(&b'\\') && unescape(&this.text).as_bytes() == MEMBER);
                State::AfterName
            }),
            State::Text => {
                let kept = if self.is_member { VALUE_CAP } else { 0 };
                self.string(bytes, kept, |this| {
                    if this.is_member {
                        std::mem::swap(&mut this.model, &mut this.text);
                    }
                    State::AfterValue
                })
            }
            State::NestedText(depth) => self.string(bytes, 0, |_| State::Nested(depth)),
            State::Nested(depth) => {
                let at = bytes
                    .iter()
                    .position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'));
                let Some(at) = at else {
                    return bytes.len();
                };
                self.state = match (bytes[at], depth) {
                    (b'"', _) => State::NestedText(depth),
                    (b'{' | b'[', _) => State::Nested(depth.saturating_add(1)),
                    (_, 1) => State::AfterValue,
                    _ => State::Nested(depth - 1),
                };
                at + 1
            }
            State::Scalar => {
                let end = bytes
                    .iter()
                    .position(|byte| matches!(byte, b',' | b'}' | b']'));
                if end.is_some() {
                    self.state = State::AfterValue;
                }
                end.unwrap_or(bytes.len())
            }
            _ => {
                self.structure(bytes[0]);
                1
            }
        }
    }

    /// Reads bytes of a string and keeps up to `cap` of them; at its end, `next` returns what follows.
    fn string(&mut self, bytes: &[u8], cap: usize, next: impl FnOnce(&mut Self) -> State) -> usize {
        let mut keep = |bytes: &[u8]| {
            let room = cap.saturating_sub(self.text.len());
            self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        };
        if self.escaped {
            self.escaped = false;
            keep(&bytes[..1]);
            return 1;
        }
        let Some(at) = memchr2(b'"', b'\\', bytes) else {
            keep(bytes);
            return bytes.len();
        };
        if bytes[at] == b'\\' {
            keep(&bytes[..=at]);
            self.escaped = true;
        } else {
            keep(&bytes[..at]);
            self.state = next(self);
            self.text.clear();
        }
        at + 1
    }

    /// Reads a byte between names and values.
    fn structure(&mut self, byte: u8) {
        if let State::Start(marked) = self.state
            && BYTE_ORDER_MARK.get(marked) == Some(&byte)
        {
            self.state = State::Start(marked + 1);
            return;
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return;
        }
        self.state = match (self.state, byte) {
            (State::Start(_), b'{') => State::BeforeName { may_end: true },
            (State::BeforeName { .. }, b'"') => State::Name,
            (State::AfterName, b':') => State::BeforeValue,
            (State::AfterValue, b',') => State::BeforeName { may_end: false },
            (State::BeforeName { may_end: true } | State::AfterValue, b'}') => State::Ended,
            (State::BeforeValue, b',' | b'}' | b']') => State::Malformed,
            (State::BeforeValue, byte) => {
                if self.is_member {
                    self.model.clear();
                }
                match byte {
                    b'"' => State::Text,
                    b'{' | b'[' => State::Nested(1),
                    _ => State::Scalar,
                }
            }
            _ => State::Malformed,
        };
    }
}

/// Decodes the escapes of a string's content; what is no text becomes a replacement character.
fn unescape(content: &[u8]) -> String {
    let mut units = Vec::new();
    let mut text = String::new();
    let mut rest = content;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        flush(&mut units, &mut text, !plain.is_empty());
        text.push_str(&String::from_utf8_lossy(plain));
        let len = match escape.get(1) {
            Some(b'u') => {
                units.push(hex(escape.get(2..6)));
                6
            }
            Some(&letter) => {
                flush(&mut units, &mut text, true);
                text.push(match letter {
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    b'"' | b'\\' | b'/' => char::from(letter),
                    _ => char::REPLACEMENT_CHARACTER,
                });
                2
            }
            None => 1,
        };
        rest = escape.get(len..).unwrap_or_default();
    }
    flush(&mut units, &mut text, true);
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

/// Returns the code unit of four hexadecimal digits; for anything else, half of a surrogate pair, which is invalid.
fn hex(digits: Option<&[u8]>) -> u16 {
    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .unwrap_or(0xd800)
}

/// Adds consecutive code units to the text: two of them may be one character.
fn flush(units: &mut Vec<u16>, text: &mut String, ended: bool) {
    if ended {
        text.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or('\u{fffd}')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model_in(body: &[u8]) -> BodyModel {
        let mut scan = JsonModel::default();
        scan.push(body);
        scan.verdict()
    }

    fn named(model: &str) -> BodyModel {
        BodyModel::Named(model.into())
    }

    #[test]
    fn the_outermost_member_names_the_model() {
        for (body, model) in [
            (r#"{"model":"m"}"#, "m"),
            (
                " \r\n{ \"model\" :\t\"org/m-7b:q4\" , \"x\":1}",
                "org/m-7b:q4",
            ),
            (r#"{"stream":true,"n":-1.5e3,"stop":null,"model":"m"}"#, "m"),
            (
                r#"{"messages":[{"role":"user","content":"\"model\":\"no\" }]","model":"inner"}],"model":"m"}"#,
                "m",
            ),
            (r#"{"a":"\\","model":"m"}"#, "m"),
            (r#"{"model":7,"model":"m"}"#, "m"),
            (r#"{"model":"a","x":{"model":"b"},"model":"m"}"#, "m"),
            ("\u{feff}{\"model\":\"m\"}", "m"),
            ("\u{feff} {\"a\":-1.5e3 ,\"model\":\"m\"}", "m"),
            (
                r#"{"model":{"model":"inner"},"b":[["model","x"]],"model":"m"}"#,
                "m",
            ),
            (r#"{"mod\u0065l":"a\/b\n\ud83d\ude00\u00e9"}"#, "a/b\n😀é"),
            (r#"{"model":"a\ud83d"}"#, "a\u{fffd}"),
            (r#"{"model":"a\uzz11b"}"#, "a\u{fffd}b"),
            ("{\"model\":\"\u{e9}t\u{e9}\"}", "été"),
        ] {
            assert_eq!(model_in(body.as_bytes()), named(model), "{body}");
        }
    }

    #[test]
    fn a_body_without_one_names_none() {
        for body in [
            "{}",
            r#"{"model":""}"#,
            r#"{"model":null}"#,
            r#"{"model":"m","model":null}"#,
            r#"{"model":"m","model":""}"#,
            r#"{"Model":"m","models":"m","a":{"model":"m"}}"#,
            r#"[{"model":"m"}]"#,
            r#""model""#,
            "model=m&x=1",
            r#"{model:"m"}"#,
            r#"{"a":1 "model":"m"}"#,
            r#"{"a":1]"#,
            r#"{"a":"b"]"#,
            "\u{feff}\u{feff}{\"model\":\"m\"}",
            "\x1f\u{fffd}\x08",
        ] {
            let verdict = model_in(body.as_bytes());
            assert_eq!(verdict, BodyModel::Absent, "{body}");
        }
    }

    #[test]
    fn a_body_cut_at_any_byte_is_unknown_until_the_name_ends() {
        let body =
            r#"{"messages":[{"content":"a \"model\": \\"}],"seed":1,"model":"o\u006e\"e","x":"#;
        let name_end = body.rfind(",\"x\"").unwrap();
        for len in 0..body.len() {
            let expected = match len {
                _ if len < name_end => BodyModel::Unknown,
                _ => named("on\"e"),
            };
            assert_eq!(model_in(&body.as_bytes()[..len]), expected, "{len}");
        }
    }

    #[test]
    fn hostile_nesting_ends() {
        for body in [
            format!("{{\"a\":{}", "[".repeat(100_000)),
            format!("{{\"a\":{}", "{\"a\":".repeat(100_000)),
            format!("{{\"a\":\"{}", "\\".repeat(100_001)),
        ] {
            assert_eq!(model_in(body.as_bytes()), BodyModel::Unknown);
        }
        let closed = format!(
            "{{\"a\":{}{},\"model\":\"m\"}}",
            "[".repeat(9_999),
            "]".repeat(9_999)
        );
        assert_eq!(model_in(closed.as_bytes()), named("m"));
        let too_many = format!("{{\"a\":[{},\"model\":\"m\"", "]".repeat(9));
        assert_eq!(model_in(too_many.as_bytes()), BodyModel::Absent);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_break() {
        let body = b"{\"\xff\":\"\xfe\",\"model\":\"a\xffb\"}";
        assert_eq!(model_in(body), named("a\u{fffd}b"));
        for byte in 0..=u8::MAX {
            let mut body = br#"{"a":"b","model":"m"}"#.to_vec();
            for at in 0..body.len() {
                let before = std::mem::replace(&mut body[at], byte);
                model_in(&body);
                body[at] = before;
            }
        }
    }
}
