//! Finds the TLS records of one direction in what the kernel half reports of its transfers.
//!
//! It moves the same cursor as the kernel half, and so knows what was not copied.
//! Does not depend on: what records mean, times.

use inferprobe_ebpf::{
    http2_frames::{DataKept, FrameCursor, RECORD_HEAD_LEN},
    tls_records::is_record_head,
};

/// Bytes of handshake messages that are kept: the kernel half copies no more.
const HANDSHAKE_CAP: usize = 4096;

/// A piece of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What it is of.
    pub of: Of,
    /// Where it begins, in bytes from the first byte of what was reported.
    pub at: u64,
    /// Its bytes, those of a header included.
    pub bytes: u64,
}

/// What a piece is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A record of this type.
    Record {
        /// Its type.
        kind: u8,
        /// Bytes of its fragment; 0: the header is not whole.
        fragment: u32,
        /// Whether its first byte is in the piece.
        begins: bool,
        /// Whether its last byte is.
        ends: bool,
    },
    /// Bytes that begin with no record: plaintext, if the kernel encrypts them.
    Plain,
    /// Bytes that were not followed.
    Unfollowed,
}

/// The records of one direction.
#[derive(Debug)]
pub struct Walk {
    cursor: FrameCursor,
    /// The header that is being read.
    head: Vec<u8>,
    /// Fragment of the latest record whose header is whole.
    fragment: u32,
    /// Whether the present transfer began with no record.
    is_plain: bool,
    /// The first bytes of the latest transfer that began with no record.
    pub plain: Vec<u8>,
    /// Messages of the handshake that are not encrypted, as far as they were copied.
    pub handshake: Vec<u8>,
    /// Whether messages of the handshake are of no use any more.
    is_shaken: bool,
}

impl Default for Walk {
    /// Before the first record.
    fn default() -> Self {
        Self {
            cursor: FrameCursor::BEFORE_RECORDS,
            head: Vec::new(),
            fragment: 0,
            is_plain: false,
            plain: Vec::new(),
            handshake: Vec::new(),
            is_shaken: false,
        }
    }
}

impl Walk {
    /// Keeps no messages of the handshake from now on.
    pub fn end_handshake(&mut self) {
        self.is_shaken = true;
        self.handshake = Vec::new();
    }

    /// Loses the position.
    pub fn lose(&mut self) {
        self.cursor.lose();
        self.head.clear();
        self.is_plain = false;
    }

    /// Processes `bytes` bytes of a transfer, of which `visible` were copied; `begins` says whether they are its first. Calls
    /// `on_part` for each piece, in order.
    pub fn feed(
        &mut self,
        mut visible: &[u8],
        bytes: u64,
        begins: bool,
        mut on_part: impl FnMut(Part),
    ) {
        if begins {
            if self.cursor.is_lost() {
                self.head.clear();
            }
            self.cursor.on_transfer();
            self.is_plain = false;
        }
        let mut at = 0;
        while at < bytes {
            let left = bytes - at;
            let taken = match self.step(visible, left, at == 0 && begins) {
                Some((of, taken, copied)) => {
                    visible = &visible[copied..];
                    on_part(Part {
                        of,
                        at,
                        bytes: taken,
                    });
                    taken
                }
                None => {
                    self.lose();
                    on_part(Part {
                        of: Of::Unfollowed,
                        at,
                        bytes: left,
                    });
                    left
                }
            };
            at += taken;
        }
    }

    /// Takes the next of `left` bytes: what they are of, how many they are, and how many of them were copied. `None`: their
    /// header was not copied.
    fn step(&mut self, visible: &[u8], left: u64, is_first: bool) -> Option<(Of, u64, usize)> {
        if self.is_plain {
            return Some(self.take_plain(visible, left));
        }
        if self.cursor.is_lost() && !self.cursor.is_in_head() {
            return Some((Of::Unfollowed, left, 0));
        }
        let (begins, mut taken) = (self.cursor.is_before_head(), 0);
        if self.cursor.is_in_head() {
            let kept = u64::from(self.cursor.keeps()).min(left);
            let head = visible.get(..kept as usize)?;
            for &byte in head {
                self.cursor.on_head(byte, DataKept::RESPONSES);
            }
            self.head.extend_from_slice(head);
            taken = kept as usize;
            if self.head.len() < usize::from(RECORD_HEAD_LEN) {
                if self.cursor.is_lost() {
                    self.plain.clone_from(&self.head);
                    return Some((Of::Plain, kept, taken));
                }
                return Some((self.record(0, begins, false), kept, taken));
            }
            let head = std::mem::take(&mut self.head);
            let rest = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            if !is_record_head(head[0], rest) {
                if !is_first || !begins {
                    return None;
                }
                self.is_plain = true;
                self.plain = head;
                let (of, rest, copied) = self.take_plain(&visible[taken..], left - kept);
                return Some((of, kept + rest, taken + copied));
            }
            self.fragment = rest & 0xffff;
        }
        let payload = u64::from(self.cursor.payload_left()).min(left - taken as u64);
        let kept = self.cursor.keeps().min(payload as u32) as usize;
        let copied = visible.get(taken..taken + kept)?;
        if !self.is_shaken {
            let room = HANDSHAKE_CAP.saturating_sub(self.handshake.len());
            self.handshake.extend_from_slice(&copied[..kept.min(room)]);
        }
        self.cursor.on_payload(payload as u32);
        let ends = self.cursor.payload_left() == 0;
        let of = self.record(self.fragment, begins, ends);
        Some((of, taken as u64 + payload, taken + kept))
    }

    /// Takes `bytes` bytes of plaintext, as [`Walk::step`] does.
    fn take_plain(&mut self, visible: &[u8], bytes: u64) -> (Of, u64, usize) {
        let kept = u64::from(self.cursor.keeps()).min(bytes) as u32;
        let copied = visible.len().min(kept as usize);
        self.plain.extend_from_slice(&visible[..copied]);
        self.cursor.on_payload(kept);
        (Of::Plain, bytes, copied)
    }

    fn record(&self, fragment: u32, begins: bool, ends: bool) -> Of {
        Of::Record {
            kind: self.cursor.record_type(),
            fragment,
            begins,
            ends,
        }
    }
}
