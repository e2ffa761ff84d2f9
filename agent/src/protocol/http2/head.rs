//! Parses the header of an HTTP/2 frame, and checks it against the standard.
//!
//! The parser calls it for every frame.
//! Does not depend on: payloads.

/// Bytes of a frame's header.
pub(super) const HEAD_LEN: usize = 9;

/// Frame types.
pub(super) mod kind {
    pub(in crate::protocol) const DATA: u8 = 0;
    pub(in crate::protocol) const HEADERS: u8 = 1;
    pub(in crate::protocol) const PRIORITY: u8 = 2;
    pub(in crate::protocol) const RST_STREAM: u8 = 3;
    pub(in crate::protocol) const SETTINGS: u8 = 4;
    pub(in crate::protocol) const PUSH_PROMISE: u8 = 5;
    pub(in crate::protocol) const PING: u8 = 6;
    pub(in crate::protocol) const GOAWAY: u8 = 7;
    pub(in crate::protocol) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::protocol) const CONTINUATION: u8 = 9;
}

/// Bits of a frame's flags.
pub(super) mod flag {
    pub(in crate::protocol) const ACK: u8 = 0x1;
    pub(in crate::protocol) const END_STREAM: u8 = 0x1;
    pub(in crate::protocol) const END_HEADERS: u8 = 0x4;
    pub(in crate::protocol) const PADDED: u8 = 0x8;
    pub(in crate::protocol) const PRIORITY: u8 = 0x20;
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Length of the payload, bytes; 24 bits.
    pub(super) len: u32,
    /// One of [`kind`], or something else.
    pub(super) kind: u8,
    /// Bits of [`flag`], which depend on the type.
    pub(super) flags: u8,
    /// Stream; 0: the connection.
    pub(super) stream: u32,
}

impl Head {
    /// Parses a header.
    pub(super) fn parse(bytes: [u8; HEAD_LEN]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            len: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            // The top bit has no meaning and must be ignored.
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        }
    }

    /// Whether a bit of the flags is set.
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of the whole frame.
    pub(super) fn bytes(&self) -> u64 {
        HEAD_LEN as u64 + u64::from(self.len)
    }

    /// Whether the standard allows a frame with such a header. Unknown types are allowed.
    pub(super) fn is_sound(&self) -> bool {
        let on_stream = self.stream != 0;
        match self.kind {
            kind::DATA | kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION => on_stream,
            kind::PRIORITY => on_stream && self.len == 5,
            kind::RST_STREAM => on_stream && self.len == 4,
            kind::SETTINGS => {
                !on_stream && self.len.is_multiple_of(6) && (self.len == 0 || !self.has(flag::ACK))
            }
            kind::PING => !on_stream && self.len == 8,
            kind::GOAWAY => !on_stream && self.len >= 8,
            kind::WINDOW_UPDATE => self.len == 4,
            _ => true,
        }
    }

    /// Whether it carries a part of a header block.
    pub(super) fn has_block(&self) -> bool {
        matches!(
            self.kind,
            kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION
        )
    }
}
