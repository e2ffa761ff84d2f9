//! Collects the wanted fields of a header block.
//!
//! `hpack` decodes the block and names the fields.
//! Does not depend on: frames.

use crate::protocol::{
    body_format::BodyFormat,
    content_type::{self, BodyKind},
    hpack::{Field, Name},
    http1::USER_AGENT_CAP,
};

/// The wanted fields of a header block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// `:method`
    pub method: Option<String>,
    /// `:path`, cut at 1024 bytes; non-UTF-8 bytes replaced.
    pub path: Option<String>,
    /// `:status`, 100 to 999.
    pub status: Option<u16>,
    /// `grpc-status`
    pub grpc_status: Option<u32>,
    /// `user-agent`, cut at 64 bytes; non-UTF-8 bytes replaced.
    pub user_agent: Option<Box<str>>,
    /// `content-type`
    pub content: Option<Content>,
    /// How the body is written, by `content-type` and `content-encoding`.
    pub format: BodyFormat,
    /// Whether the content is compressed, by `content-encoding`.
    pub is_compressed: bool,
    /// Whether there is a `content-length`.
    pub has_length: bool,
    /// Whether there are fields that refer to headers sent before the agent joined the connection.
    pub unknown: bool,
}

impl Fields {
    pub(super) fn push(&mut self, field: Field<'_>) {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        match field {
            Field::Unknown => self.unknown = true,
            Field::Wanted(Name::Method, value) => self.method = Some(text(value)),
            Field::Wanted(Name::Path, value) => self.path = Some(text(value)),
            Field::Wanted(Name::Status, value) => {
                let status = number(value).and_then(|status| u16::try_from(status).ok());
                self.status = status.filter(|status| (100..1000).contains(status));
            }
            Field::Wanted(Name::GrpcStatus, value) => self.grpc_status = number(value),
            Field::Wanted(Name::ContentType, value) => {
                self.content = Some(Content::of(value));
                self.format.on_content_type(value);
            }
            Field::Wanted(Name::ContentLength, _) => self.has_length = true,
            Field::Wanted(Name::UserAgent, value) => {
                let value = &value[..value.len().min(USER_AGENT_CAP)];
                self.user_agent = Some(String::from_utf8_lossy(value).into());
            }
            Field::Wanted(Name::ContentEncoding, value) => {
                self.format.on_content_encoding(value);
                self.is_compressed = content_type::is_compressed(value);
            }
        }
    }
}

/// What a `content-type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `application/grpc`, with whatever suffix.
    Grpc,
    /// Anything else.
    Body(BodyKind),
}

impl Content {
    /// Returns what a body of this type is made of.
    pub fn body(self) -> BodyKind {
        match self {
            Self::Grpc => BodyKind::Other,
            Self::Body(kind) => kind,
        }
    }

    fn of(value: &[u8]) -> Self {
        let begins = |kind: &[u8]| {
            value
                .get(..kind.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(kind))
        };
        if begins(b"application/grpc") {
            Self::Grpc
        } else {
            Self::Body(BodyKind::of(value))
        }
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
