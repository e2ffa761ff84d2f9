//! Serves one connection of the reference server: reads each request whole, then responds as its plan says.
//!
//! Does not depend on: listeners or processes.

use std::{io, os::fd::OwnedFd, sync::PoisonError, time::Duration};

use crate::{
    http::{Head, chunked_len, head_len},
    server::{
        options::Options,
        plan::Plan,
        stamps::{Call, Stamp, Stamps},
        wire::Wire,
    },
};

/// A connection that sends this much without completing what is read is dropped.
const PENDING_LIMIT: usize = 1 << 20;

/// Serves requests until either side ends the connection; each finished one is added to `stamps`.
pub fn serve_connection(
    options: &Options,
    socket: OwnedFd,
    conn: u64,
    peer_port: Option<u16>,
    stamps: &Stamps,
) {
    let mut reader = Reader {
        wire: Wire::new(socket, options.io),
        options,
        pending: Vec::new(),
        last: None,
        reads: 0,
    };
    for seq in 0.. {
        // If the peer is gone, the connection ends without a report.
        let Ok(Some((stamp, close))) = serve_request(&mut reader) else {
            return;
        };
        let stamp = Stamp {
            conn,
            peer_port,
            seq,
            ..stamp
        };
        let all = stamps.lock();
        all.unwrap_or_else(PoisonError::into_inner).push(stamp);
        if close {
            // A peer that is gone has nothing left to send.
            let _ = reader.wire.linger();
            return;
        }
    }
}

/// Bytes of a connection in order, and the read that brought the latest of them.
struct Reader<'a> {
    wire: Wire,
    options: &'a Options,
    pending: Vec<u8>,
    last: Option<Call>,
    reads: usize,
}

impl Reader<'_> {
    /// Reads once more; `None` if the peer has ended.
    fn fill(&mut self) -> io::Result<Option<Call>> {
        let sizes = &self.options.read_sizes;
        let size = sizes
            .get(self.reads)
            .or(sizes.last())
            .copied()
            .unwrap_or(1)
            .max(1);
        self.reads += 1;
        let call = self.wire.read(size, &mut self.pending)?;
        self.last = call.or(self.last);
        Ok(call)
    }

    /// Reads until `done` returns a value for the pending bytes, or the peer ends.
    fn read_until<T>(&mut self, done: impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
        loop {
            if let Some(found) = done(&self.pending) {
                return Ok(Some(found));
            }
            if self.pending.len() > PENDING_LIMIT || self.fill()?.is_none() {
                return Ok(None);
            }
        }
    }

    /// Reads a body without keeping it, and returns its length as sent; `None` if the peer ends before it.
    fn skip_body(&mut self, head: &Head) -> io::Result<Option<usize>> {
        if head.chunked() {
            let found = self.read_until(chunked_len)?;
            return Ok(found.map(|(sent, _)| {
                self.pending.drain(..sent);
                sent
            }));
        }
        let length = head.content_length().unwrap_or(0);
        let mut left = length;
        loop {
            let taken = left.min(self.pending.len());
            self.pending.drain(..taken);
            left -= taken;
            if left == 0 {
                return Ok(Some(length));
            }
            if self.fill()?.is_none() {
                return Ok(None);
            }
        }
    }
}

/// Serves one request; `None` if the connection is over. The second value says whether it is over after this one.
fn serve_request(reader: &mut Reader<'_>) -> io::Result<Option<(Stamp, bool)>> {
    let mut readable_ns = None;
    reader.reads = 0;
    if reader.pending.is_empty() {
        if reader.options.read_sleep_ms > 0 {
            readable_ns = Some(reader.wire.wait_readable()?);
            std::thread::sleep(Duration::from_millis(reader.options.read_sleep_ms));
        }
        if reader.options.peek {
            reader.wire.peek(16)?;
        }
        if reader.fill()?.is_none() {
            return Ok(None);
        }
    }
    let Some(first_read) = reader.last else {
        return Ok(None);
    };
    let Some(head_bytes) = reader.read_until(head_len)? else {
        return Ok(None);
    };
    let head = Head::parse(&reader.pending[..head_bytes]);
    reader.pending.drain(..head_bytes);
    let plan = Plan::of(&head);
    if plan.drop {
        return Ok(None);
    }

    let mut last_read = reader.last.unwrap_or(first_read);
    let mut body_bytes = 0;
    if !plan.early {
        if head.field("expect") == Some("100-continue") {
            reader.wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let Some(skipped) = reader.skip_body(&head)? else {
            return Ok(None);
        };
        body_bytes = skipped;
        last_read = reader.last.unwrap_or(last_read);
    }
    if !plan.sleep.is_zero() {
        std::thread::sleep(plan.sleep);
    }

    let starved_ns = (!plan.burn.is_zero()).then(|| burn(plan.burn));
    let (first_write, last_write, response_bytes) = answer(&reader.wire, &plan)?;
    if plan.early && !plan.close {
        let Some(_drained) = reader.skip_body(&head)? else {
            return Ok(None);
        };
    }
    let stamp = Stamp {
        conn: 0,
        peer_port: None,
        seq: 0,
        target: head.word(1).to_owned(),
        readable_ns,
        first_read,
        last_read,
        first_write,
        last_write,
        starved_ns,
        status: plan.status,
        request_bytes: (head_bytes + body_bytes) as u64,
        response_bytes,
    };
    Ok(Some((stamp, plan.close)))
}

/// Uses up CPU time, and returns how long the thread waited for a CPU meanwhile, ns.
fn burn(cpu: Duration) -> u64 {
    let before = run_delay_ns();
    let used = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(now).expect("CPU time is positive")
    };
    let until = used() + cpu;
    while used() < until {
        std::hint::spin_loop();
    }
    run_delay_ns() - before
}

/// Returns how long the calling thread has waited for a CPU since it began, by the kernel's own account: the second
/// number of schedstat.
fn run_delay_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("procfs is mounted");
    let number = text.split_whitespace().nth(1);
    number
        .and_then(|number| number.parse().ok())
        .expect("schedstat has three numbers")
}

/// Writes the response, and returns its first and last write, and its bytes.
fn answer(wire: &Wire, plan: &Plan) -> io::Result<(Call, Call, u64)> {
    let mut calls: Option<(Call, Call)> = None;
    let mut bytes = 0;
    for (written, write) in plan.writes().into_iter().enumerate() {
        let gap = plan.first_gap.filter(|_| written == 1);
        let gap = gap.unwrap_or(plan.gap);
        if written > 0 && !gap.is_zero() {
            std::thread::sleep(gap);
        }
        let call = wire.write(&write)?;
        bytes += write.len() as u64;
        calls = Some((calls.map_or(call, |(first, _)| first), call));
    }
    let (first, last) = calls.expect("an answer has a head");
    Ok((first, last, bytes))
}
