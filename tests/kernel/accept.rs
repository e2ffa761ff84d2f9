//! Measures how long connections wait to be accepted, against a server that accepts late.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _},
    ptr, thread,
    time::Duration,
};

use inferprobe_tests::{
    agent::{Agent, free_port, launcher::Launcher, request_log::Logged, run::run_to_end_by},
    bpf_ids,
    client::{Connection, request},
    clock::{monotonic_ns, wait_for},
    require_kernel::require_kernel,
    server::stamps::Call,
    tracefs::Tracefs,
};

const SUM: &str = "inferprobe_accept_wait_seconds_sum";
const COUNT: &str = "inferprobe_accept_wait_seconds_count";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// How long the late server does not accept, in nanoseconds.
const LATE_NS: u64 = 60_000_000;
const CONNECTIONS: usize = 8;

/// Returns a listener on a free port, and the agent that watches the port.
fn scene(args: &[&str]) -> (TcpListener, u16, Agent) {
    scene_with(Tracefs::Own, args)
}

fn scene_with(tracefs: Tracefs, args: &[&str]) -> (TcpListener, u16, Agent) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let launcher = Launcher::agent().with_tracefs(tracefs);
    let agent = Agent::start_by(
        launcher,
        &[&["--watch-port", &port.to_string()], args].concat(),
    );
    (listener, port, agent)
}

/// Accepts by `accept4`, as the standard library does.
fn accept4(listener: &TcpListener) -> (TcpStream, Call) {
    stamped(|| listener.accept().unwrap().0)
}

/// Accepts by `accept`.
fn accept(listener: &TcpListener) -> (TcpStream, Call) {
    stamped(|| {
        let fd = listener.as_raw_fd();
        // SAFETY: both addresses may be null together (accept(2)).
        let taken = unsafe { libc::accept(fd, ptr::null_mut(), ptr::null_mut()) };
        assert!(taken >= 0);
        // SAFETY: the kernel has just made the descriptor for this call.
        unsafe { TcpStream::from_raw_fd(taken) }
    })
}

fn stamped(accept: impl FnOnce() -> TcpStream) -> (TcpStream, Call) {
    let call_ns = monotonic_ns();
    let stream = accept();
    let return_ns = monotonic_ns();
    (stream, Call { call_ns, return_ns })
}

/// Reads a request and responds.
fn serve(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    assert!(stream.read(&mut buffer).unwrap() > 0);
    stream.write_all(ANSWER).unwrap();
}

fn is_within(ns: u64, call: &Call) -> bool {
    (call.call_ns..=call.return_ns).contains(&ns)
}

fn row_of<'a>(rows: &'a [Logged], client: &Connection, seq: u32) -> &'a Logged {
    let of_client = |row: &&Logged| row.peer_port == client.local_port() && row.seq == seq;
    rows.iter().find(of_client).unwrap()
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

#[test]
fn waiting_connections_are_timed_from_their_start_to_the_accept() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (listener, port, agent) = scene(&["--accept-wait"]);
    let bytes = request("POST", "/predictions/late", &[], b"{}");
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let connect_ns = monotonic_ns();
        let mut client = Connection::open_tcp(port).unwrap();
        client.send(&bytes).unwrap();
        clients.push((client, connect_ns));
    }
    let sent_ns = monotonic_ns();
    wait_for("a late server", Duration::from_secs(5), || {
        (monotonic_ns() >= sent_ns + LATE_NS).then_some(())
    });
    let mut accepts = Vec::new();
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        let (mut stream, call) = match index % 2 {
            0 => accept4(&listener),
            _ => accept(&listener),
        };
        assert_eq!(
            stream.peer_addr().unwrap().port(),
            client.local_port().unwrap(),
            "connections are accepted in turn"
        );
        // As in most servers, another thread than the one that accepted.
        thread::scope(|scope| {
            scope.spawn(|| serve(&mut stream));
        });
        client.receive(false).unwrap();
        client.send(&bytes).unwrap();
        serve(&mut stream);
        client.receive(false).unwrap();
        accepts.push(call);
    }
    let rows = agent.rows(2 * CONNECTIONS, |row| row.model == "late");
    let (mut least_ns, mut most_ns) = (0, 0);
    for ((client, connect_ns), call) in clients.iter().zip(&accepts) {
        let first = row_of(&rows, client, 0);
        let (accepted_ns, arrival_ns) = (first.accepted_ns.unwrap(), first.arrival_ns.unwrap());
        assert!(is_within(accepted_ns, call), "{call:?} {first:?}");
        assert!(arrival_ns < accepted_ns && accepted_ns < first.first_read_ns);
        assert_eq!(row_of(&rows, client, 1).accepted_ns, None);
        least_ns += accepted_ns - arrival_ns;
        most_ns += accepted_ns - connect_ns;
    }
    let page = agent.metrics();
    let waited_s = page.sum(SUM, &[]);
    println!("{CONNECTIONS} connections waited {waited_s} s to be accepted");
    assert_eq!(page.sum(COUNT, &[]), CONNECTIONS as f64);
    assert!(least_ns >= LATE_NS * CONNECTIONS as u64);
    assert!(
        (seconds(least_ns)..=seconds(most_ns)).contains(&waited_s),
        "{waited_s} s is not within {least_ns} and {most_ns} ns"
    );
    assert_eq!(page.sum("inferprobe_records_lost_total", &[]), 0.0);
    assert_eq!(page.sum("inferprobe_coverage_ratio", &[]), 1.0);
    agent.stop();
}

#[test]
fn connections_to_a_waiting_server_do_not_wait() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (listener, port, agent) = scene(&["--accept-wait", "--no-payload"]);
    let server = thread::spawn(move || {
        let mut calls = Vec::new();
        for index in 0..CONNECTIONS {
            let (mut stream, call) = match index % 2 {
                0 => accept4(&listener),
                _ => accept(&listener),
            };
            serve(&mut stream);
            calls.push(call);
        }
        calls
    });
    let mut most_ns = 0;
    let mut connects = Vec::new();
    for _ in 0..CONNECTIONS {
        let connect_ns = monotonic_ns();
        let mut client = Connection::open_tcp(port).unwrap();
        let bytes = request("GET", "/", &[], b"");
        client.send(&bytes).unwrap();
        client.receive(false).unwrap();
        connects.push((client, connect_ns));
    }
    let calls = server.join().unwrap();
    let rows = agent.rows(CONNECTIONS, |_| true);
    for ((client, connect_ns), call) in connects.iter().zip(&calls) {
        let accepted_ns = row_of(&rows, client, 0).accepted_ns.unwrap();
        assert!(is_within(accepted_ns, call));
        most_ns += accepted_ns - connect_ns;
    }
    let page = agent.metrics();
    assert_eq!(page.sum(COUNT, &[]), CONNECTIONS as f64);
    assert!(page.sum(SUM, &[]) <= seconds(most_ns));
    agent.stop();
}

#[test]
fn accepts_without_the_option_are_neither_hooked_nor_logged() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (listener, port, agent) = scene(&[]);
    let mut client = Connection::open_tcp(port).unwrap();
    let bytes = request("POST", "/predictions/plain", &[], b"{}");
    client.send(&bytes).unwrap();
    let (mut stream, _) = accept4(&listener);
    serve(&mut stream);
    client.receive(false).unwrap();
    let rows = agent.rows(1, |row| row.model == "plain");
    assert_eq!(rows[0].accepted_ns, None);
    assert_eq!(agent.metrics().samples(COUNT, &[]).count(), 0);
    let without = hooks(&agent);
    agent.stop();

    let (_listener, _, agent) = scene(&["--accept-wait"]);
    assert_eq!(hooks(&agent), without + 2);
    let held = bpf_ids::held_by(agent.pid());
    agent.kill();
    wait_for("everything gone", Duration::from_secs(5), || {
        let gone = held.iter().all(|&object| !bpf_ids::exists(object));
        gone.then_some(())
    });
}

#[test]
fn tracefs_in_debugfs_is_found() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let (listener, port, agent) = scene_with(Tracefs::InDebugfs, &["--accept-wait"]);
    let mut client = Connection::open_tcp(port).unwrap();
    let bytes = request("POST", "/predictions/in-debugfs", &[], b"{}");
    client.send(&bytes).unwrap();
    let (mut stream, call) = accept4(&listener);
    serve(&mut stream);
    client.receive(false).unwrap();
    let rows = agent.rows(1, |row| row.model == "in-debugfs");
    let accepted_ns = rows[0].accepted_ns.unwrap();
    assert!(is_within(accepted_ns, &call), "{call:?} {rows:?}");
    agent.stop();
}

#[test]
fn missing_tracefs_is_refused_with_the_remedy() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let listen = format!("127.0.0.1:{}", free_port());
    let launcher = Launcher::agent().with_tracefs(Tracefs::NotMounted);
    let ended = run_to_end_by(launcher, &["--listen", &listen, "--accept-wait"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let message = ended.stderr.trim_end();
    assert!(!message.contains('\n'), "{message}");
    for part in [
        "--accept-wait",
        "/sys/kernel/debug/tracing",
        "mount -t tracefs tracefs /sys/kernel/tracing",
        "hostPath",
    ] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

/// Returns how many links the agent holds.
fn hooks(agent: &Agent) -> usize {
    let held = bpf_ids::held_by(agent.pid());
    held.iter().filter(|object| object.is_link()).count()
}
