//! Parses JSON and keeps what may say what was generated: members with known names, and of strings whether they are empty.
//!
//! Does not depend on: what the members mean.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// A value. Numbers that are no natural ones are [`Sparse::Other`], like `true`; `false` is like `null`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sparse<'a> {
    Nothing,
    Other,
    Number(u64),
    Text(Cow<'a, str>),
    List(Vec<Sparse<'a>>),
    /// Those members that [`is_wanted`], the last of each name.
    Map(Vec<(Cow<'a, str>, Sparse<'a>)>),
}

/// Names of members that have a meaning in some API, sorted.
const WANTED: [&str; 63] = [
    "audio",
    "cache_creation_input_tokens",
    "cache_n",
    "cache_read_input_tokens",
    "candidates",
    "candidatesTokenCount",
    "choices",
    "codeExecutionResult",
    "completion_tokens",
    "content",
    "content_block",
    "delta",
    "details",
    "done",
    "error",
    "eval_count",
    "event_type",
    "executableCode",
    "finishReason",
    "finish_reason",
    "functionCall",
    "function_call",
    "generated_text",
    "generated_tokens",
    "index",
    "inlineData",
    "input_length",
    "input_tokens",
    "item",
    "message",
    "meta",
    "meta_info",
    "output_tokens",
    "partial_json",
    "parts",
    "predicted_n",
    "promptTokenCount",
    "prompt_eval_count",
    "prompt_n",
    "prompt_tokens",
    "reasoning",
    "reasoning_content",
    "refusal",
    "response",
    "special",
    "stop",
    "stop_reason",
    "text",
    "text_output",
    "thinking",
    "thoughtsTokenCount",
    "timings",
    "token",
    "tokens",
    "tokens_evaluated",
    "tokens_predicted",
    "toolUsePromptTokenCount",
    "tool_calls",
    "tool_plan",
    "type",
    "usage",
    "usageMetadata",
    "x_groq",
];

/// For each first byte, a bit for each length that a wanted name with it has: most other names are none of these.
const LENGTHS: [u32; 256] = {
    let mut lengths = [0; 256];
    let mut at = 0;
    while at < WANTED.len() {
        let name = WANTED[at].as_bytes();
        lengths[name[0] as usize] |= 1 << name.len();
        at += 1;
    }
    lengths
};

/// Whether a member is kept.
fn is_wanted(name: &str) -> bool {
    let lengths = name
        .bytes()
        .next()
        .map_or(0, |first| LENGTHS[first as usize]);
    let may_be = u32::try_from(name.len())
        .ok()
        .and_then(|len| lengths.checked_shr(len));
    may_be.is_some_and(|rest| rest & 1 == 1) && WANTED.binary_search(&name).is_ok()
}

impl<'a> Sparse<'a> {
    /// Parses a JSON text; `None` if it is none.
    pub(super) fn parse(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// Returns a member; [`Sparse::Nothing`] if it is missing, or this is no object.
    pub(super) fn get(&self, name: &str) -> &Self {
        let Self::Map(members) = self else {
            return &Self::Nothing;
        };
        let found = members.iter().rev().find(|(key, _)| key == name);
        found.map_or(&Self::Nothing, |(_, value)| value)
    }

    /// Whether an object has this member, whatever its value.
    pub(super) fn has(&self, name: &str) -> bool {
        matches!(self, Self::Map(members) if members.iter().any(|(key, _)| key == name))
    }

    /// Returns the elements of a list; none if it is none.
    pub(super) fn list(&self) -> &[Self] {
        match self {
            Self::List(elements) => elements,
            _ => &[],
        }
    }

    /// Returns the text; empty if it is none.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// Returns the number; `None` if it is none, or negative.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether it holds something: no `null`, `false`, and no empty text, list or object.
    pub(super) fn is_filled(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Other | Self::Number(_) | Self::Map(_) => true,
            Self::Text(text) => !text.is_empty(),
            Self::List(elements) => !elements.is_empty(),
        }
    }
}

impl<'de> Deserialize<'de> for Sparse<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// The name of a member: borrowed unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Sparse<'de>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Sparse::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(match value {
            true => Sparse::Other,
            false => Sparse::Nothing,
        })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Sparse::Number(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Sparse::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Sparse::Other)
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Sparse::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Sparse::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Sparse::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut map = Vec::new();
        while let Some(Name(name)) = members.next_key()? {
            if is_wanted(&name) {
                map.push((name, members.next_value()?));
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Sparse::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_names_are_sorted() {
        assert!(WANTED.is_sorted());
        assert!(WANTED.iter().all(|name| is_wanted(name)));
        assert!(!is_wanted("logprobs"));
    }

    #[test]
    fn the_last_of_equal_members_counts() {
        let value =
            Sparse::parse(br#"{"text":"a","text":"","x":[{"text":1}],"\u0074ype":"t"}"#).unwrap();
        assert_eq!(value.get("text"), &Sparse::Text("".into()));
        assert_eq!(value.get("type").text(), "t");
        assert!(!value.has("x"));
    }

    #[test]
    fn what_is_no_json_is_none() {
        for text in [&b""[..], b"{", b"{\"text\":\"", b"hello", b"\xff", b"{} {}"] {
            assert_eq!(Sparse::parse(text), None, "{text:?}");
        }
    }
}
