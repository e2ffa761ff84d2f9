//! One exchange over loopback at start-up, whose every figure is known: proof that the offsets are this kernel's.

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

/// What of an exchange can be seen with the hooks at hand.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// When bytes arrive.
    pub arrivals: bool,
    /// When a send begins.
    pub send_start: bool,
}

/// Exchanges a request with itself and requires its true record back, with all that is `wanted`; this process's id, as
/// the kernel's records have it.
pub fn run(rings: &mut Maps, seen: Seen, wanted: Wanted) -> Result<u32> {
    // The port is known to the listener before it is watched, so a second, watched listener takes the exchange.
    let port = TcpListener::bind(("127.0.0.1", 0))
        .and_then(|free| free.local_addr())
        .context("take a loopback port")?
        .port();
    rings.set_port(port, true)?;
    let exchanged = exchange(port);
    let outcome = exchanged.and_then(|peer_port| {
        let found = await_record(rings, port)?;
        check(&found, peer_port, seen, wanted)?;
        Ok(found.record.tgid)
    });
    rings.set_port(port, false)?;
    drain(rings);
    outcome
}

/// Returns the client's port.
fn exchange(port: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", port)).context("listen on a loopback port")?;
    let mut client = TcpStream::connect(("127.0.0.1", port)).context("connect over loopback")?;
    client.write_all(REQUEST).context("send over loopback")?;
    let (mut server, peer) = listener.accept().context("accept over loopback")?;
    server
        .read_exact(&mut [0; REQUEST.len()])
        .context("read over loopback")?;
    server.write_all(RESPONSE).context("answer over loopback")?;
    client
        .read_exact(&mut [0; RESPONSE.len()])
        .context("read the answer over loopback")?;
    Ok(peer.port())
}

fn await_record(rings: &mut Maps, port: u16) -> Result<Found> {
    let end = Instant::now() + DEADLINE;
    let mut accepted = None;
    while Instant::now() < end {
        while let Some(entry) = rings.records.next() {
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
    bail!("self-test: no record of the loopback exchange came; this kernel is not supported")
}

struct Found {
    accepted: Option<Record>,
    record: Record,
    request: Vec<u8>,
    response: Vec<u8>,
}

fn check(found: &Found, peer_port: u16, seen: Seen, wanted: Wanted) -> Result<()> {
    let record = &found.record;
    let in_order = (record.arrival_ns > 0) == seen.arrivals
        && record.arrival_ns <= record.first_read_ns
        && record.first_read_ns <= record.last_read_ns
        && record.last_read_ns <= record.first_write_ns
        && record.first_write_ns <= record.last_write_ns;
    ensure!(
        record.peer_port == peer_port,
        "self-test: wrong peer port; this kernel is not supported"
    );
    ensure!(
        (record.flags & flag::ARRIVAL_KNOWN != 0) == seen.arrivals,
        "self-test: no arrival time; this kernel is not supported"
    );
    ensure!(
        in_order,
        "self-test: times out of order; this kernel is not supported"
    );
    ensure!(
        record.read_bytes == REQUEST.len() as u64 && record.written_bytes == RESPONSE.len() as u64,
        "self-test: wrong byte counts; this kernel is not supported"
    );
    let (request, response) = match wanted.payload {
        true => (REQUEST, RESPONSE),
        false => (&b""[..], &b""[..]),
    };
    ensure!(
        found.request == request && found.response == response,
        "self-test: wrong payload; this kernel is not supported"
    );
    let accept_in_order = found.accepted.map(|accepted| {
        0 < accepted.arrival_ns
            && accepted.arrival_ns <= accepted.first_read_ns
            && accepted.first_read_ns <= record.first_read_ns
    });
    ensure!(
        accept_in_order == wanted.accept_wait.then_some(true),
        "self-test: no accept, or at a wrong time; leave --accept-wait out on this kernel"
    );
    ensure!(
        seen.send_start == (record.flags & flag::WRITE_AT_RETURN == 0),
        "self-test: the start of a send was not seen; this kernel is not supported"
    );
    Ok(())
}

fn drain(rings: &mut Maps) {
    while rings.records.next().is_some() {}
    while rings.processes.next().is_some() {}
}
