//! Follows one connection of a TorchServe worker: pairs the frames that the worker read with its replies.
//!
//! A worker has one frame at a time. An exchange is emitted when the frontend has read the reply.
//! Does not depend on: HTTP, which worker it is.

use std::collections::VecDeque;

use inferprobe_ebpf::{
    abi::{Record, flag, kind},
    view::RecordView,
};

use crate::{
    exchange::{
        Peer,
        event::{Loss, Sink},
        record_stream::RecordStream,
        threads::ThreadWait,
    },
    torchserve::{
        exchange::WorkerExchange,
        frames::{
            command::{CommandReader, WorkerCommand},
            reply::{Reply, ReplyReader},
        },
    },
};

/// Frames that may wait for a reply; the oldest is dropped for one more.
const OPEN_CAP: usize = 64;
/// How long a written reply waits for the frontend's read to be reported, ns.
const REPLY_READ_WAIT_NS: u64 = 100_000_000;
/// End of the list of responses: the last bytes of every reply.
const END_OF_LIST: u32 = u32::MAX;

/// Receives the events of all connections, and the exchanges of workers.
pub trait WorkerSink: Sink {
    /// Processes a worker's exchange.
    fn worked(&mut self, worker_exchange: WorkerExchange);
}

/// State of one connection.
#[derive(Debug)]
pub struct WorkerConnection {
    /// Its records.
    pub records: RecordStream,
    commands: CommandReader,
    replies: ReplyReader,
    /// Times of the frame that is being read.
    reading: Option<ReadTimes>,
    /// Frames without their whole reply, oldest first.
    open: VecDeque<OpenFrame>,
    /// Last byte of the latest whole reply.
    idle_since_ns: Option<u64>,
    /// The latest exchange and the bytes of its reply, until the frontend has read them.
    unread_reply: Option<(WorkerExchange, u64)>,
    reply_reads: ReplyReads,
}

/// The frontend's reads of the current reply.
#[derive(Debug, Clone, Copy, Default)]
struct ReplyReads {
    bytes: u64,
    at_ns: u64,
}

#[derive(Debug, Clone, Copy)]
struct ReadTimes {
    arrival_ns: Option<u64>,
    last_read_ns: u64,
}

/// A frame that was read, and its reply so far.
#[derive(Debug)]
struct OpenFrame {
    command: WorkerCommand,
    times: ReadTimes,
    /// First reply byte, ns; `Some(None)` if it has only an upper bound.
    first_write_ns: Option<Option<u64>>,
    /// As [`WorkerExchange::thread_wait`].
    thread_wait: Option<ThreadWait>,
    /// A reply whose remaining bytes are written later and not captured.
    partial: Option<Reply>,
    /// Bytes of the reply so far.
    reply_bytes: u64,
}

impl WorkerConnection {
    /// Creates the state of a connection whose first record is `record`.
    pub fn new(record: &Record, peer: Peer) -> Self {
        Self {
            records: RecordStream::new(record, peer),
            commands: CommandReader::default(),
            replies: ReplyReader::default(),
            reading: None,
            open: VecDeque::new(),
            idle_since_ns: None,
            unread_reply: None,
            reply_reads: ReplyReads::default(),
        }
    }

    /// Processes a record; returns whether the connection stays open.
    pub fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) -> bool {
        let record = &view.record;
        if record.kind == kind::REPLY_READ {
            self.reply_reads.bytes += record.read_bytes;
            self.reply_reads.at_ns = record.last_read_ns;
            self.emit_if_read(out);
            return true;
        }
        if !self.records.push(record) {
            out.lost(Loss::Resynchronised);
            self.emit_unread(out);
            *self = Self::new(record, self.records.peer);
            self.records.push(record);
        }
        match record.kind {
            kind::READ => self.read(view, out),
            kind::EXCHANGE => {
                self.read(view, out);
                self.end_frame(out);
                self.write(view, out);
            }
            kind::PROGRESS => self.write(view, out),
            _ => {
                self.close(out);
                return false;
            }
        }
        true
    }

    /// Returns whether no frame and no reply is open.
    pub fn is_idle(&self) -> bool {
        self.reading.is_none() && self.open.is_empty() && self.unread_reply.is_none()
    }

    /// Returns whether a written reply waits for the frontend's read.
    pub fn awaits_reader(&self) -> bool {
        self.unread_reply.is_some()
    }

    /// Emits a reply that was written long ago without the time of the frontend's read.
    pub fn end_if_quiet(&mut self, now_ns: u64, out: &mut dyn WorkerSink) {
        if now_ns.saturating_sub(self.records.latest_ns) >= REPLY_READ_WAIT_NS {
            self.emit_unread(out);
        }
    }

    /// Ends the connection and its open frames.
    pub fn close(&mut self, out: &mut dyn WorkerSink) {
        self.emit_unread(out);
        let unanswered = self.open.len() + usize::from(self.reading.take().is_some());
        self.open.clear();
        for _ in 0..unanswered {
            out.lost(Loss::WorkerUnanswered);
        }
    }

    fn read(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) {
        let record = &view.record;
        // The frontend sends no frame before it has read the last reply.
        self.emit_unread(out);
        let arrival_known = record.flags & flag::ARRIVAL_KNOWN != 0;
        let times = self.reading.get_or_insert(ReadTimes {
            arrival_ns: arrival_known.then_some(record.arrival_ns),
            last_read_ns: record.last_read_ns,
        });
        times.last_read_ns = record.last_read_ns;
        let times = *times;
        let mut commands = Vec::new();
        let rest = record.read_bytes.saturating_sub(view.request.len() as u64);
        // A fault is reported at the end of the frame.
        let _ = self
            .commands
            .feed(view.request, &mut commands)
            .and_then(|()| self.commands.skip(rest, &mut commands));
        for command in commands {
            self.reading = None;
            self.begin_frame(command, times, out);
        }
    }

    /// Ends the frame that is being read, because its reply begins; it may be captured in part only.
    fn end_frame(&mut self, out: &mut dyn WorkerSink) {
        let partial = self.commands.end();
        let Some(times) = self.reading.take() else {
            return;
        };
        match partial {
            Some(command) => self.begin_frame(command, times, out),
            None => out.lost(Loss::NotFramed),
        }
    }

    fn begin_frame(&mut self, command: WorkerCommand, times: ReadTimes, out: &mut dyn WorkerSink) {
        if self.open.len() >= OPEN_CAP {
            self.open.pop_front();
            out.lost(Loss::WorkerUnanswered);
        }
        self.open.push_back(OpenFrame {
            command,
            times,
            first_write_ns: None,
            thread_wait: None,
            partial: None,
            reply_bytes: 0,
        });
    }

    fn write(&mut self, view: &RecordView<'_>, out: &mut dyn WorkerSink) {
        let record = &view.record;
        let writes = self.records.writes(view);
        let Some(open) = self.open.front_mut() else {
            out.lost(Loss::ResponseWithoutRequest);
            return;
        };
        open.reply_bytes += writes.bytes;
        if open.first_write_ns.is_none() {
            open.thread_wait = writes.thread_wait;
        }
        open.first_write_ns
            .get_or_insert((!writes.start_bounded).then_some(writes.start_ns));
        let is_end = record.tail as u32 == END_OF_LIST;
        if let Some(reply) = open.partial.take() {
            if is_end {
                self.end_reply(reply, record, out);
            } else {
                open.partial = Some(reply);
            }
            return;
        }
        let mut replies = Vec::new();
        let rest = writes.bytes.saturating_sub(view.response.len() as u64);
        let followed = self
            .replies
            .feed(view.response, &mut replies)
            .and_then(|()| self.replies.skip(rest, &mut replies));
        for reply in replies {
            self.end_reply(reply, record, out);
        }
        if followed.is_ok() {
            return;
        }
        match self.replies.end() {
            Some(reply) if is_end => self.end_reply(reply, record, out),
            Some(reply) => {
                if let Some(open) = self.open.front_mut() {
                    open.partial = Some(reply);
                }
            }
            None => out.lost(Loss::NotFramed),
        }
    }

    /// Records a complete reply, whose last byte was written with `record`.
    fn end_reply(&mut self, reply: Reply, record: &Record, out: &mut dyn WorkerSink) {
        let streams = reply
            .responses
            .iter()
            .any(|response| response.stream_next == Some(true));
        if streams {
            return;
        }
        let Some(open) = self.open.pop_front() else {
            out.lost(Loss::ResponseWithoutRequest);
            return;
        };
        let exchange = WorkerExchange {
            peer: self.records.peer,
            command: open.command,
            idle_since_ns: self.idle_since_ns.replace(record.last_write_ns),
            dispatched_ns: None,
            arrival_ns: open.times.arrival_ns,
            last_read_ns: open.times.last_read_ns,
            reply,
            first_write_ns: open.first_write_ns.flatten(),
            thread_wait: open.thread_wait,
            last_write_ns: record.last_write_ns,
            reply_read_ns: None,
        };
        self.unread_reply = Some((exchange, open.reply_bytes));
        self.emit_if_read(out);
    }

    /// Emits the exchange if the frontend has read its whole reply.
    fn emit_if_read(&mut self, out: &mut dyn WorkerSink) {
        let ReplyReads { bytes, at_ns } = self.reply_reads;
        if let Some((exchange, _)) = self
            .unread_reply
            .take_if(|(_, reply_bytes)| bytes >= *reply_bytes)
        {
            self.reply_reads = ReplyReads::default();
            out.worked(WorkerExchange {
                reply_read_ns: Some(at_ns),
                ..exchange
            });
        }
    }

    fn emit_unread(&mut self, out: &mut dyn WorkerSink) {
        if let Some((exchange, _)) = self.unread_reply.take() {
            self.reply_reads = ReplyReads::default();
            out.worked(exchange);
        }
    }
}

#[cfg(test)]
mod tests;
