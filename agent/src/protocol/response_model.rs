//! Finds the model that a response names: in its first bytes or in those of its first event, as most servers of
//! OpenAI's API write it, or near its end, as llama.cpp does.
//!
//! Reads the body as it is written, and keeps no more than its beginning.
//! Does not depend on: heads, which server it is.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

/// Bytes of a response that are searched.
const SEARCH_CAP: usize = 1024;
/// Longest name that is accepted, bytes.
const NAME_CAP: usize = 256;
/// Members that name the model: OpenAI's and most others', Triton's and Gemini's.
const MEMBERS: [&str; 3] = ["model", "model_name", "modelVersion"];
/// Members of the outermost object that may hold such a member: of events of OpenAI's responses and of Anthropic.
const HOLDERS: [&str; 2] = ["response", "message"];

static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"model"));

/// Looks for the model in the bytes of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseModel {
    /// The first bytes, until they are enough.
    start: Vec<u8>,
    /// Whether the first bytes say no more.
    over: bool,
    found: Option<Box<str>>,
}

impl ResponseModel {
    /// Adds the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.over || bytes.is_empty() || self.found.is_some() {
            return;
        }
        let room = SEARCH_CAP - self.start.len();
        self.start
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.found = in_start(&self.start);
        self.over = self.found.is_some() || self.start.len() == SEARCH_CAP;
        if self.over {
            self.start = Vec::new();
        }
    }

    /// Searches an event, or a JSON value, after the first: llama.cpp names the model in the last one.
    pub fn later_part(&mut self, part: &[u8]) {
        if self.found.is_none() && NAME.find(part).is_some() {
            self.found = in_start(part);
        }
    }

    /// Ends the search of the first bytes: what follows them was not copied.
    pub fn skip(&mut self) {
        self.over = true;
        self.start = Vec::new();
    }

    /// Searches the last bytes of the body, unless the first named the model.
    pub fn end_with(&mut self, bytes: &[u8]) {
        if self.found.is_none() {
            self.found = in_end(bytes);
        }
    }

    /// The model, as far as it was found.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }
}

/// Returns the model that the first JSON object in the beginning of a body names.
fn in_start(bytes: &[u8]) -> Option<Box<str>> {
    let at = memchr::memchr(b'{', bytes)?;
    let before = &bytes[..at];
    // Nothing is before an object but white space, a list, or the fields of an event.
    let is_first = before
        .iter()
        .all(|byte| byte.is_ascii_whitespace() || *byte == b'[')
        || before
            .rsplit(|byte| *byte == b'\n')
            .next()
            .is_some_and(|line| line.trim_ascii() == b"data:");
    is_first.then(|| in_members(&mut &bytes[at + 1..], true))?
}

/// Returns the model that the members of an object name, which may be cut off. Removes them.
fn in_members(rest: &mut &[u8], outermost: bool) -> Option<Box<str>> {
    loop {
        let name = loop {
            match next(rest)? {
                b'"' => break string(rest)?,
                b',' => {}
                _ => return None,
            }
        };
        if next(rest)? != b':' {
            return None;
        }
        match next(rest)? {
            b'"' => {
                let value = string(rest)?;
                if MEMBERS.iter().any(|member| member.as_bytes() == name) {
                    return text(value);
                }
            }
            b'{' if outermost && HOLDERS.iter().any(|holder| holder.as_bytes() == name) => {
                let found = in_members(rest, false);
                if found.is_some() || rest.is_empty() {
                    return found;
                }
            }
            b'{' | b'[' => nested(rest)?,
            _ => {
                let len = rest.iter().position(|byte| matches!(byte, b',' | b'}'));
                *rest = &rest[len?..];
            }
        }
    }
}

/// Removes the next byte that is no white space, and returns it.
fn next(rest: &mut &[u8]) -> Option<u8> {
    *rest = rest.trim_ascii_start();
    let (&byte, after) = rest.split_first()?;
    *rest = after;
    Some(byte)
}

/// Removes a string after its opening quote, and returns it with its escapes.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut at = 0;
    loop {
        match rest.get(at)? {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    let content = &rest[..at];
    *rest = &rest[at + 1..];
    Some(content)
}

/// Removes an object or array after its opening bracket.
fn nested(rest: &mut &[u8]) -> Option<()> {
    let mut depth = 1_u32;
    while depth > 0 {
        match next(rest)? {
            b'"' => drop(string(rest)?),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    Some(())
}

/// Returns the model that the last such member in the end of a JSON value names. A quote within a string has a backslash
/// before it, so an unescaped name is a member's.
fn in_end(bytes: &[u8]) -> Option<Box<str>> {
    const MEMBER: &[u8] = b"\"model\":";
    memmem::rfind_iter(bytes, MEMBER).find_map(|at| {
        let before = bytes[..at].trim_ascii_end().last();
        let mut rest = &bytes[at + MEMBER.len()..];
        if !matches!(before, Some(b',' | b'{')) || next(&mut rest)? != b'"' {
            return None;
        }
        text(string(&mut rest)?)
    })
}

/// Returns a name, unless it is empty, too long or has escapes.
fn text(value: &[u8]) -> Option<Box<str>> {
    let is_plain = (1..=NAME_CAP).contains(&value.len()) && !value.contains(&b'\\');
    let value = std::str::from_utf8(value).ok().filter(|_| is_plain)?;
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pieces: &[&str]) -> Option<String> {
        let mut model = ResponseModel::default();
        for piece in pieces {
            model.push(piece.as_bytes());
        }
        model.found().map(str::to_owned)
    }

    #[test]
    fn the_first_object_names_the_model() {
        for (body, expected) in [
            (
                r#"{"id":"c-1","object":"chat.completion","created":17,"model":"org/m","choices":[{"message":{"content":"#,
                "org/m",
            ),
            (
                ": ping\n\ndata: {\"id\":\"1\",\"choices\":[{\"delta\":{\"model\":\"no\"}}],\"model\":\"m\"}\n\n",
                "m",
            ),
            (
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"x\",\"model\":\"claude\"",
                "claude",
            ),
            (
                "data: {\"type\":\"response.created\",\"response\":{\"id\":\"x\",\"model\":\"m\"}}",
                "m",
            ),
            (
                r#"{"model":"llama3","created_at":"x","response":"a"}"#,
                "llama3",
            ),
            (
                r#"[{"candidates":[{"content":{"role":"model"}}],"modelVersion":"gemini"}"#,
                "gemini",
            ),
            ("\n {\"model_name\" : \"t\", \"model_version\":\"1\"", "t"),
            (r#"{"message":{"role":"a"},"model":"m"}"#, "m"),
        ] {
            for cut in 0..body.len() {
                let (first, second) = body.split_at(cut);
                assert_eq!(
                    found(&[first, second]).as_deref(),
                    Some(expected),
                    "{body} at {cut}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_member_of_the_first_object_names_none() {
        for body in [
            r#"{"choices":[{"message":{"model":"no"}}]}"#,
            r#"{"text":"\"model\":\"no\""}"#,
            r#"{"model":""}"#,
            r#"{"model":7,"x":{"model":"no"}}"#,
            r#"{"model":"a\u0062"}"#,
            "see {\"model\":\"no\"}",
            "data: [DONE]",
            "{\"model\":\"cut",
            "",
            "\u{fffd}\u{1}",
        ] {
            assert_eq!(found(&[body]), None, "{body}");
        }
    }

    #[test]
    fn only_the_beginning_is_searched_and_nothing_after_a_gap() {
        let long = format!("{{\"a\":\"{}\",\"model\":\"m\"}}", "x".repeat(SEARCH_CAP));
        assert_eq!(found(&[&long]), None);
        let mut model = ResponseModel::default();
        model.push(b"{\"a\":\"");
        model.skip();
        model.push(b"\",\"model\":\"m\"}");
        assert_eq!(model.found(), None);
    }

    #[test]
    fn later_part_names_the_model_if_no_earlier_one_does() {
        let mut model = ResponseModel::default();
        model.push(br#"{"content":"a"}"#);
        model.later_part(br#"{"content":"\"model\":\"no\""}"#);
        model.later_part(br#"{"timings":{"model":"no"}}"#);
        assert_eq!(model.found(), None);
        for name in ["m", "n"] {
            let part = format!(r#"{{"content":"","stop":true,"model":"{name}"}}"#);
            model.later_part(part.as_bytes());
            assert_eq!(model.found(), Some("m"));
        }
    }

    #[test]
    fn the_end_names_the_model_if_the_beginning_does_not() {
        for (end, expected) in [
            (
                r#"x \"model\":\"no\" "}],"created":1,"model":"m","object":"o","usage":{"a":1}}"#,
                Some("m"),
            ),
            (r#"}, "model" : "spaced"}"#, None),
            (r#"\"model\":\"no\"}"}"#, None),
            (r#"{"x":1,"model":7}"#, None),
            (r#"{"x":1,"model":"cut"#, None),
        ] {
            let mut model = ResponseModel::default();
            model.end_with(end.as_bytes());
            assert_eq!(model.found(), expected, "{end}");
        }
        let mut model = ResponseModel::default();
        model.push(b"{\"model\":\"a\"}");
        model.end_with(b",\"model\":\"b\"}");
        assert_eq!(model.found(), Some("a"));
    }
}
