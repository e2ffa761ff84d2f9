//! Covers requests that wait unread in one receive queue, many at once, as they share an HTTP/2 connection.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    ops::RangeInclusive,
    sync::mpsc,
    thread,
    time::Duration,
};

use inferprobe_tests::{
    agent::Agent,
    client::Connection,
    clock::{monotonic_ns, wait_for},
    http2::{Client, frame, opening, request},
    require_kernel::require_kernel,
    server::Place,
    socket_queues::received_from,
};

/// Requests that wait at once.
const WAITING: u32 = 70;
const PATIENCE: Duration = Duration::from_secs(5);
const HEADERS: u8 = 1;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;
/// `:status: 200`
const OK: &[u8] = &[0x88];

/// Reads as many bytes as all requests have, `at_once` at a time, once `go` says so, and answers them all.
fn serve(
    listener: &TcpListener,
    go: &mpsc::Receiver<()>,
    first: usize,
    bytes: usize,
    at_once: usize,
) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = vec![0; at_once];
    stream.read_exact(&mut vec![0; first]).unwrap();
    go.recv().unwrap();
    let mut left = bytes - first;
    while left > 0 {
        let most = left.min(at_once);
        left -= stream.read(&mut buffer[..most]).unwrap();
    }
    let streams = (0..WAITING).map(|number| 2 * number + 1);
    let answers: Vec<u8> = streams
        .flat_map(|id| frame(HEADERS, WHOLE, id, OK))
        .collect();
    stream.write_all(&answers).unwrap();
    // The client closes first.
    let _ = stream.read(&mut buffer);
}

#[test]
fn arrivals_of_many_unread_requests_are_known() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = Agent::start(&["--watch-port", &port.to_string()]);
    // Of one size, so that a read may end within any of them.
    let asked: Vec<Vec<u8>> = (0..WAITING)
        .map(|number| {
            let path = format!("/predictions/waits-{number:02}");
            let fields = [(":method", "POST"), (":scheme", "http"), (":path", &path)];
            request(2 * number + 1, &fields, None)
        })
        .collect();
    let bytes = opening().len() + asked.iter().map(Vec::len).sum::<usize>();
    for (round, at_once) in [(1, 64 << 10), (2, 100)] {
        let (go, wait) = mpsc::channel();
        let listener = listener.try_clone().unwrap();
        let first = opening().len();
        let server = thread::spawn(move || serve(&listener, &wait, first, bytes, at_once));
        let connection = Connection::open(&Place::Tcp(port)).unwrap();
        let client_port = connection.local_port().unwrap();
        let mut client = Client::new(connection);
        client.send(&opening());
        let mut sent_bytes = 0;
        // The congestion window holds one back at times, until the server's kernel acknowledges earlier ones.
        let held: Vec<RangeInclusive<u64>> = asked
            .iter()
            .map(|request| {
                thread::sleep(Duration::from_millis(1));
                let sent = client.send(request);
                sent_bytes += request.len() as u64;
                wait_for("the request in the receive queue", PATIENCE, || {
                    let received = received_from(port, client_port) == sent_bytes;
                    received.then(|| sent.call_ns..=monotonic_ns())
                })
            })
            .collect();
        go.send(()).unwrap();
        client.wait_end(2 * WAITING - 1).unwrap();
        drop(client);
        server.join().unwrap();
        let rows = agent.rows(round * WAITING as usize, |row| {
            row.model.starts_with("waits-")
        });
        for (number, held) in held.iter().enumerate() {
            let model = format!("waits-{number:02}");
            let row = rows.iter().rfind(|row| row.model == model).unwrap();
            let arrival_ns = row.arrival_ns.unwrap();
            assert!(held.contains(&arrival_ns), "{at_once}: {held:?} {row:?}");
        }
    }
    agent.stop();
}
