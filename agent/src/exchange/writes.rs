//! Describes the writes that a record reports: how many bytes, which of them were copied, and when they were sent.
//!
//! The counterpart of `reads`, for the other direction.
//! Does not depend on: any protocol.

use inferprobe_ebpf::{
    abi::{UNKNOWN_US, flag, kind},
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
    /// How long the connection's send buffer was too full for the server to write more, in them and between the writes
    /// before and them, ns; `None` if that is not observed.
    pub undrained_ns: Option<u64>,
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
    /// The writes that a record reports; `before_bytes` and `before_us` of the same run were reported before.
    pub fn of(view: &RecordView<'a>, before_bytes: u64, before_us: u32) -> Self {
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
            undrained_ns: (record.flags & flag::RESPONSES == 0)
                .then(|| undrained_ns(record.undrained_us, before_us))
                .flatten(),
            sends: 1,
            bytes,
            visible: view.response,
            tail: record.tail,
        }
    }
}

/// Returns the time that was added to `before_us`, ns; `None` if that is unknown.
pub(super) fn undrained_ns(now_us: u32, before_us: u32) -> Option<u64> {
    let added_us = now_us.saturating_sub(before_us);
    (now_us != UNKNOWN_US).then(|| u64::from(added_us) * 1_000)
}

/// Adds undrained time of further writes.
pub(super) fn added(before_ns: Option<u64>, later_ns: Option<u64>) -> Option<u64> {
    Some(before_ns? + later_ns?)
}
