//! Parses HTTP/1 heads: request line, status line, and the fields that say where a message ends and what it is (RFC 9112).
//!
//! The bytes may be cut off anywhere. `chunked` follows chunked bodies, `proxy` skips what a balancer writes first.
//! Does not depend on: connections, times.

pub mod chunked;
pub mod proxy;

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};
use uuid::Uuid;

use crate::protocol::{
    body_format::BodyFormat,
    content_type::{self, BodyKind},
};

/// Result of parsing a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parse<T> {
    /// The head, and its length with the empty line, bytes.
    Complete(T, usize),
    /// The beginning of a head, whose end is missing.
    Partial,
    /// It is not HTTP/1.
    Invalid,
}

/// Where a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// After so many bytes.
    Length(u64),
    /// At the last chunk.
    Chunked,
    /// The head does not say: a request has no body, a response ends with its connection.
    Unsaid,
}

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Method, as sent.
    pub method: String,
    /// Request target, as sent; non-UTF-8 bytes replaced.
    pub target: String,
    /// Where the body ends.
    pub body: Body,
    /// How the body is written.
    pub format: BodyFormat,
}

/// A response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code, 100 to 999.
    pub status: u16,
    /// Where the body ends.
    pub body: Body,
    /// What the body is made of; `None` if the head does not say.
    pub kind: Option<BodyKind>,
    /// Whether the body is compressed.
    pub is_compressed: bool,
    /// Whether it agrees to an upgrade to HTTP/2 (RFC 7540, section 3.2); valid only with status 101.
    pub upgrades_to_http2: bool,
    /// Whether it agrees to a WebSocket (RFC 6455); valid only with status 101.
    pub upgrades_to_websocket: bool,
    /// `x-request-id`, if it is a UUID: TorchServe's ID of the request, also in its workers' frames.
    pub request_id: Option<Uuid>,
}

/// Longest `User-Agent` that is kept, bytes.
pub const USER_AGENT_CAP: usize = 64;
/// Longest method that is accepted, bytes.
const METHOD_CAP: usize = 24;

/// Parses a request's head.
pub fn parse_request(bytes: &[u8]) -> Parse<RequestHead> {
    let Some((line, _)) = split_line(bytes) else {
        return if may_become_request(bytes) {
            Parse::Partial
        } else {
            Parse::Invalid
        };
    };
    let Some((method, target)) = request_line(line) else {
        return Parse::Invalid;
    };
    match fields(bytes, line.len()) {
        Parse::Complete(fields, len) => Parse::Complete(
            RequestHead {
                method: text(method),
                target: text(target),
                body: fields.body,
                format: fields.format,
            },
            len,
        ),
        Parse::Partial => Parse::Partial,
        Parse::Invalid => Parse::Invalid,
    }
}

/// Returns method and target of a request whose head is cut off; the target may be cut off too. `None` if there is no method.
pub fn parse_cut_request(bytes: &[u8]) -> Option<(String, String)> {
    if let Some((line, _)) = split_line(bytes) {
        let (method, target) = request_line(line)?;
        return Some((text(method), text(target)));
    }
    if !may_become_request(bytes) {
        return None;
    }
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let target = bytes.get(space + 1..)?;
    let target = target
        .split(|&byte| byte == b' ')
        .next()
        .unwrap_or_default();
    Some((text(bytes.get(..space)?), text(target)))
}

/// Returns the beginning of the `User-Agent` in a request's head, which may be cut off after it.
pub fn user_agent(head: &[u8]) -> Option<Box<str>> {
    const NAME: &[u8] = b"user-agent:";
    let (_, mut rest) = split_line(head)?;
    while let Some((line, after)) = split_line(rest).filter(|(line, _)| !line.is_empty()) {
        // The head may be cut off within the field.
        let (line, after) = unfold(line, after).unwrap_or((Cow::Borrowed(line), after));
        let is_wanted = |name: &[u8]| name.eq_ignore_ascii_case(NAME);
        if line.get(..NAME.len()).is_some_and(is_wanted) {
            let value = line[NAME.len()..].trim_ascii();
            let value = &value[..value.len().min(USER_AGENT_CAP)];
            return Some(String::from_utf8_lossy(value).into());
        }
        rest = after;
    }
    None
}

/// Whether bytes of a head, from two bytes before the first that was not looked at, contain its end.
pub fn ends_head(bytes: &[u8]) -> bool {
    memchr_iter(b'\n', bytes).any(|at| matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Parses a response's head.
pub fn parse_response(bytes: &[u8]) -> Parse<ResponseHead> {
    const START: &[u8] = b"HTTP/1.";
    let compared = bytes.len().min(START.len());
    if bytes[..compared] != START[..compared] {
        return Parse::Invalid;
    }
    let Some((line, _)) = split_line(bytes) else {
        return if bytes.len() < 256 || status_of(bytes).is_some() {
            Parse::Partial
        } else {
            Parse::Invalid
        };
    };
    let Some(status) = status_of(line) else {
        return Parse::Invalid;
    };
    match fields(bytes, line.len()) {
        Parse::Complete(fields, len) => {
            let head = ResponseHead {
                status,
                body: fields.body,
                kind: fields.kind,
                is_compressed: fields.is_compressed,
                upgrades_to_http2: fields.upgrades_to_http2,
                upgrades_to_websocket: fields.upgrades_to_websocket,
                request_id: fields.request_id,
            };
            Parse::Complete(head, len)
        }
        Parse::Partial => Parse::Partial,
        Parse::Invalid => Parse::Invalid,
    }
}

/// Returns the status code of a status line that may be cut off after it.
pub fn status_of(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first()?;
    let (space, rest) = rest.split_first()?;
    let digits = rest.get(..3)?;
    let ended = rest
        .get(3)
        .is_none_or(|&byte| byte == b' ' || byte == b'\r');
    if !minor.is_ascii_digit() || *space != b' ' || !ended || !digits.iter().all(u8::is_ascii_digit)
    {
        return None;
    }
    let status = digits
        .iter()
        .fold(0, |sum, &digit| sum * 10 + u16::from(digit - b'0'));
    (status >= 100).then_some(status)
}

/// Whether bytes without a line end may be the beginning of a request line.
fn may_become_request(bytes: &[u8]) -> bool {
    match bytes.iter().position(|&byte| byte == b' ') {
        Some(space) => is_method(&bytes[..space]),
        None => bytes.is_empty() || is_method(bytes),
    }
}

fn is_method(bytes: &[u8]) -> bool {
    (1..=METHOD_CAP).contains(&bytes.len())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_'))
}

/// Returns method and target of a complete HTTP/1 request line.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    (is_method(method) && !target.is_empty() && version.starts_with(b"HTTP/1."))
        .then_some((method, target))
}

/// Returns the first line without its end, and what follows it.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', bytes)?;
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    Some((line, &bytes[end + 1..]))
}

/// What the fields of a head say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    body: Body,
    format: BodyFormat,
    kind: Option<BodyKind>,
    is_compressed: bool,
    upgrades_to_http2: bool,
    upgrades_to_websocket: bool,
    request_id: Option<Uuid>,
}

/// Parses the fields after a start line of `line_len` bytes; returns what they say and the length of the whole head.
fn fields(bytes: &[u8], line_len: usize) -> Parse<Fields> {
    let Some(start) = memchr(b'\n', &bytes[line_len..]) else {
        return Parse::Partial;
    };
    let mut rest = &bytes[line_len + start + 1..];
    let mut fields = Fields {
        body: Body::Unsaid,
        format: BodyFormat::default(),
        kind: None,
        is_compressed: false,
        upgrades_to_http2: false,
        upgrades_to_websocket: false,
        request_id: None,
    };
    loop {
        let Some((line, after)) = split_line(rest) else {
            return Parse::Partial;
        };
        if line.is_empty() {
            return Parse::Complete(fields, bytes.len() - after.len());
        }
        let Some((line, after)) = unfold(line, after) else {
            return Parse::Partial;
        };
        // Names are too short for a search of many bytes at once to pay.
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Parse::Invalid;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let codings = value.len().checked_sub(7).map(|at| value.split_at(at));
            if let Some((before, last)) = codings
                && last.eq_ignore_ascii_case(b"chunked")
            {
                fields.body = Body::Chunked;
                fields.is_compressed |= !before.is_empty();
            }
        } else if name.eq_ignore_ascii_case(b"content-length") && fields.body != Body::Chunked {
            match std::str::from_utf8(value)
                .ok()
                .and_then(|value| value.parse().ok())
            {
                Some(length) => fields.body = Body::Length(length),
                None => return Parse::Invalid,
            }
        } else if name.eq_ignore_ascii_case(b"x-request-id") {
            fields.request_id = Uuid::try_parse_ascii(value).ok();
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            fields.upgrades_to_http2 = value.eq_ignore_ascii_case(b"h2c");
            fields.upgrades_to_websocket = value.eq_ignore_ascii_case(b"websocket");
        } else if name.eq_ignore_ascii_case(b"content-type") {
            fields.kind = Some(BodyKind::of(value));
            fields.format.on_content_type(value);
        } else if name.eq_ignore_ascii_case(b"content-encoding") {
            fields.format.on_content_encoding(value);
            fields.is_compressed |= content_type::is_compressed(value);
        }
        rest = after;
    }
}

/// Joins the line of a field with the lines that continue it, which begin with a blank (`obs-fold` of RFC 9112, section
/// 5.2); returns it and what follows. `None` if it may go on after the known bytes.
#[inline]
fn unfold<'a>(line: &'a [u8], rest: &'a [u8]) -> Option<(Cow<'a, [u8]>, &'a [u8])> {
    match rest.first()? {
        b' ' | b'\t' => unfold_all(line, rest),
        _ => Some((Cow::Borrowed(line), rest)),
    }
}

#[cold]
fn unfold_all<'a>(line: &[u8], mut rest: &'a [u8]) -> Option<(Cow<'a, [u8]>, &'a [u8])> {
    let mut whole = line.to_vec();
    while matches!(rest.first()?, b' ' | b'\t') {
        let (more, after) = split_line(rest)?;
        whole.push(b' ');
        whole.extend_from_slice(more.trim_ascii());
        rest = after;
    }
    Some((Cow::Owned(whole), rest))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &[u8] =
        b"POST /v2/models/a/infer HTTP/1.1\r\nHost: x\r\ncontent-LENGTH:  12 \r\n\r\nbody";
    const OK: &[u8] = b"HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nhello";

    fn request(bytes: &[u8]) -> RequestHead {
        match parse_request(bytes) {
            Parse::Complete(head, _) => head,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_head_gives_method_target_and_length() {
        let expected = RequestHead {
            method: "POST".into(),
            target: "/v2/models/a/infer".into(),
            body: Body::Length(12),
            format: BodyFormat::default(),
        };
        assert_eq!(
            parse_request(POST),
            Parse::Complete(expected, POST.len() - 4)
        );
    }

    #[test]
    fn a_response_head_gives_status_and_length_also_without_a_reason() {
        let expected = ResponseHead {
            status: 200,
            body: Body::Length(5),
            kind: None,
            is_compressed: false,
            upgrades_to_http2: false,
            upgrades_to_websocket: false,
            request_id: None,
        };
        assert_eq!(parse_response(OK), Parse::Complete(expected, OK.len() - 5));
    }

    #[test]
    fn a_user_agent_is_found_in_any_part_of_a_head_that_holds_it() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\nuser-AGENT:  kube-probe/1.31 \r\nCookie: a\r\n\r\nUser-Agent: b\r\n";
        let end = head.windows(3).position(|bytes| bytes == b"\nCo").unwrap();
        for len in 0..head.len() {
            let expected = (len > end).then_some("kube-probe/1.31");
            assert_eq!(user_agent(&head[..len]).as_deref(), expected, "{len}");
        }
        let long = format!("GET / HTTP/1.1\r\nUser-Agent: {}\r\n\r\n", "x".repeat(99));
        assert_eq!(user_agent(long.as_bytes()).unwrap().len(), USER_AGENT_CAP);
        assert_eq!(user_agent(b"GET / HTTP/1.1\r\n\r\nUser-Agent: b\r\n"), None);
        assert_eq!(
            user_agent(b"GET / HTTP/1.1\r\nUser-Agent:\r\n a\r\n\tb\r\n\r\n").as_deref(),
            Some("a b")
        );
        assert_eq!(
            user_agent(b"GET / HTTP/1.1\r\nUser-Agent: \xff\r\n").as_deref(),
            Some("\u{fffd}")
        );
    }

    #[test]
    fn a_head_says_what_the_body_is_made_of() {
        for (fields, kind, is_compressed) in [
            (
                "content-type: text/event-stream; charset=utf-8",
                Some(BodyKind::Events),
                false,
            ),
            (
                "Content-Type:application/json\r\nContent-Encoding: identity",
                Some(BodyKind::Json),
                false,
            ),
            (
                "Content-Type: application/json\r\nContent-Encoding: gzip",
                Some(BodyKind::Json),
                true,
            ),
            ("Transfer-Encoding: gzip, chunked", None, true),
            ("Transfer-Encoding: chunked", None, false),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            let Parse::Complete(head, _) = parse_response(head.as_bytes()) else {
                panic!("{fields}: not complete")
            };
            assert_eq!(
                (head.kind, head.is_compressed),
                (kind, is_compressed),
                "{fields}"
            );
        }
    }

    #[test]
    fn heads_cut_at_any_byte_are_partial() {
        for len in 0..POST.len() - 4 {
            assert_eq!(parse_request(&POST[..len]), Parse::Partial, "{len}");
        }
        for len in 0..OK.len() - 5 {
            assert_eq!(parse_response(&OK[..len]), Parse::Partial, "{len}");
        }
    }

    #[test]
    fn transfer_encoding_wins_over_length() {
        for head in [
            &b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 3\r\n\r\n",
        ] {
            assert_eq!(request(head).body, Body::Chunked);
        }
    }

    #[test]
    fn folded_fields_are_one_value() {
        let head = b"POST / HTTP/1.1\r\nX-Note: a\r\n\tno colon here\r\n  : none\r\nContent-Length:\r\n 12\r\n\
            X: y\r\n\r\n";
        assert_eq!(request(head).body, Body::Length(12));
        for len in 0..head.len() {
            assert_eq!(parse_request(&head[..len]), Parse::Partial, "{len}");
        }
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\t gzip,\r\n chunked\r\n\r\n";
        assert_eq!(request(chunked).body, Body::Chunked);
        let events = b"HTTP/1.1 200 OK\r\ncontent-type:\n  text/event-stream;\n  charset=x\n\n";
        let Parse::Complete(head, len) = parse_response(events) else {
            panic!("not complete")
        };
        assert_eq!((head.kind, len), (Some(BodyKind::Events), events.len()));
    }

    #[test]
    fn bare_line_feeds_are_taken() {
        let head = request(b"GET / HTTP/1.0\nHost: x\n\nrest");
        assert_eq!((head.method.as_str(), head.body), ("GET", Body::Unsaid));
    }

    #[test]
    fn what_is_not_http_is_invalid() {
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01"[..],
            b"get / HTTP/1.1\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            b"POST / HTTP/1.1\r\nno colon\r\n\r\n",
            b"{\"json\": 1}",
        ] {
            assert_eq!(
                parse_request(bytes),
                Parse::Invalid,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
        for bytes in [
            &b"HTTP/2 200\r\n\r\n"[..],
            b"HTTP/1.1 20x OK\r\n\r\n",
            b"HTTP/1.1 099 No\r\n\r\n",
            b"data: 1\n\n",
        ] {
            assert_eq!(
                parse_response(bytes),
                Parse::Invalid,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn non_utf8_targets_do_not_break() {
        let head = request(b"GET /\xff\xfe HTTP/1.1\r\n\r\n");
        assert_eq!(head.target, "/\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_cut_request_still_tells_its_target() {
        let line = b"GET /predictions/m HTTP/1.1\r\nCookie: aaaa";
        assert_eq!(
            parse_cut_request(line),
            Some(("GET".into(), "/predictions/m".into()))
        );
        assert_eq!(
            parse_cut_request(b"POST /long"),
            Some(("POST".into(), "/long".into()))
        );
        assert_eq!(parse_cut_request(b"\0\0\0"), None);
    }

    #[test]
    fn two_messages_in_one_buffer_are_told_apart() {
        let mut both = b"GET /a HTTP/1.1\r\n\r\n".to_vec();
        let first = both.len();
        both.extend(b"GET /b HTTP/1.1\r\n\r\n");
        let Parse::Complete(head, len) = parse_request(&both) else {
            panic!("not complete")
        };
        assert_eq!((head.target.as_str(), len), ("/a", first));
        assert_eq!(request(&both[len..]).target, "/b");
    }
}
