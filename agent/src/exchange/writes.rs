//! Describes the writes that a record reports: how many bytes, which of them were copied, and when they were sent.
//!
//! The counterpart of `reads`, for the other direction.
//! Does not depend on: any protocol.

use inferprobe_ebpf::{
    abi::{flag, kind},
    view::RecordView,
};

use crate::exchange::threads::ThreadWait;

/// One write, or several that were reported together.
#[derive(Debug, Clone, Copy)]
pub struct Writes<'a> {
    /// Start of the first, ns.
    pub start_ns: u64,
    /// Whether `start_ns` is the return of the send, an upper bound.
    pub start_bounded: bool,
    /// What its thread waited for since its latest read; `None` if another one read, or if the first is no segment's first.
    pub thread_wait: Option<ThreadWait>,
    /// Return of the last, ns.
    pub end_ns: u64,
    /// How many they are; 1 if they are not counted.
    pub sends: u32,
    /// Bytes written.
    pub bytes: u64,
    /// The first of them, as many as were copied.
    pub visible: &'a [u8],
    /// The stream's last bytes after them, the newest in the low byte; 0 when not known.
    pub tail: u64,
}

/// Sends up to this size do not wait for the peer (the default send buffer holds three times as much): their
/// return is close to their start.
const PROMPT_SEND_BYTES: u64 = 64 << 10;

impl<'a> Writes<'a> {
    /// The writes that a record reports; `before_bytes` of the same run were reported before.
    pub fn of(view: &RecordView<'a>, before_bytes: u64) -> Self {
        let record = &view.record;
        let bytes = record.written_bytes.saturating_sub(before_bytes);
        let at_return = record.flags & flag::WRITE_AT_RETURN != 0;
        Self {
            start_ns: record.first_write_ns,
            start_bounded: at_return && (bytes > PROMPT_SEND_BYTES || record.start_unobserved != 0),
            thread_wait: match record.kind {
                kind::EXCHANGE => ThreadWait::of(record),
                _ => None,
            },
            end_ns: record.last_write_ns,
            sends: 1,
            bytes,
            visible: view.response,
            tail: record.tail,
        }
    }
}
