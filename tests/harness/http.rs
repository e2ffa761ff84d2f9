//! Parses HTTP/1.1 heads and chunked bodies from bytes.
//!
//! Does not depend on: sockets or a clock.

/// Returns the length of the head at the start of `bytes`, its blank line included; `None` while it is incomplete.
pub fn head_len(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Returns the value of Content-Length in a head, without allocating.
pub fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head.split(|&byte| byte == b'\n').find(|line| {
        line.get(..NAME.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    })?;
    std::str::from_utf8(&line[NAME.len()..])
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// First line and header fields of a request or a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The first line, without its line end.
    pub start: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// Reads the text up to the blank line; bytes that are not UTF-8 are replaced.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { start, fields }
    }

    /// Returns the value of the field `name`, which must be in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the value of Content-Length; `None` without one, or if it is no number.
    pub fn content_length(&self) -> Option<usize> {
        self.field("content-length")?.parse().ok()
    }

    /// Returns whether the body is chunked.
    pub fn chunked(&self) -> bool {
        self.field("transfer-encoding") == Some("chunked")
    }

    /// Returns the `n`-th word of the first line, from 0.
    pub fn word(&self, n: usize) -> &str {
        self.start.split(' ').nth(n).unwrap_or_default()
    }
}

/// Returns the length of the complete chunked body at the start of `bytes`, with its trailers and last line end, and
/// the length of its content.
pub fn chunked_len(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut content) = (0, 0);
    loop {
        let line = bytes.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some((trailers_end(bytes, at + line + 2)?, content));
        }
        at = size.checked_add(at + line + 4)?;
        content += size;
        if at > bytes.len() {
            return None;
        }
    }
}

/// Returns the content of the complete chunked body at the start of `bytes`, without the framing.
pub fn chunked_content(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let mut rest = bytes;
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(content);
        }
        content.extend(rest.get(line + 2..)?.get(..size)?);
        rest = rest.get(line + 2 + size + 2..)?;
    }
}

/// Returns the end of the trailers that start at `at`, their empty line included.
fn trailers_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line = bytes.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_blank_line() {
        let bytes = b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest";
        assert_eq!(head_len(bytes), Some(bytes.len() - 4));
        assert!((0..bytes.len() - 4).all(|cut| head_len(&bytes[..cut]).is_none()));
    }

    #[test]
    fn fields_are_found_whatever_their_case() {
        let head = Head::parse(b"HTTP/1.1 204 No\r\nContent-LENGTH: 12\r\n\r\n");
        assert_eq!(head.word(1), "204");
        assert_eq!(head.content_length(), Some(12));
        assert!(!head.chunked());
        let bytes = b"GET / HTTP/1.1\r\ncontent-LENGTH:12\r\n\r\n";
        assert_eq!(content_length(bytes), Some(12));
        assert_eq!(content_length(b"GET / HTTP/1.1\r\nA: 1\r\n\r\n"), None);
    }

    #[test]
    fn a_chunked_body_is_complete_only_with_its_last_byte() {
        for (bytes, len) in [
            (&b"3\r\nabc\r\n0\r\n\r\nnext"[..], 13),
            (b"3\r\nabc\r\n0\r\nA: b\r\nC: d\r\n\r\nnext", 25),
        ] {
            assert_eq!(chunked_len(bytes), Some((len, 3)));
            assert_eq!(chunked_content(bytes).as_deref(), Some(&b"abc"[..]));
            assert!((0..len).all(|cut| chunked_len(&bytes[..cut]).is_none()));
        }
        assert_eq!(chunked_len(b"ffffffffffffffff\r\nx"), None);
    }
}
