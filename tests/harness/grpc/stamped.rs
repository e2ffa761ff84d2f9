//! A connection that stamps its system calls, and records which HTTP/2 frames each of them moved.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{clock::monotonic_ns, server::stamps::Call};

/// Bytes of a frame's header.
const HEAD_LEN: usize = 9;
/// Bytes that a client sends before its first frame.
const PREFACE_LEN: usize = 24;
/// Types of frames, and the flag that ends a stream's direction.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// The system calls that moved one gRPC call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStamp {
    /// Stream.
    pub stream: u32,
    /// The read that brought the request's first byte.
    pub first_read: Call,
    /// The read that brought its last byte.
    pub last_read: Option<Call>,
    /// The write of the response's first byte.
    pub first_write: Option<Call>,
    /// The write of its last byte.
    pub last_write: Option<Call>,
}

impl StreamStamp {
    /// Returns the time from the return of the last read to the call of the first write, in nanoseconds; `None` before
    /// both.
    pub fn handler_ns(&self) -> Option<u64> {
        let read_ns = self.last_read?.return_ns;
        Some(self.first_write?.call_ns.saturating_sub(read_ns))
    }
}

/// Stamps of one connection, by stream.
pub(super) type Stamps = Arc<Mutex<BTreeMap<u32, StreamStamp>>>;

/// One direction, and its position in its frames.
#[derive(Debug)]
struct Frames {
    /// Bytes of payload that are still missing.
    skip: usize,
    head: Vec<u8>,
    /// The call that moved the first byte of the header.
    began: Option<Call>,
    /// Stream and flags of the unfinished frame, if it is a HEADERS or DATA frame.
    under_way: Option<(u32, u8, Call)>,
}

/// A HEADERS or DATA frame that a call has completed.
struct Moved {
    stream: u32,
    ends: bool,
    began: Call,
}

impl Frames {
    fn new(skip: usize) -> Self {
        Self {
            skip,
            head: Vec::new(),
            began: None,
            under_way: None,
        }
    }

    /// Records bytes that `call` moved, and returns the frames that end among them.
    fn take(&mut self, mut bytes: &[u8], call: Call, mut on_frame: impl FnMut(Moved)) {
        while !bytes.is_empty() {
            if self.skip == 0 {
                let missing = HEAD_LEN - self.head.len();
                let (head, rest) = bytes.split_at(missing.min(bytes.len()));
                self.began.get_or_insert(call);
                self.head.extend(head);
                bytes = rest;
                if self.head.len() < HEAD_LEN {
                    return;
                }
                self.begin();
            } else {
                let taken = self.skip.min(bytes.len());
                self.skip -= taken;
                bytes = &bytes[taken..];
            }
            if self.skip == 0
                && let Some((stream, flags, began)) = self.under_way.take()
            {
                on_frame(Moved {
                    stream,
                    ends: flags & END_STREAM != 0,
                    began,
                });
            }
        }
    }

    fn begin(&mut self) {
        let head = std::mem::take(&mut self.head);
        let began = self.began.take().expect("a header has a first byte");
        self.skip = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if matches!(head[3], DATA | HEADERS) {
            self.under_way = Some((stream, head[4], began));
        }
    }
}

/// A server's end of a connection.
pub(super) struct Stamped {
    inner: TcpStream,
    stamps: Stamps,
    read: Frames,
    written: Frames,
}

impl Stamped {
    pub(super) fn new(inner: TcpStream, stamps: Stamps) -> Self {
        Self {
            inner,
            stamps,
            read: Frames::new(PREFACE_LEN),
            written: Frames::new(0),
        }
    }

    fn on_read(&mut self, bytes: &[u8], call: Call) {
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        self.read.take(bytes, call, |frame| {
            let stamp = stamps.entry(frame.stream).or_insert(StreamStamp {
                stream: frame.stream,
                first_read: frame.began,
                last_read: None,
                first_write: None,
                last_write: None,
            });
            if frame.ends {
                stamp.last_read = Some(call);
            }
        });
    }

    fn on_write(&mut self, bytes: &[u8], call: Call) {
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        self.written.take(bytes, call, |frame| {
            if let Some(stamp) = stamps.get_mut(&frame.stream) {
                stamp.first_write.get_or_insert(frame.began);
                if frame.ends {
                    stamp.last_write = Some(call);
                }
            }
        });
    }
}

fn stamped<T>(call: impl FnOnce() -> T) -> (T, Call) {
    let call_ns = monotonic_ns();
    let value = call();
    let return_ns = monotonic_ns();
    (value, Call { call_ns, return_ns })
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let (polled, call) = stamped(|| Pin::new(&mut self.inner).poll_read(cx, buf));
        let read = buf.filled()[before..].to_vec();
        self.on_read(&read, call);
        polled
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (polled, call) = stamped(|| Pin::new(&mut self.inner).poll_write(cx, bytes));
        if let Poll::Ready(Ok(written)) = polled {
            self.on_write(&bytes[..written], call);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, stream];
        frame.extend(vec![7; len.into()]);
        frame
    }

    #[test]
    fn frame_belongs_to_the_calls_of_its_first_and_last_byte() {
        let bytes = [
            vec![b'p'; PREFACE_LEN],
            frame(4, 0, 0, 6),
            frame(HEADERS, 4, 1, 20),
            frame(DATA, END_STREAM, 1, 0),
            frame(HEADERS, 4 | END_STREAM, 3, 5),
        ]
        .concat();
        for step in [1, 5, 9, 30, bytes.len()] {
            let mut frames = Frames::new(PREFACE_LEN);
            let mut ended = vec![];
            for (index, piece) in bytes.chunks(step).enumerate() {
                let at = index as u64;
                let call = Call {
                    call_ns: at,
                    return_ns: at,
                };
                frames.take(piece, call, |moved| {
                    ended.push((moved.stream, moved.ends, moved.began.call_ns, at));
                });
            }
            let at = |byte: u64| byte / step as u64;
            let expected = [
                (1, false, at(39), at(67)),
                (1, true, at(68), at(76)),
                (3, true, at(77), at(90)),
            ];
            assert_eq!(ended, expected, "in pieces of {step}");
        }
    }
}
