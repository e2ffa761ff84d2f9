//! Follows one HTTP/2 connection of a server: pairs requests and responses by stream.
//!
//! Each record reports one read or one write, whose times are the times of all its frames. The two directions number
//! their records apart. `streams` keeps the open requests, `messages` separates the messages of a response, `dialogue` pairs
//! them with those of the request.
//! Does not depend on: any server, HTTP/1.

mod dialogue;
mod messages;
mod streams;
#[cfg(test)]
mod tests;

use inferprobe_ebpf::{
    abi::{Record, flag, kind},
    http2_frames::{DataKept, FrameCursor},
    view::RecordView,
};

use crate::{
    exchange::{
        Peer, Request,
        event::{Loss, Sink, Unfinished},
        http2::streams::Streams,
        reads::Reads,
        upgrade::Upgrade,
        writes::Writes,
    },
    protocol::http2::{Fault, FrameReader, PREFACE, Part},
};

/// One HTTP/2 connection.
#[derive(Debug)]
pub struct Http2Connection {
    peer: Peer,
    /// Numbers of the latest record of reads and of writes; `None` before the first.
    seqs: [Option<u32>; 2],
    written_bytes: u64,
    /// Time of the latest record, ns.
    pub latest_ns: u64,
    /// `None` once a direction could not be followed.
    frames: Option<Frames>,
    streams: Streams,
    /// Bytes that belong neither to a request nor to the connection itself, until they are counted.
    missed_bytes: u64,
}

/// Both directions.
#[derive(Debug)]
struct Frames {
    requests: Direction,
    responses: Direction,
}

impl Http2Connection {
    /// Opens a connection before its first record. The kernel half copies so many bytes of a request. If its first read is not a client's preface, the agent has joined an open
    /// connection, and the read is taken to begin with a frame.
    pub fn new(peer: Peer, copied_bytes: u32) -> Self {
        Self {
            peer,
            seqs: [None; 2],
            written_bytes: 0,
            latest_ns: 0,
            frames: Some(Frames {
                requests: Direction {
                    frames: FrameReader::client(),
                    walk: FrameCursor::BEFORE_PREFACE,
                    data: DataKept::requests(copied_bytes),
                },
                responses: Direction {
                    frames: FrameReader::server(),
                    walk: FrameCursor::START,
                    data: DataKept::RESPONSES,
                },
            }),
            streams: Streams::default(),
            missed_bytes: 0,
        }
    }

    /// Continues a connection that was upgraded from HTTP/1; the request that asked for it gets its response on the first
    /// stream.
    pub fn upgraded(upgrade: Upgrade) -> Self {
        let mut this = Self {
            seqs: [Some(upgrade.latest_seq), None],
            written_bytes: upgrade.written_bytes,
            missed_bytes: upgrade.missed_bytes,
            ..Self::new(upgrade.peer, upgrade.copied_bytes)
        };
        if let Some(request) = upgrade.request {
            this.streams.upgrade(request);
        }
        if let Some(frames) = &mut this.frames {
            // The client's SETTINGS, in its request, are not parsed.
            frames.responses.frames.allow_table(u32::MAX);
        }
        this
    }

    /// Processes a record; returns whether the connection stays open.
    pub fn on_record(&mut self, view: &RecordView<'_>, out: &mut dyn Sink) -> bool {
        let record = &view.record;
        let side = usize::from(record.flags & flag::RESPONSES != 0);
        let follows = match self.seqs[side] {
            Some(seq) => record.seq == seq.wrapping_add(1),
            // The first record of a connection that was joined late, or forgotten, may have any number.
            None => record.seq == 1 || self.is_joined() || side == 0,
        };
        if !follows {
            out.lost(Loss::Resynchronised);
            self.lose(Unfinished::LostRecords, out);
        }
        self.seqs[side] = Some(record.seq);
        self.peer.tgid = record.tgid;
        match record.kind {
            kind::READ => {
                self.latest_ns = record.last_read_ns;
                self.reads(&Reads::of(view), out);
            }
            kind::PROGRESS => {
                self.latest_ns = record.last_write_ns;
                self.writes(&Writes::of(view, self.written_bytes, 0), out);
                self.written_bytes = record.written_bytes;
            }
            _ => {
                self.close(Unfinished::Unanswered, out);
                return false;
            }
        }
        true
    }

    fn is_joined(&self) -> bool {
        let requests = self.frames.as_ref().map(|frames| &frames.requests.frames);
        requests.is_none_or(FrameReader::is_joined)
    }

    /// Processes a read.
    fn reads(&mut self, reads: &Reads<'_>, out: &mut dyn Sink) {
        if reads.bytes == 0 {
            return;
        }
        let Some(Frames {
            requests,
            responses,
        }) = &mut self.frames
        else {
            self.missed_bytes += reads.bytes;
            out.lost(Loss::Http2Unfollowed);
            return;
        };
        if reads.body_dropped {
            requests.walk.stop_copying();
        }
        if requests.frames.awaits_preface() && reads.visible.first() != Some(&PREFACE[0]) {
            requests.walk = FrameCursor::START;
        }
        let (peer, streams) = (self.peer, &mut self.streams);
        self.missed_bytes += streams.take_missed_bytes();
        let mut allowed = None;
        let followed = requests.follow(reads.visible, reads.bytes, |part, at| match part {
            Part::TableSize(bytes) => allowed = Some(bytes),
            part => streams.read(part, at, reads, peer, out),
        });
        if let Some(bytes) = allowed {
            responses.frames.allow_table(bytes);
        }
        if requests.frames.is_joined() {
            responses.frames.join();
        }
        let followed = followed.and_then(|()| streams.check_side());
        self.check(followed, reads.bytes, out);
    }

    /// Processes a write.
    fn writes(&mut self, writes: &Writes<'_>, out: &mut dyn Sink) {
        let Some(Frames {
            requests,
            responses,
        }) = &mut self.frames
        else {
            self.missed_bytes += writes.bytes;
            return;
        };
        let (peer, streams) = (self.peer, &mut self.streams);
        self.missed_bytes += streams.take_missed_bytes();
        let mut allowed = None;
        let followed = responses.follow(writes.visible, writes.bytes, |part, _| match part {
            Part::TableSize(bytes) => allowed = Some(bytes),
            part => streams.write(part, writes, peer, out),
        });
        streams.settle(peer, out);
        if responses.frames.is_joined() {
            // Its SETTINGS were not observed.
            allowed = Some(u32::MAX);
        }
        if let Some(bytes) = allowed {
            requests.frames.allow_table(bytes);
        }
        self.check(followed, writes.bytes, out);
    }

    /// Processes a record of bytes that were read, or written, unobserved: frames are missing.
    pub fn on_unobserved(&mut self, record: &Record, out: &mut dyn Sink) {
        self.missed_bytes += record.read_bytes + record.written_bytes;
        out.lost(Loss::Unobserved);
        self.lose(Unfinished::Unobserved, out);
    }

    /// Stops following the connection, because bytes of it are missing.
    fn lose(&mut self, reason: Unfinished, out: &mut dyn Sink) {
        if self.frames.take().is_some() {
            out.lost(Loss::Http2Unfollowed);
        }
        self.streams.lose(reason, out);
    }

    /// Ends the connection and its open requests; `complete_reason` is the reason of those that were read whole.
    pub fn close(&mut self, complete_reason: Unfinished, out: &mut dyn Sink) {
        self.streams.close(complete_reason, self.peer, out);
    }

    /// Bytes since the last call that belong neither to an observed request nor to the connection itself, as SETTINGS do.
    pub fn take_missed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.missed_bytes) + self.streams.take_missed_bytes()
    }

    /// Returns the requests that are not answered to the end.
    pub fn open_requests(&self) -> Vec<Request> {
        self.streams.open_requests()
    }

    /// Whether no request is open.
    pub fn is_idle(&self) -> bool {
        self.streams.is_idle()
    }

    /// Stops following the connection if a transfer of `bytes` could not be followed.
    fn check(&mut self, followed: Result<(), Fault>, bytes: u64, out: &mut dyn Sink) {
        if followed.is_err() {
            // They include those frames of the transfer that could be followed.
            self.streams.take_missed_bytes();
            self.missed_bytes += bytes;
            self.lose(Unfinished::LostRecords, out);
        }
    }
}

/// One direction: its frames, and which of their bytes are copied.
#[derive(Debug)]
struct Direction {
    frames: FrameReader,
    walk: FrameCursor,
    data: DataKept,
}

impl Direction {
    /// Processes `bytes` bytes, of which the kernel half's walk copied `visible`. Calls `on_part` for each part, with how
    /// many of the bytes are before it, or before what ends it.
    fn follow(
        &mut self,
        mut visible: &[u8],
        bytes: u64,
        mut on_part: impl FnMut(Part<'_>, u64),
    ) -> Result<(), Fault> {
        let mut left = bytes;
        while left > 0 {
            let here = |most: u32| u64::from(most).min(left);
            let at = bytes - left;
            let kept = here(self.walk.keeps());
            if kept == 0 {
                let skipped = here(self.walk.skips());
                self.frames.skip(skipped, |part| on_part(part, at))?;
                // Both are at most what the walk says, which is a `u32`.
                self.walk.on_payload(skipped as u32);
                left -= skipped;
                continue;
            }
            // What the walk could not copy is missing.
            let (copied, rest) = visible.split_at_checked(kept as usize).ok_or(Fault::Gap)?;
            self.frames.feed(copied, |part| on_part(part, at))?;
            if self.walk.is_in_head() {
                for &byte in copied {
                    self.walk.on_head(byte, self.data);
                }
            } else {
                if self.walk.is_before_body()
                    && let Some(&first) = copied.first()
                {
                    self.walk.on_first(first, self.data);
                }
                self.walk.on_payload(kept as u32);
            }
            visible = rest;
            left -= kept;
        }
        Ok(())
    }
}
