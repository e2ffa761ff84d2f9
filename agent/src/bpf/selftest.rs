//! Exchanges a request with itself over loopback and checks the record, which proves that the kernel offsets are right.
//!
//! The loader runs it after each attempt.
//! Does not depend on: hooks, attach modes.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use inferprobe_ebpf::{
    abi::{Record, flag, kind},
    view::RecordView,
};

use crate::bpf::{maps::Maps, options::Wanted};

const REQUEST: &[u8] = b"GET /inferprobe-self-test HTTP/1.1\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const DEADLINE: Duration = Duration::from_secs(2);

/// Times that the attached hooks must report.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// When bytes arrive.
    pub arrivals: bool,
    /// When a send starts.
    pub send_start: bool,
}

/// Exchanges a request with itself and requires a correct record, with everything that is `wanted`.
///
/// Returns the id of this process in the kernel's records.
pub fn run(maps: &mut Maps, expected: Expected, wanted: Wanted) -> Result<u32> {
    // The kernel reports a listener only if its port is watched already: this one only finds a free port.
    let port = TcpListener::bind(("127.0.0.1", 0))
        .and_then(|free| free.local_addr())
        .context("take a loopback port")?
        .port();
    maps.set_port(port, true)?;
    let exchanged = exchange(port);
    let outcome = exchanged.and_then(|peer_port| {
        let found = await_record(maps, port)?;
        check(&found, peer_port, expected, wanted)?;
        Ok(found.record.tgid)
    });
    maps.set_port(port, false)?;
    drain(maps);
    outcome
}

/// Sends the request and the response; returns the client's port.
fn exchange(port: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("listen on a loopback port")?;
    let mut client = TcpStream::connect(("127.0.0.1", port)).context("connect over loopback")?;
    client.write_all(REQUEST).context("send over loopback")?;
    let (mut server, peer) = listener.accept().context("accept over loopback")?;
    server
        .read_exact(&mut [0; REQUEST.len()])
        .context("read over loopback")?;
    server
        .write_all(RESPONSE)
        .context("respond over loopback")?;
    client
        .read_exact(&mut [0; RESPONSE.len()])
        .context("read the response over loopback")?;
    Ok(peer.port())
}

fn await_record(maps: &mut Maps, port: u16) -> Result<Found> {
    let end = Instant::now() + DEADLINE;
    let mut accepted = None;
    while Instant::now() < end {
        while let Some(entry) = maps.records.next() {
            if let Some(view) = RecordView::parse(&entry)
                && view.record.local_port == port
            {
                match view.record.kind {
                    kind::ACCEPTED => accepted = Some(view.record),
                    kind::EXCHANGE => {
                        return Ok(Found {
                            accepted,
                            record: view.record,
                            request: view.request.to_vec(),
                            response: view.response.to_vec(),
                        });
                    }
                    _ => {}
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!(
        "no record of the loopback exchange within {} s",
        DEADLINE.as_secs()
    )
}

struct Found {
    accepted: Option<Record>,
    record: Record,
    request: Vec<u8>,
    response: Vec<u8>,
}

fn check(found: &Found, peer_port: u16, expected: Expected, wanted: Wanted) -> Result<()> {
    let record = &found.record;
    let in_order = (record.arrival_ns > 0) == expected.arrivals
        && record.arrival_ns <= record.first_read_ns
        && record.first_read_ns <= record.last_read_ns
        && record.last_read_ns <= record.first_write_ns
        && record.first_write_ns <= record.last_write_ns;
    ensure!(record.peer_port == peer_port, "wrong peer port");
    ensure!(
        (record.flags & flag::ARRIVAL_KNOWN != 0) == expected.arrivals,
        "wrong or missing arrival time"
    );
    ensure!(in_order, "times are out of order");
    ensure!(
        record.read_bytes == REQUEST.len() as u64 && record.written_bytes == RESPONSE.len() as u64,
        "wrong byte counts"
    );
    let (request, response) = match wanted.payload {
        true => (REQUEST, RESPONSE),
        false => (&b""[..], &b""[..]),
    };
    ensure!(
        found.request == request && found.response == response,
        "wrong payload"
    );
    let accept_in_order = found.accepted.map(|accepted| {
        0 < accepted.arrival_ns
            && accepted.arrival_ns <= accepted.first_read_ns
            && accepted.first_read_ns <= record.first_read_ns
    });
    ensure!(
        accept_in_order == wanted.accept_wait.then_some(true),
        "wrong or missing accept time (--accept-wait)"
    );
    ensure!(
        expected.send_start == (record.flags & flag::WRITE_AT_RETURN == 0),
        "wrong or missing start of the send"
    );
    Ok(())
}

fn drain(maps: &mut Maps) {
    while maps.records.next().is_some() {}
    while maps.processes.next().is_some() {}
}
