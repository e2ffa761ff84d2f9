//! Holds how a request's body is written, by its head: compressed or not, and how if it is a form.
//!
//! HTTP/1 and HTTP/2 heads fill it in, the search for the model follows it.
//! Does not depend on: heads, bodies.

use crate::protocol::form_model;

/// How a body is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BodyFormat {
    /// How it is compressed.
    pub coding: Coding,
    /// What separates its parts, if it is a form with several.
    pub boundary: Option<Box<str>>,
    /// Whether it is a form that is written like the query of a URL.
    pub is_url_encoded: bool,
}

/// How a body is compressed (RFC 9110, section 8.4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    #[default]
    Identity,
    /// `gzip`
    Gzip,
    /// `deflate`: zlib's format, or without its header.
    Deflate,
    /// `br`
    Brotli,
    /// In a way that the agent does not decode, or in several.
    Other,
}

impl BodyFormat {
    /// Processes the value of a `Content-Type` field.
    pub fn on_content_type(&mut self, value: &[u8]) {
        let is = |kind: &str| {
            let start = value.get(..kind.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(kind.as_bytes()))
        };
        self.is_url_encoded = is("application/x-www-form-urlencoded");
        self.boundary = match std::str::from_utf8(value) {
            Ok(value) if is("multipart/form-data") => {
                form_model::parameter(value, "boundary").map(Box::from)
            }
            _ => None,
        };
    }

    /// Processes the value of a `Content-Encoding` field.
    pub fn on_content_encoding(&mut self, value: &[u8]) {
        let is = |name: &str| value.eq_ignore_ascii_case(name.as_bytes());
        self.coding = match self.coding {
            _ if is("identity") || value.is_empty() => self.coding,
            Coding::Identity if is("gzip") || is("x-gzip") => Coding::Gzip,
            Coding::Identity if is("deflate") => Coding::Deflate,
            Coding::Identity if is("br") => Coding::Brotli,
            _ => Coding::Other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_a_boundary_and_nothing_else_has() {
        for (kind, expected) in [
            ("multipart/form-data; boundary=b1", Some("b1")),
            (
                "Multipart/Form-Data;charset=x; boundary=\"b 1\"",
                Some("b 1"),
            ),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=b1", None),
            ("application/json; boundary=b1", None),
            ("", None),
        ] {
            let mut format = BodyFormat::default();
            format.on_content_type(kind.as_bytes());
            assert_eq!(format.boundary.as_deref(), expected, "{kind}");
        }
    }

    #[test]
    fn one_known_coding_is_decoded() {
        for (values, expected) in [
            (&["gzip"][..], Coding::Gzip),
            (&["X-GZIP"], Coding::Gzip),
            (&["identity", "deflate"], Coding::Deflate),
            (&["br", ""], Coding::Brotli),
            (&["identity"], Coding::Identity),
            (&["zstd"], Coding::Other),
            (&["gzip, br"], Coding::Other),
            (&["gzip", "br"], Coding::Other),
        ] {
            let mut format = BodyFormat::default();
            for value in values {
                format.on_content_encoding(value.as_bytes());
            }
            assert_eq!(format.coding, expected, "{values:?}");
        }
    }
}
