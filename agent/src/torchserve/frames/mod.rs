//! Reads the frames between TorchServe's frontend and its workers, from pieces of any size and without their big values.
//!
//! A frame is a sequence of bytes, big-endian integers and texts with a length prefix. It has no size field.
//! Does not depend on: sockets, records, the clock.

pub mod command;
pub mod reply;

use thiserror::Error;

/// Longest text that is kept, bytes; a longer one is skipped as if it had not been captured.
const KEPT_BYTES: u32 = 256;
/// Most requests in one frame: far above any batch size in use, to limit memory.
const MAX_BATCH: usize = 1024;

/// Why the frames of a connection cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// Bytes that were not captured contain more than one text's value.
    #[error("cannot follow the frame: a length or a field was not captured")]
    Gap,
    /// A frame begins with a byte that is no command.
    #[error("cannot read the frame: {0:#04x} is no command")]
    NoCommand(u8),
    /// A negative length that does not end a list.
    #[error("cannot read the frame: length {0} is negative")]
    BadLength(i32),
    /// More requests in a frame than [`MAX_BATCH`].
    #[error("cannot read the frame: it contains more than {MAX_BATCH} requests")]
    LongBatch,
}

/// Kind of the next field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// One byte.
    Byte,
    /// A 32-bit integer.
    Int,
    /// A length and as many bytes; a length of -1 is the end of a list.
    Text {
        /// Whether the grammar needs the bytes.
        keep: bool,
    },
}

/// A field that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// One byte.
    Byte(u8),
    /// A 32-bit integer.
    Int(i32),
    /// A text; `None` if it was not needed, not captured whole, or too long to keep.
    Text(Option<&'a [u8]>),
    /// The end of a list, in place of a text.
    End,
}

/// Whether a frame has more fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameStep {
    /// Another field follows.
    More,
    /// It is complete.
    Done,
}

/// Reads the frames of one direction, field by field.
pub trait FrameGrammar: Default {
    /// Content of a frame.
    type Frame;

    /// Returns the kind of the next field.
    fn next_field(&self) -> FieldKind;

    /// Processes a field.
    fn on_field(&mut self, field: FieldValue<'_>) -> Result<FrameStep, FrameFault>;

    /// Returns the frame and starts over; `None` if no frame had begun. `whole` is whether the frame is complete.
    fn finish(&mut self, whole: bool) -> Option<Self::Frame>;
}

/// Reads the frames of one direction of a connection, from its first byte or from any first byte of a frame.
#[derive(Debug)]
pub struct WorkerFrameReader<G> {
    grammar: G,
    field: FieldState,
    fault: Option<FrameFault>,
}

/// The field that is being read.
#[derive(Debug)]
enum FieldState {
    Byte,
    Int {
        bytes: [u8; 4],
        read: usize,
    },
    Length {
        bytes: [u8; 4],
        read: usize,
        keep: bool,
    },
    Text {
        left: u32,
        kept: Option<Vec<u8>>,
    },
}

impl From<FieldKind> for FieldState {
    fn from(want: FieldKind) -> Self {
        let bytes = [0; 4];
        match want {
            FieldKind::Byte => Self::Byte,
            FieldKind::Int => Self::Int { bytes, read: 0 },
            FieldKind::Text { keep } => Self::Length {
                bytes,
                read: 0,
                keep,
            },
        }
    }
}

impl<G: FrameGrammar> Default for WorkerFrameReader<G> {
    fn default() -> Self {
        let grammar = G::default();
        Self {
            field: grammar.next_field().into(),
            grammar,
            fault: None,
        }
    }
}

impl<G: FrameGrammar> WorkerFrameReader<G> {
    /// Reads the next bytes; complete frames go to `out`. After a fault, all bytes are refused until
    /// [`end`](Self::end).
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<G::Frame>) -> Result<(), FrameFault> {
        self.guard(|this| {
            let mut rest = bytes;
            while !rest.is_empty() {
                rest = this.take(rest, out)?;
            }
            Ok(())
        })
    }

    /// Skips bytes that were not captured.
    pub fn skip(&mut self, bytes: u64, out: &mut Vec<G::Frame>) -> Result<(), FrameFault> {
        self.guard(|this| {
            let mut rest = bytes;
            while rest > 0 {
                let FieldState::Text { left, kept } = &mut this.field else {
                    return Err(FrameFault::Gap);
                };
                *kept = None;
                let skipped = rest.min(u64::from(*left));
                rest -= skipped;
                // At most `left`, which has 32 bits.
                *left -= skipped as u32;
                if *left == 0 {
                    this.complete(FieldValue::Text(None), out)?;
                }
            }
            Ok(())
        })
    }

    /// Ends a frame whose remaining bytes will not be captured; the next byte begins another. `None` if no frame had begun.
    pub fn end(&mut self) -> Option<G::Frame> {
        let frame = self.grammar.finish(false);
        self.field = self.grammar.next_field().into();
        self.fault = None;
        frame
    }

    fn guard(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), FrameFault>,
    ) -> Result<(), FrameFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let outcome = read(self);
        self.fault = outcome.err();
        outcome
    }

    /// Reads what the current field needs from `bytes`; returns the remaining bytes.
    fn take<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<G::Frame>,
    ) -> Result<&'a [u8], FrameFault> {
        let (first, after_first) = bytes.split_first().expect("there are bytes to take from");
        match &mut self.field {
            FieldState::Byte => {
                self.complete(FieldValue::Byte(*first), out)?;
                Ok(after_first)
            }
            FieldState::Int { bytes, read } | FieldState::Length { bytes, read, .. } => {
                bytes[*read] = *first;
                *read += 1;
                if *read == bytes.len() {
                    let value = i32::from_be_bytes(*bytes);
                    self.complete_int(value, out)?;
                }
                Ok(after_first)
            }
            FieldState::Text { left, kept } => {
                let taken = bytes.len().min(*left as usize);
                let (text, rest) = bytes.split_at(taken);
                // At most `left`, which has 32 bits.
                *left -= taken as u32;
                if let Some(kept) = kept {
                    kept.extend_from_slice(text);
                }
                if *left == 0 {
                    let kept = kept.take();
                    self.complete(FieldValue::Text(kept.as_deref()), out)?;
                }
                Ok(rest)
            }
        }
    }

    fn complete_int(&mut self, value: i32, out: &mut Vec<G::Frame>) -> Result<(), FrameFault> {
        let FieldState::Length { keep, .. } = self.field else {
            return self.complete(FieldValue::Int(value), out);
        };
        match u32::try_from(value) {
            Ok(0) => self.complete(FieldValue::Text(keep.then_some(&[])), out),
            Ok(left) => {
                let kept = (keep && left <= KEPT_BYTES).then(Vec::new);
                self.field = FieldState::Text { left, kept };
                Ok(())
            }
            Err(_) if value == -1 => self.complete(FieldValue::End, out),
            Err(_) => Err(FrameFault::BadLength(value)),
        }
    }

    fn complete(
        &mut self,
        field: FieldValue<'_>,
        out: &mut Vec<G::Frame>,
    ) -> Result<(), FrameFault> {
        if self.grammar.on_field(field)? == FrameStep::Done {
            out.extend(self.grammar.finish(true));
        }
        self.field = self.grammar.next_field().into();
        Ok(())
    }
}

/// Returns a kept text as a string, with replacement characters for invalid UTF-8.
fn text_of(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod testing {
    use super::*;

    /// Returns a text with its length prefix.
    pub(crate) fn text(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap();
        [&length.to_be_bytes(), text.as_bytes()].concat()
    }

    /// The end of a list.
    pub(crate) const END: [u8; 4] = [255; 4];

    /// Returns the frames of `bytes`, and the result of the last read.
    pub(crate) fn read<G: FrameGrammar>(bytes: &[u8]) -> (Vec<G::Frame>, Result<(), FrameFault>) {
        let mut out = Vec::new();
        let outcome = WorkerFrameReader::<G>::default().feed(bytes, &mut out);
        (out, outcome)
    }

    /// Asserts that `bytes` contain `frames` at every cut, and that no proper prefix contains the last of them.
    pub(crate) fn assert_read_however_cut<G: FrameGrammar>(bytes: &[u8], frames: &[G::Frame])
    where
        G::Frame: PartialEq + std::fmt::Debug,
    {
        for cut in 0..=bytes.len() {
            let mut reader = WorkerFrameReader::<G>::default();
            let mut out = Vec::new();
            reader.feed(&bytes[..cut], &mut out).unwrap();
            assert_eq!(
                out.len() == frames.len(),
                cut == bytes.len(),
                "cut at {cut}"
            );
            reader.feed(&bytes[cut..], &mut out).unwrap();
            assert_eq!(out, frames, "cut at {cut}");
        }
        let mut reader = WorkerFrameReader::<G>::default();
        let mut out = Vec::new();
        for byte in bytes {
            reader.feed(&[*byte], &mut out).unwrap();
        }
        assert_eq!(out, frames, "byte by byte");
        assert!(reader.end().is_none(), "a frame begun and not ended");
    }
}
