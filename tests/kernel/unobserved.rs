//! Covers connections that the hooks observe in part: bytes that splice moves, listeners inside others, ends that only the
//! client sees.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Command,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use inferprobe_tests::{
    agent::Agent, client::request, clock::wait_for, require_kernel::require_kernel, script::Script,
};
use rustix::{
    net::{AddressFamily, Protocol, SendFlags, SocketType, bind, listen, sendto, socket},
    pipe::{SpliceFlags, pipe, splice},
    thread::{UnshareFlags, unshare_unsafe},
};

const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Takes `bytes` bytes out of the queue of `stream` without a read.
fn splice_away(stream: &TcpStream, bytes: usize) {
    let (out, into) = pipe().unwrap();
    let mut left = bytes;
    while left > 0 {
        let moved = splice(stream, None, &into, None, left, SpliceFlags::empty()).unwrap();
        assert_ne!(moved, 0, "the client has ended");
        left -= moved;
        let mut rest = vec![0; moved];
        rustix::io::read(&out, &mut rest).unwrap();
    }
}

/// Reads one answer.
fn receive(stream: &mut TcpStream) {
    let mut answer = vec![0; ANSWER.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, ANSWER);
}

/// A listener on a free port, the port, and an agent that watches it.
fn watched() -> (TcpListener, u16, Agent) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = Agent::start(&["--watch-port", &port.to_string()]);
    (listener, port, agent)
}

fn connected(listener: &TcpListener, port: u16) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn spliced_connection_is_missed_bytes_of_its_server() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (listener, port, agent) = watched();
    let (mut client, mut server) = connected(&listener, port);
    let bytes = request("POST", "/predictions/hidden", &[], &[b'x'; 100]);
    for _ in 0..3 {
        client.write_all(&bytes).unwrap();
        splice_away(&server, bytes.len());
        server.write_all(ANSWER).unwrap();
        receive(&mut client);
    }
    drop((client, server));
    let all = 3.0 * (bytes.len() + ANSWER.len()) as f64;
    let missed = agent.wait_sum("inferprobe_missed_bytes_total", &[], all);
    let page = agent.metrics();
    assert_eq!(missed, all);
    assert_eq!(page.sum("inferprobe_socket_bytes_total", &[]), all);
    assert_eq!(page.sum("inferprobe_coverage_ratio", &[]), 0.0);
    let lost = page.sum("inferprobe_records_lost_total", &[("reason", "unobserved")]);
    assert_eq!(lost, 1.0);
    agent.stop();
}

#[test]
fn spliced_body_does_not_hide_the_next_request() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (listener, port, agent) = watched();
    let (mut client, mut server) = connected(&listener, port);
    let body = 50_000;
    for (model, spliced) in [("first", true), ("second", false), ("third", true)] {
        let target = format!("/predictions/{model}");
        let bytes = request("POST", &target, &[], &vec![b'x'; body]);
        let head = bytes.len() - body;
        let sender = {
            let mut client = client.try_clone().unwrap();
            thread::spawn(move || client.write_all(&bytes).unwrap())
        };
        server.read_exact(&mut vec![0; head]).unwrap();
        match spliced {
            true => splice_away(&server, body),
            false => server.read_exact(&mut vec![0; body]).unwrap(),
        }
        sender.join().unwrap();
        server.write_all(ANSWER).unwrap();
        receive(&mut client);
    }
    drop((client, server));
    let rows = agent.rows(3, |_| true);
    let named: Vec<_> = rows.iter().map(|row| row.model.as_str()).collect();
    assert_eq!(named, ["first", "second", "third"]);
    wait_for("the end of the connection", PATIENCE, || {
        let page = agent.metrics();
        let all = page.sum("inferprobe_socket_bytes_total", &[]);
        (all > 3.0 * body as f64).then_some(())
    });
    let missed = agent.metrics().sum("inferprobe_missed_bytes_total", &[]);
    assert_eq!(missed, 0.0);
    agent.stop();
}

#[test]
fn arrivals_behind_a_mptcp_listener_that_was_open_before_are_known() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mptcp = Protocol::from_raw(262.try_into().unwrap());
    let Ok(listener) = socket(AddressFamily::INET, SocketType::STREAM, Some(mptcp)) else {
        println!("skipped: this kernel has no MPTCP");
        return;
    };
    let any: std::net::SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    bind(&listener, &any).unwrap();
    listen(&listener, 8).unwrap();
    let listener = TcpListener::from(listener);
    let port = listener.local_addr().unwrap().port();
    let agent = Agent::start(&["--watch-port", &port.to_string()]);
    let bytes = request("POST", "/predictions/inside", &[], b"{}");
    for _ in 0..4 {
        let (mut client, mut server) = connected(&listener, port);
        client.write_all(&bytes).unwrap();
        server.read_exact(&mut vec![0; bytes.len()]).unwrap();
        server.write_all(ANSWER).unwrap();
        receive(&mut client);
    }
    let rows = agent.rows(4, |_| true);
    let known = rows.iter().filter(|row| row.arrival_ns.is_some()).count();
    assert_eq!((rows.len(), known), (4, 4), "{rows:?}");
    agent.stop();
}

/// Gives this thread a network namespace of its own, in which all listeners take data with the SYN; `None` if it cannot.
fn enter_fast_open_network() -> Option<()> {
    // SAFETY: only this thread enters the namespace, and it shares no descriptors that depend on it.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.ok()?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    // Clients and servers, without cookies, on all listeners (Documentation/networking/ip-sysctl.rst, `tcp_fastopen`).
    const MODE: &str = "1539";
    fs::write("/proc/sys/net/ipv4/tcp_fastopen", MODE).ok()?;
    up.ok()?.success().then_some(())
}

/// Connections that this thread's network has accepted with data in their SYN.
fn fast_opened() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let found = pairs.find(|(name, _)| *name == "TCPFastOpenPassive");
    found.unwrap().1.parse().unwrap()
}

/// Sends requests with their SYN, the rest of each later, to a server that reads late. Returns the times of the first sends.
fn send_with_syn(port: &Sender<u16>, started: &Receiver<()>) -> Option<Vec<(u64, u64)>> {
    enter_fast_open_network()?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let to = listener.local_addr().unwrap();
    port.send(to.port()).unwrap();
    started.recv().unwrap();
    let bytes = request("POST", "/predictions/fast", &[], b"{}");
    let fast_open = SendFlags::from_bits_retain(0x2000_0000);
    let sent = [bytes.len(), 40].map(|with_syn| {
        let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let before_ns = inferprobe_tests::clock::monotonic_ns();
        sendto(&client, &bytes[..with_syn], fast_open, &to).unwrap();
        let after_ns = inferprobe_tests::clock::monotonic_ns();
        thread::sleep(Duration::from_millis(50));
        let mut client = TcpStream::from(client);
        client.write_all(&bytes[with_syn..]).unwrap();
        thread::sleep(Duration::from_millis(50));
        let (mut server, _) = listener.accept().unwrap();
        server.read_exact(&mut vec![0; bytes.len()]).unwrap();
        server.write_all(ANSWER).unwrap();
        receive(&mut client);
        (before_ns, after_ns)
    });
    assert_eq!(fast_opened(), sent.len() as u64);
    Some(sent.to_vec())
}

#[test]
fn bytes_that_come_with_a_syn_arrive_with_it() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (port, ports) = channel();
    let (start, started) = channel();
    let client = thread::spawn(move || send_with_syn(&port, &started));
    let Ok(port) = ports.recv() else {
        println!("skipped: no network namespace with TCP Fast Open");
        return;
    };
    let agent = Agent::start(&["--watch-port", &port.to_string()]);
    start.send(()).unwrap();
    let sent = client.join().unwrap().unwrap();
    let rows = agent.rows(sent.len(), |row| row.model == "fast");
    for (row, (before_ns, after_ns)) in rows.iter().zip(sent) {
        let arrival_ns = row.arrival_ns.unwrap();
        assert!(
            (before_ns..=after_ns + 1_000_000).contains(&arrival_ns),
            "{before_ns} to {after_ns}: {row:?}"
        );
    }
    agent.stop();
}

/// A process that accepts connections, and its child, which gets them over a unix socket and responds; prints the port.
const PASSES_ON: &str = r#"
import os, socket
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if os.fork() == 0:
    ours.close()
    while True:
        _, passed, _, _ = socket.recv_fds(theirs, 8, 1)
        if not passed:
            os._exit(0)
        connection = socket.socket(fileno=passed[0])
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        connection.close()
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    socket.send_fds(ours, [b"x"], [connection.fileno()])
    connection.close()
"#;

#[test]
fn arrivals_on_connections_that_were_passed_on_are_known() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut server = Script::start(Path::new("python3"), PASSES_ON, &[]);
    let port: u16 = server.line().parse().unwrap();
    let agent = Agent::start(&["--watch-port", &port.to_string()]);
    let bytes = request("POST", "/predictions/passed", &[], b"{}");
    let mut sent_ns = Vec::new();
    for _ in 0..4 {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let before_ns = inferprobe_tests::clock::monotonic_ns();
        client.write_all(&bytes).unwrap();
        sent_ns.push((before_ns, inferprobe_tests::clock::monotonic_ns()));
        receive(&mut client);
    }
    let rows = agent.rows(4, |row| row.model == "passed");
    for (row, (before_ns, after_ns)) in rows.iter().zip(sent_ns) {
        let arrival_ns = row.arrival_ns.unwrap();
        assert!(
            (before_ns..=after_ns + 1_000_000).contains(&arrival_ns),
            "{row:?}"
        );
    }
    agent.stop();
}

#[test]
fn unix_response_until_close_has_its_pauses_and_its_end() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let own = std::env::current_exe().unwrap();
    let own = own.file_name().unwrap().to_str().unwrap();
    let agent = Agent::start(&["--watch-exe", own]);
    let listener = UnixListener::bind(&path).unwrap();
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let event = b"data: token\n\n";
    let bytes = request("POST", "/predictions/slow", &[], b"{}");
    let mut last_ns = Vec::new();
    for _ in 0..2 {
        let mut client = UnixStream::connect(&path).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&bytes).unwrap();
        server.read_exact(&mut vec![0; bytes.len()]).unwrap();
        server.write_all(head).unwrap();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(700));
            server.write_all(event).unwrap();
        }
        last_ns.push(inferprobe_tests::clock::monotonic_ns());
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), head.len() + 3 * event.len());
    }
    let rows = agent.rows(2, |row| row.model == "slow");
    for (row, last_ns) in rows.iter().zip(last_ns) {
        let whole = head.len() + 3 * event.len();
        assert_eq!((row.response_bytes, row.status), (whole as u64, 200));
        let end_ns = row.last_write_ns.unwrap();
        assert!(end_ns <= last_ns && last_ns - end_ns < 50_000_000);
        assert_eq!(row.stream.as_ref().unwrap().chunks, Some(3));
    }
    agent.stop();
}
