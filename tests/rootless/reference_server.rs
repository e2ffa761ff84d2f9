//! Checks the reference server and the client against each other: other tests rely on their stamps.

use std::time::Duration;

use inferprobe_tests::{
    client::{Connection, request},
    load::{self, Load},
    server::{Place, Server, options::IoMode},
};

const MS: u64 = 1_000_000;

#[test]
fn stamps_of_a_request_are_in_order_in_every_io_mode() {
    for io in IoMode::ALL {
        let mut server = Server::start(&["--io", io.word(), "--read-sizes", "24,1,65536"]);
        let mut client = Connection::open(&server.place).unwrap();
        let bytes = request(
            "POST",
            "/predictions/m?sleep_ms=5&body=7",
            &[],
            &[b'x'; 300],
        );
        for _ in 0..3 {
            let (_, answer) = client.exchange(&bytes).unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, 7));
        }
        let (sent, answer) = client.exchange(&bytes).unwrap();
        let stamps = server.stamps(4);
        let last = &stamps[3];
        assert_eq!((last.seq, last.peer_port), (3, client.local_port()));
        assert_eq!(last.request_bytes, bytes.len() as u64);
        assert_eq!(last.response_bytes, answer.bytes);
        assert!(sent.call_ns <= last.first_read.return_ns, "{io:?}");
        assert!(last.first_read.return_ns < last.last_read.call_ns, "{io:?}");
        assert!(last.handler_ns() >= 5 * MS, "{io:?}");
    }
}

#[test]
fn server_that_sleeps_before_it_reads_records_when_it_was_readable() {
    let mut server = Server::start(&["--read-sleep-ms", "20"]);
    let mut client = Connection::open(&server.place).unwrap();
    let bytes = request("POST", "/predictions/m", &[], b"x");
    let (sent, _) = client.exchange(&bytes).unwrap();
    let stamp = server.stamps(1).remove(0);
    let readable_ns = stamp.readable_ns.unwrap();
    assert!(readable_ns >= sent.call_ns);
    assert!(stamp.first_read.return_ns - readable_ns >= 20 * MS);
}

#[test]
fn every_kind_of_response_is_read_to_its_end() {
    let cases = [
        ("POST", "body=3000000", 200, 3_000_000),
        ("POST", "body=10&split=1", 200, 10),
        ("POST", "body=10&chunks=3&gap_ms=1", 200, 30),
        ("POST", "body=10&chunks=2&trailers=1", 200, 20),
        ("POST", "body=10&head_bytes=3000", 200, 10),
        ("POST", "body=10&until_close=1", 200, 10),
        ("POST", "body=1000&write_size=100", 200, 1000),
        ("HEAD", "body=10", 200, 0),
        ("POST", "body=10&status=204", 204, 0),
        ("POST", "body=10&status=304", 304, 0),
        ("POST", "body=10&status=413&early=1", 413, 10),
    ];
    let server = Server::start(&[]);
    for (method, query, status, body_bytes) in cases {
        let mut client = Connection::open(&server.place).unwrap();
        let target = format!("/predictions/m?{query}");
        let bytes = request(method, &target, &[], &[b'x'; 100]);
        let (_, answer) = client.exchange(&bytes).unwrap();
        let outcome = (answer.status, answer.body.len());
        assert_eq!(outcome, (status, body_bytes), "{method} {query}");
        if answer.head.field("connection") == Some("close") {
            assert!(client.ends(), "{method} {query}");
        } else {
            let (_, next) = client.exchange(&bytes).unwrap();
            assert_eq!(next.status, status, "{method} {query}, once more");
        }
    }
}

#[test]
fn waiting_client_gets_100_continue() {
    let mut server = Server::start(&[]);
    let mut client = Connection::open(&server.place).unwrap();
    let fields = ["Expect: 100-continue", "Content-Length: 5000000"];
    client
        .send(&request("POST", "/predictions/m", &fields, b""))
        .unwrap();
    assert_eq!(client.receive_one(false).unwrap().status, 100);
    client.send(&vec![b'x'; 5_000_000]).unwrap();
    assert_eq!(client.receive_one(false).unwrap().status, 200);
    assert!(server.stamps(1)[0].request_bytes > 5_000_000);
}

#[test]
fn pipelined_requests_and_chunked_bodies_are_separated() {
    let mut server = Server::start(&["--peek"]);
    let mut client = Connection::open(&server.place).unwrap();
    let chunked = request(
        "POST",
        "/predictions/b?body=5",
        &["Transfer-Encoding: chunked"],
        b"3\r\nabc\r\n0\r\n\r\n",
    );
    let plain = request("POST", "/predictions/a?body=4", &[], b"12");
    client
        .send(&[plain.as_slice(), &chunked, &plain].concat())
        .unwrap();
    for expected in [4, 5, 4] {
        assert_eq!(client.receive(false).unwrap().body.len(), expected);
    }
    let sizes: Vec<u64> = server.stamps(3).iter().map(|s| s.request_bytes).collect();
    let (plain, chunked) = (plain.len() as u64, chunked.len() as u64);
    assert_eq!(sizes, [plain, chunked, plain]);
}

#[test]
fn dropped_request_gets_no_response() {
    let server = Server::start(&[]);
    let mut client = Connection::open(&server.place).unwrap();
    client
        .send(&request("POST", "/predictions/m?drop=1", &[], b""))
        .unwrap();
    assert!(client.ends());
}

#[test]
fn server_serves_on_without_its_first_thread() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(&[]);
    server.leave_first_thread();
    let more = server.listen(&folder.path().join("s"));
    for place in [&server.place, &more] {
        let mut client = Connection::open(place).unwrap();
        let bytes = request("POST", "/predictions/m", &[], b"");
        assert_eq!(client.exchange(&bytes).unwrap().1.status, 200);
    }
    assert_eq!(server.stamps(2).len(), 2);
}

#[test]
fn forked_workers_and_unix_sockets_serve() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let socket = socket.to_str().unwrap();
    for args in [
        vec!["--workers", "2", "--forking", "listen-first"],
        vec!["--workers", "2", "--forking", "reuse-port"],
        vec!["--workers", "1", "--forking", "per-connection"],
        vec!["--unix", socket],
    ] {
        let server = Server::start(&args);
        for _ in 0..8 {
            let mut client = Connection::open(&server.place).unwrap();
            let bytes = request("POST", "/predictions/m", &[], b"");
            let (_, answer) = client.exchange(&bytes).unwrap();
            assert_eq!(answer.status, 200, "{args:?}");
        }
        assert!(args[0] != "--unix" || matches!(server.place, Place::Unix(_)));
    }
}

#[test]
fn echo_server_serves_the_load_client() {
    let server = Server::start(&["--echo"]);
    let outcome = load::run(&Load {
        address: ([127, 0, 0, 1], server.port()).into(),
        connections: 4,
        duration: Duration::from_millis(200),
        target: "/predictions/echo".into(),
        body_bytes: 64,
        rate_per_s: None,
        pipelined: 1,
        encrypted: false,
    })
    .unwrap();
    assert!(outcome.requests >= 4);
    assert_eq!(outcome.latency_ns.count as u64, outcome.requests);
    println!("{outcome:?}");
}

#[test]
fn rate_spaces_the_requests_of_all_connections() {
    let server = Server::start(&["--echo"]);
    let outcome = load::run(&Load {
        address: ([127, 0, 0, 1], server.port()).into(),
        connections: 4,
        duration: Duration::from_millis(500),
        target: "/predictions/echo".into(),
        body_bytes: 64,
        rate_per_s: Some(200),
        pipelined: 1,
        encrypted: false,
    })
    .unwrap();
    // On a machine that stalls, requests may be skipped, but none may come early.
    assert!((50..=104).contains(&outcome.requests), "{outcome:?}");
}

#[test]
fn responses_are_counted_by_status() {
    let mut server = Server::start(&[]);
    let mut client = Connection::open(&server.place).unwrap();
    for status in [200, 404, 200] {
        let bytes = request("GET", &format!("/?status={status}"), &[], b"");
        client.exchange(&bytes).unwrap();
    }
    server.stamps(3);
    let codes: Vec<_> = server.codes().into_iter().collect();
    assert_eq!(codes, [(200, 2), (404, 1)]);
}

#[test]
fn pipelined_requests_are_all_answered() {
    let server = Server::start(&["--echo"]);
    let outcome = load::run(&Load {
        address: ([127, 0, 0, 1], server.port()).into(),
        connections: 2,
        duration: Duration::from_millis(200),
        target: "/predictions/echo".into(),
        body_bytes: 64,
        rate_per_s: None,
        pipelined: 5,
        encrypted: false,
    })
    .unwrap();
    assert!(outcome.requests >= 10);
    assert_eq!(outcome.latency_ns.count as u64 * 5, outcome.requests);
}
