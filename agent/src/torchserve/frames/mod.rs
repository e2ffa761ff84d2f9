//! Frames between TorchServe's frontend and its workers, from bytes that may be cut anywhere and miss big values.
//!
//! A frame is a row of bytes, big-endian integers and texts with their length in front; nothing tells its size. Pure
//! functions of bytes: nothing here knows of sockets, records or the clock.

pub mod command;
pub mod reply;

use thiserror::Error;

/// Longest text that is kept; a longer one is passed over as if it had not been captured.
const KEPT_BYTES: u32 = 256;
/// Most requests in one frame: far above any batch size in use, and a bound on memory.
const MAX_BATCH: usize = 1024;

/// Why the frames of a connection cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// Bytes that were not captured hold more than one text's value.
    #[error("bytes that tell the structure were not captured")]
    Gap,
    /// A frame begins with a byte that is no command.
    #[error("no command: byte {0:#04x}")]
    NoCommand(u8),
    /// A length below zero, where it does not end a list.
    #[error("length {0}")]
    BadLength(i32),
    /// More requests in a frame than anyone batches.
    #[error("more than {MAX_BATCH} requests in a frame")]
    LongBatch,
}

/// What the grammar of a direction awaits next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// One byte.
    Byte,
    /// A 32-bit integer.
    Int,
    /// A length and as many bytes; a length of -1 is the end of a list.
    Text {
        /// Whether the bytes are to be handed over.
        keep: bool,
    },
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// One byte.
    Byte(u8),
    /// A 32-bit integer.
    Int(i32),
    /// A text; `None` where it was not wanted, not captured as a whole, or too long to keep.
    Text(Option<&'a [u8]>),
    /// The end of a list in a text's place.
    End,
}

/// Whether a frame goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameStep {
    /// It goes on with what the grammar wants now.
    More,
    /// It is complete.
    Done,
}

/// The frames of one direction, item by item.
pub trait FrameGrammar: Default {
    /// What a frame says.
    type Frame;

    /// What comes next.
    fn want(&self) -> FieldKind;

    /// Takes in what came.
    fn step(&mut self, item: FieldValue<'_>) -> Result<FrameStep, FrameFault>;

    /// What the frame said, and a fresh start; `None` when none had begun. `whole` tells whether it came to its end.
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
            field: grammar.want().into(),
            grammar,
            fault: None,
        }
    }
}

impl<G: FrameGrammar> WorkerFrameReader<G> {
    /// Takes in the next bytes; what comes to its end goes to `out`. After a fault, nothing is taken in until
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

    /// Passes over bytes that were not captured.
    pub fn skip(&mut self, bytes: u64, out: &mut Vec<G::Frame>) -> Result<(), FrameFault> {
        self.guard(|this| {
            let mut rest = bytes;
            while rest > 0 {
                let FieldState::Text { left, kept } = &mut this.field else {
                    return Err(FrameFault::Gap);
                };
                *kept = None;
                let passed = rest.min(u64::from(*left));
                rest -= passed;
                // At most `left`, which has 32 bits.
                *left -= passed as u32;
                if *left == 0 {
                    this.complete(FieldValue::Text(None), out)?;
                }
            }
            Ok(())
        })
    }

    /// Ends a frame whose rest will not be seen, and is ready for the first byte of another; `None` when none had begun.
    pub fn end(&mut self) -> Option<G::Frame> {
        let frame = self.grammar.finish(false);
        self.field = self.grammar.want().into();
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

    /// Takes from `bytes` what the current field lacks; returns the rest.
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
        item: FieldValue<'_>,
        out: &mut Vec<G::Frame>,
    ) -> Result<(), FrameFault> {
        if self.grammar.step(item)? == FrameStep::Done {
            out.extend(self.grammar.finish(true));
        }
        self.field = self.grammar.want().into();
        Ok(())
    }
}

/// A kept text as a string; what is not UTF-8 is replaced.
fn text_of(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod testing {
    use super::*;

    /// Bytes of a text with its length in front.
    pub(crate) fn text(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap();
        [&length.to_be_bytes(), text.as_bytes()].concat()
    }

    /// The end of a list.
    pub(crate) const END: [u8; 4] = [255; 4];

    /// The frames of `bytes`, and how reading ended.
    pub(crate) fn read<G: FrameGrammar>(bytes: &[u8]) -> (Vec<G::Frame>, Result<(), FrameFault>) {
        let mut out = Vec::new();
        let outcome = WorkerFrameReader::<G>::default().feed(bytes, &mut out);
        (out, outcome)
    }

    /// Holds that `bytes` give `frames` however they are cut, and that no proper beginning gives the last of them.
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
