//! Finds the model that a JSON body names: the string `model` of its outermost object, as in OpenAI's API.
//!
//! Parses the beginning of a body, which may be cut off anywhere, without recursion.
//! Does not depend on: heads, which server it is.

/// What the beginning of a body says about the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyModel {
    /// It names this one.
    Named(String),
    /// It names none, whatever follows.
    Absent,
    /// It may name one in the bytes that are missing.
    Unknown,
}

/// Member of the outermost object that names the model.
const MEMBER: &[u8] = b"model";

/// Why parsing ends before a value does.
enum Stop {
    /// The bytes end.
    Cut,
    /// They are not JSON.
    Malformed,
}

/// Finds the model in the first bytes of a body.
///
/// Of members with that name the first string counts; an empty one names nothing.
pub fn model_in(body: &[u8]) -> BodyModel {
    let mut rest = body;
    match find(&mut rest) {
        Ok(Some(model)) => BodyModel::Named(model),
        Ok(None) | Err(Stop::Malformed) => BodyModel::Absent,
        Err(Stop::Cut) => BodyModel::Unknown,
    }
}

fn find(rest: &mut &[u8]) -> Result<Option<String>, Stop> {
    expect(rest, b'{')?;
    if peek(rest)? == b'}' {
        return Ok(None);
    }
    loop {
        expect(rest, b'"')?;
        let is_model = {
            let name = string(rest)?;
            name == MEMBER || (name.contains(&b'\\') && unescape(name).as_bytes() == MEMBER)
        };
        expect(rest, b':')?;
        if peek(rest)? == b'"' {
            expect(rest, b'"')?;
            let value = string(rest)?;
            if is_model && !value.is_empty() {
                return Ok(Some(unescape(value)));
            }
        } else {
            skip(rest)?;
        }
        match peek(rest)? {
            b',' => expect(rest, b',')?,
            b'}' => return Ok(None),
            _ => return Err(Stop::Malformed),
        }
    }
}

/// Returns the next byte that is no white space, without removing it.
fn peek(rest: &mut &[u8]) -> Result<u8, Stop> {
    *rest = rest.trim_ascii_start();
    rest.first().copied().ok_or(Stop::Cut)
}

/// Removes the next byte that is no white space, which must be this one.
fn expect(rest: &mut &[u8], byte: u8) -> Result<(), Stop> {
    if peek(rest)? != byte {
        return Err(Stop::Malformed);
    }
    *rest = &rest[1..];
    Ok(())
}

/// Removes a string after its opening quote; returns what is between its quotes, with its escapes.
fn string<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Stop> {
    let mut at = 0;
    loop {
        match rest.get(at).ok_or(Stop::Cut)? {
            b'"' => {
                let content = &rest[..at];
                *rest = &rest[at + 1..];
                return Ok(content);
            }
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Removes a value that is no string, up to the comma or the bracket after it.
fn skip(rest: &mut &[u8]) -> Result<(), Stop> {
    let mut depth = 0_u32;
    loop {
        match peek(rest)? {
            b'"' => {
                *rest = &rest[1..];
                string(rest)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b'}' | b']' | b',' if depth == 0 => return Ok(()),
            _ => {}
        }
        *rest = &rest[1..];
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
            r#"{"Model":"m","models":"m","a":{"model":"m"}}"#,
            r#"[{"model":"m"}]"#,
            r#""model""#,
            "model=m&x=1",
            r#"{model:"m"}"#,
            r#"{"a":1 "model":"m"}"#,
            r#"{"a":1]"#,
            r#"{"a":"b"]"#,
            "\u{feff}{\"model\":\"m\"}",
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
