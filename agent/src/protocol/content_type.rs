//! Tells from the headers of a response what its body is made of, and whether it can be read.
//!
//! HTTP/1 and HTTP/2 share it.
//! Does not depend on: bodies.

/// What a body is made of, by its `content-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// `text/event-stream`
    Events,
    /// JSON: one value, or several of them, in lines or in an array.
    Json,
    /// Any other text.
    Text,
    /// Anything else.
    Other,
}

impl BodyKind {
    /// Returns the kind that the value of a `content-type` names.
    pub fn of(value: &[u8]) -> Self {
        let kind = value.split(|&byte| byte == b';').next().unwrap_or_default();
        let kind = kind.trim_ascii();
        let is = |name: &[u8]| kind.eq_ignore_ascii_case(name);
        let ends = |name: &[u8]| {
            kind.len() > name.len() && kind[kind.len() - name.len()..].eq_ignore_ascii_case(name)
        };
        if is(b"text/event-stream") {
            Self::Events
        } else if ends(b"/json")
            || ends(b"+json")
            || ends(b"ndjson")
            || ends(b"jsonl")
            || ends(b"jsonlines")
            || ends(b"json-seq")
        {
            Self::Json
        } else if kind.len() > 5 && kind[..5].eq_ignore_ascii_case(b"text/") {
            Self::Text
        } else {
            Self::Other
        }
    }
}

/// Whether the value of a `content-encoding` means that the body is compressed.
pub fn is_compressed(value: &[u8]) -> bool {
    !value.is_empty() && !value.eq_ignore_ascii_case(b"identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_names_a_kind() {
        for (value, expected) in [
            ("text/event-stream", BodyKind::Events),
            ("Text/Event-Stream; charset=utf-8", BodyKind::Events),
            ("text/event-streams", BodyKind::Text),
            ("application/json", BodyKind::Json),
            ("application/json;charset=utf-8", BodyKind::Json),
            ("application/x-ndjson", BodyKind::Json),
            ("application/jsonl", BodyKind::Json),
            ("application/stream+json", BodyKind::Json),
            ("text/plain", BodyKind::Text),
            ("text/html", BodyKind::Text),
            ("application/octet-stream", BodyKind::Other),
            ("application/grpc", BodyKind::Other),
            ("text", BodyKind::Other),
            ("", BodyKind::Other),
        ] {
            assert_eq!(BodyKind::of(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn identity_is_no_compression() {
        for (value, expected) in [
            ("gzip", true),
            ("br", true),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(is_compressed(value.as_bytes()), expected, "{value}");
        }
    }
}
