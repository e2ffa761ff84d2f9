//! Sends requests that need no script: to many threads that wait in a read, and over a unix socket.

use crate::{
    client::{Connection, request},
    server::Place,
};

/// Threads that wait in a read at the same time: more than the kernel's default number of kretprobe instances.
const THREADS: usize = 64;

/// Opens connections, each with a thread that waits in a read, and sends three requests on each.
pub(super) fn idle_threads(port: u16) {
    let mut clients: Vec<Connection> = (0..THREADS)
        .map(|_| Connection::open_tcp(port).expect("the server listens"))
        .collect();
    for round in 0..3 {
        for client in &mut clients {
            let target = format!("/predictions/idle?status={}", 200 + round);
            let bytes = request("POST", &target, &[], &[b'x'; 100]);
            client.exchange(&bytes).expect("the server answers");
        }
    }
}

/// Uses one connection after the other.
pub(super) fn unix(place: &Place) {
    let open = || Connection::open(place).expect("the server listens");
    let post =
        |target: &str, body_bytes: usize| request("POST", target, &[], &vec![b'x'; body_bytes]);

    let mut client = open();
    for bytes in [
        post("/predictions/plain", 2),
        post("/predictions/code?status=503", 200),
        request("GET", "/ping", &[], b""),
        request("HEAD", "/predictions/head?body=100", &[], b""),
        post("/predictions/chunks?chunks=4&body=20", 2),
        post("/predictions/long?body=3000&split=1", 100_000),
        post("/predictions/parts?body=9000&write_size=1000", 2),
    ] {
        client.exchange(&bytes).expect("the server answers");
    }

    let mut client = open();
    let bytes = post("/predictions/cut", 5_000);
    for part in [&bytes[..10], &bytes[10..300], &bytes[300..]] {
        client.send(part).expect("the server reads");
    }
    client.receive(false).expect("the server answers");

    let mut client = open();
    let bytes = [post("/predictions/one", 20), post("/predictions/two", 30)].concat();
    client.send(&bytes).expect("the server reads");
    for _ in 0..2 {
        client.receive(false).expect("the server answers");
    }
}
