//! Follows a ZeroMQ connection between processes of one server, as far as the agent does: it counts once.
//!
//! Such connections carry no requests of clients.
//! Does not depend on: any other connection.

use inferprobe_ebpf::{abi::kind, view::RecordView};

use crate::exchange::event::{Loss, Sink};

/// A ZeroMQ connection.
#[derive(Debug, Default)]
pub struct ZmtpConnection {
    /// Time of the latest record, ns; 0 before the first.
    pub latest_ns: u64,
}

impl ZmtpConnection {
    /// Processes a record; returns whether the connection stays open.
    pub fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) -> bool {
        if self.latest_ns == 0 {
            out.lost(Loss::InnerProtocol);
        }
        self.latest_ns = view.record.last_write_ns.max(view.record.last_read_ns);
        view.record.kind != kind::CLOSE
    }
}
