//! Finds the model that a form names: the field `model` of a `multipart/form-data` body (RFC 7578).
//!
//! Reads a body piece by piece, wherever it is cut, in constant memory.
//! Does not depend on: heads, which server it is.

use memchr::memchr;

use crate::protocol::json_model::BodyModel;

/// Field that names the model.
const FIELD: &str = "model";
/// Longest value that is kept, bytes. The metrics take shorter names only.
const VALUE_CAP: usize = 2048;
/// Longest headers of a part that are read, bytes.
const HEADERS_CAP: usize = 4096;
/// Longest boundary that a form may have (RFC 2046, section 5.1.1), bytes.
const BOUNDARY_CAP: usize = 70;

/// What a delimiter begins with, unless nothing is before it.
const LINE_END: &[u8] = b"\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter, or in a part that does not name the model.
    Skipped,
    /// In the part that names the model.
    Value,
    /// In the rest of a delimiter's line.
    Delimiter,
    /// In the headers of a part.
    Headers,
    /// After the last part.
    Ended,
}

/// Looks for the model in the bytes of a form.
#[derive(Debug, Clone)]
pub struct FormModel {
    /// What separates the parts, with the line end that belongs to it.
    delimiter: Vec<u8>,
    state: State,
    /// Bytes of the delimiter that the latest bytes are.
    matched: usize,
    /// The value, or the lines, that are being read.
    text: Vec<u8>,
    /// Value of the last such field.
    model: Option<Vec<u8>>,
}

impl FormModel {
    /// Makes one for a body before its first byte; `None` if no form has such a boundary.
    pub fn new(boundary: &str) -> Option<Self> {
        let is_sound = (1..=BOUNDARY_CAP).contains(&boundary.len())
            && !boundary.bytes().any(|byte| byte.is_ascii_control());
        is_sound.then(|| Self {
            delimiter: [LINE_END, b"--", boundary.as_bytes()].concat(),
            state: State::Skipped,
            // The first delimiter needs no line end before it.
            matched: LINE_END.len(),
            text: Vec::new(),
            model: None,
        })
    }

    /// Reads the next bytes; returns whether later ones matter.
    pub fn push(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && self.state != State::Ended {
            bytes = &bytes[self.step(bytes)..];
        }
        self.state != State::Ended
    }

    /// Returns what the bytes so far say. Of fields with the same name the last counts.
    pub fn verdict(&self) -> BodyModel {
        let named = self.model.as_deref().filter(|model| !model.is_empty());
        match (named, self.state) {
            (Some(model), _) => BodyModel::Named(String::from_utf8_lossy(model).into_owned()),
            (None, State::Ended) => BodyModel::Absent,
            (None, _) => BodyModel::Unknown,
        }
    }

    /// Reads at least one byte; returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        match self.state {
            State::Skipped if self.matched == 0 => {
                let Some(at) = memchr(b'\r', bytes) else {
                    return bytes.len();
                };
                self.matched = 1;
                return at + 1;
            }
            State::Skipped => {
                if self.matches(byte) {
                    self.state = State::Delimiter;
                }
            }
            State::Value => {
                self.keep(byte, VALUE_CAP + self.delimiter.len());
                if self.matches(byte) {
                    let end = self.text.len().saturating_sub(self.delimiter.len());
                    let start = LINE_END.len().min(end);
                    self.model = Some(self.text[start..end].to_vec());
                    self.text.clear();
                    self.state = State::Delimiter;
                }
            }
            State::Delimiter => {
                self.keep(byte, 2);
                if self.text == b"--" {
                    self.state = State::Ended;
                } else if byte == b'\n' {
                    self.text.clear();
                    self.state = State::Headers;
                }
            }
            State::Headers => {
                self.keep(byte, HEADERS_CAP);
                if matches!(
                    *self.text,
                    [b'\n'] | [b'\r', b'\n'] | [.., b'\n', b'\r', b'\n']
                ) || self.text.ends_with(b"\n\n")
                {
                    self.state = match names_model(&self.text) {
                        true => State::Value,
                        false => State::Skipped,
                    };
                    self.text.clear();
                    // The delimiter may follow at once: this line end belongs to it then.
                    self.matched = LINE_END.len();
                    if self.state == State::Value {
                        self.text.extend_from_slice(LINE_END);
                    }
                } else if self.text.len() == HEADERS_CAP {
                    self.text.clear();
                    self.state = State::Skipped;
                }
            }
            State::Ended => {}
        }
        1
    }

    fn keep(&mut self, byte: u8, cap: usize) {
        if self.text.len() < cap {
            self.text.push(byte);
        }
    }

    /// Adds a byte to what is compared with the delimiter; returns whether it is complete. Only its first byte is a
    /// carriage return.
    fn matches(&mut self, byte: u8) -> bool {
        self.matched = match byte {
            _ if self.delimiter.get(self.matched) == Some(&byte) => self.matched + 1,
            b'\r' => 1,
            _ => 0,
        };
        let is_complete = self.matched == self.delimiter.len();
        if is_complete {
            self.matched = 0;
            if self.state == State::Skipped {
                self.text.clear();
            }
        }
        is_complete
    }
}

/// Whether the headers of a part say that it is the field that names the model, and no file.
fn names_model(headers: &[u8]) -> bool {
    let headers = String::from_utf8_lossy(headers);
    headers.lines().any(|line| {
        let Some((name, value)) = line.split_once(':') else {
            return false;
        };
        let is_disposition = name.trim().eq_ignore_ascii_case("content-disposition");
        is_disposition
            && parameter(value, "name").is_some_and(|name| name == FIELD)
            && parameter(value, "filename").is_none()
    })
}

/// Returns a parameter of a header's value, without its quotes; `None` if it has none of that name.
pub fn parameter<'a>(value: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                (&quoted[..end], quoted[end + 1..].split_once(';'))
            }
            None => match after.split_once(';') {
                Some((value, next)) => (value.trim(), Some(("", next))),
                None => (after.trim(), None),
            },
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = next?.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
                        Content-Type: audio/wav\r\n\r\nRI\r\n--FF\r--b\r\n\r\nx";
    const MODEL: &str = "Content-Disposition: form-data; name=\"model\"\r\n\r\nwhisper";

    fn form(parts: &[&str]) -> Vec<u8> {
        let mut body = String::new();
        for part in parts {
            body += &format!("--b1\r\n{part}\r\n");
        }
        (body + "--b1--\r\n").into_bytes()
    }

    fn read(boundary: &str, pieces: &[&[u8]]) -> BodyModel {
        let mut scan = FormModel::new(boundary).unwrap();
        for piece in pieces {
            scan.push(piece);
        }
        scan.verdict()
    }

    fn named(model: &str) -> BodyModel {
        BodyModel::Named(model.into())
    }

    #[test]
    fn the_field_names_the_model_wherever_it_is_and_wherever_it_is_cut() {
        for parts in [&[MODEL, FILE][..], &[FILE, MODEL], &[FILE, MODEL, FILE]] {
            let body = form(parts);
            for cut in 0..=body.len() {
                let (first, second) = body.split_at(cut);
                assert_eq!(read("b1", &[first, second]), named("whisper"), "{cut}");
            }
        }
    }

    #[test]
    fn a_form_cut_short_is_unknown_until_the_value_ends() {
        let body = form(&[FILE, MODEL]);
        let text = String::from_utf8(body.clone()).unwrap();
        let value_end = text.find("whisper").unwrap() + "whisper\r\n--b1".len();
        for len in 0..body.len() {
            let expected = match len < value_end {
                true => BodyModel::Unknown,
                false => named("whisper"),
            };
            assert_eq!(read("b1", &[&body[..len]]), expected, "{len}");
        }
    }

    #[test]
    fn the_last_field_counts_and_a_file_of_that_name_does_not() {
        let other = MODEL.replace("whisper", "tiny");
        let file = FILE.replace("\"file\"", "\"model\"");
        let bare = "content-disposition:form-data;name=model\n\nm\r\n--b\r\n--b11\n";
        for (parts, expected) in [
            (&[MODEL, &other][..], named("tiny")),
            (&[MODEL, &file], named("whisper")),
            (&[bare], named("m\r\n--b")),
            (&[&file], BodyModel::Absent),
            (&[&MODEL.replace("whisper", "")], BodyModel::Absent),
            (
                &[&MODEL.replace("\"model\"", "\"models\"")],
                BodyModel::Absent,
            ),
            (&["X: 1\r\n\r\n"], BodyModel::Absent),
            (&[], BodyModel::Absent),
        ] {
            assert_eq!(read("b1", &[&form(parts)]), expected, "{parts:?}");
        }
    }

    #[test]
    fn text_before_the_first_part_is_skipped() {
        let body = [&b"preamble --b1\r\n"[..], &form(&[MODEL])].concat();
        assert_eq!(read("b1", &[&body]), named("whisper"));
    }

    #[test]
    fn boundaries_that_no_form_has_are_refused() {
        for boundary in ["", "a\rb", &"x".repeat(71)] {
            assert!(FormModel::new(boundary).is_none(), "{boundary:?}");
        }
    }

    #[test]
    fn a_long_value_and_long_headers_take_constant_memory() {
        let long = "x".repeat(100_000);
        let value = form(&[&MODEL.replace("whisper", &long)]);
        let headers = form(&[&format!("X: {long}\r\n{MODEL}"), MODEL]);
        let mut scan = FormModel::new("b1").unwrap();
        scan.push(&value);
        assert!(scan.model.as_ref().unwrap().capacity() < 8_192);
        assert_eq!(read("b1", &[&headers]), named("whisper"));
    }

    #[test]
    fn parameters_are_found_in_quotes_and_without() {
        for (value, expected) in [
            ("multipart/form-data; boundary=b1", Some("b1")),
            (
                "multipart/form-data;charset=utf-8; Boundary=\"a;b=c\" ; x=y",
                Some("a;b=c"),
            ),
            (
                "multipart/form-data; x=\"boundary=no\"; boundary=yes;z",
                Some("yes"),
            ),
            ("multipart/form-data; x=\"boundary=no\"", None),
            ("multipart/form-data; boundary=\"open", None),
            ("multipart/form-data", None),
        ] {
            assert_eq!(parameter(value, "boundary"), expected, "{value}");
        }
    }
}
