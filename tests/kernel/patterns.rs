//! Covers the ways in which servers and clients use their sockets.

use std::{thread, time::Duration};

use inferprobe_tests::{
    agent::Agent,
    check_times::{mismatches, pair, size_mismatches},
    client::{Connection, request},
    require_kernel::require_kernel,
    server::{Server, stamps::Call},
};

const MB: usize = 1_000_000;

/// Which times are compared with the stamps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    /// All: each time must be inside its call.
    All,
    /// None: several requests share their reads, so only counts, codes and sizes are certain.
    No,
}

/// One way to use a connection. `act` gets an open connection and the model's name, and returns the first send of
/// each request that must be counted.
struct Pattern {
    model: &'static str,
    server: &'static [&'static str],
    times: Times,
    act: fn(&mut Connection, &str) -> Vec<Call>,
}

const fn pattern(
    model: &'static str,
    server: &'static [&'static str],
    act: fn(&mut Connection, &str) -> Vec<Call>,
) -> Pattern {
    let times = Times::All;
    Pattern {
        model,
        server,
        times,
        act,
    }
}

/// Waits until what was sent has arrived and is read, separately from what follows.
fn pause() {
    thread::sleep(Duration::from_millis(20));
}

fn post(model: &str, query: &str, body_bytes: usize) -> Vec<u8> {
    let target = format!("/predictions/{model}?{query}");
    request("POST", &target, &[], &vec![b'x'; body_bytes])
}

/// Sends whole requests one after the other; the responses must have these codes.
fn each(client: &mut Connection, requests: &[(Vec<u8>, u16)]) -> Vec<Call> {
    let one = |(bytes, status): &(Vec<u8>, u16)| {
        let (sent, answer) = client.exchange(bytes).unwrap();
        assert_eq!(answer.status, *status);
        sent
    };
    requests.iter().map(one).collect()
}

/// Sends parts of one request with a pause before each but the first, and reads the response.
fn in_parts(client: &mut Connection, parts: &[&[u8]]) -> Vec<Call> {
    let mut first = None;
    for part in parts {
        if first.is_some() {
            pause();
        }
        let sent = client.send(part).unwrap();
        first.get_or_insert(sent);
    }
    client.receive(false).unwrap();
    first.into_iter().collect()
}

fn three(client: &mut Connection, model: &str) -> Vec<Call> {
    let one = || (post(model, "sleep_ms=2&body=500", 300), 200);
    each(client, &[one(), one(), one()])
}

fn longer_than_is_copied(client: &mut Connection, model: &str) -> Vec<Call> {
    let one = || (post(model, "status=201&body=1500", 1500), 201);
    each(client, &[one(), one(), one()])
}

fn split_head(client: &mut Connection, model: &str) -> Vec<Call> {
    let bytes = post(model, "sleep_ms=1", 100);
    in_parts(client, &[&bytes[..3], &bytes[3..20], &bytes[20..]])
}

fn late_body(client: &mut Connection, model: &str) -> Vec<Call> {
    let bytes = post(model, "", 1000);
    let (head, body) = bytes.split_at(bytes.len() - 1000);
    in_parts(client, &[head, &body[..10], &body[10..]])
}

fn split_answer(client: &mut Connection, model: &str) -> Vec<Call> {
    let request = || (post(model, "split=1&gap_ms=10&body=100", 10), 200);
    each(client, &[request(), request()])
}

fn tiny_writes(client: &mut Connection, model: &str) -> Vec<Call> {
    let request = || (post(model, "write_size=9&body=100", 10), 200);
    each(client, &[request(), request()])
}

fn close(client: &mut Connection, model: &str) -> Vec<Call> {
    let sends = each(client, &[(post(model, "close=1", 10), 200)]);
    assert!(client.ends());
    sends
}

fn until_close(client: &mut Connection, model: &str) -> Vec<Call> {
    let query = "until_close=1&split=1&body=5000&gap_ms=5";
    each(client, &[(post(model, query, 10), 200)])
}

fn waits_to_continue(client: &mut Connection, model: &str) -> Vec<Call> {
    let target = format!("/predictions/{model}?sleep_ms=3");
    let fields = ["Expect: 100-continue", "Content-Length: 5000"];
    let sent = client
        .send(&request("POST", &target, &fields, b""))
        .unwrap();
    assert_eq!(client.receive_one(false).unwrap().status, 100);
    pause();
    client.send(&[b'x'; 5000]).unwrap();
    assert_eq!(client.receive_one(false).unwrap().status, 200);
    let mut sends = vec![sent];
    sends.extend(each(client, &[(post(model, "", 10), 200)]));
    sends
}

fn large_body(client: &mut Connection, model: &str) -> Vec<Call> {
    let request = || (post(model, "sleep_ms=2", 5 * MB), 200);
    each(client, &[request(), request()])
}

fn large_answer(client: &mut Connection, model: &str) -> Vec<Call> {
    let request = || (post(model, "body=3000000", 10), 200);
    each(client, &[request(), request()])
}

fn chunked_answer(client: &mut Connection, model: &str) -> Vec<Call> {
    let request = |query| (post(model, query, 10), 200);
    let slow = request("chunks=5&gap_ms=10&body=40");
    let fast = request("chunks=20&body=40");
    each(client, &[slow, fast, request("chunks=1&body=4")])
}

fn chunked_request(client: &mut Connection, model: &str) -> Vec<Call> {
    let target = format!("/predictions/{model}");
    let fields = ["Transfer-Encoding: chunked"];
    let head = request("POST", &target, &fields, b"");
    let mut sends = in_parts(client, &[&head, b"5\r\nabcde\r\n", b"0\r\n\r\n"]);
    sends.extend(each(client, &[(post(model, "", 10), 200)]));
    sends
}

fn no_bytes(_client: &mut Connection, _model: &str) -> Vec<Call> {
    Vec::new()
}

fn bodiless(client: &mut Connection, model: &str) -> Vec<Call> {
    let none = (post(model, "status=204", 10), 204);
    let same = (post(model, "status=304&body=77", 10), 304);
    each(client, &[none, same, (post(model, "", 10), 200)])
}

fn failing(client: &mut Connection, model: &str) -> Vec<Call> {
    let failed = (post(model, "status=500", 10), 500);
    each(client, &[failed, (post(model, "status=404", 10), 404)])
}

fn pipelined(client: &mut Connection, model: &str) -> Vec<Call> {
    let all = [
        post(model, "body=10", 20),
        post(model, "status=500", 0),
        post(model, "sleep_ms=5", 3),
    ];
    let sent = client.send(&all.concat()).unwrap();
    for status in [200, 500, 200] {
        assert_eq!(client.receive(false).unwrap().status, status);
    }
    vec![sent; 3]
}

const PATTERNS: &[Pattern] = &[
    pattern("read-write", &["--io", "read-write"], three),
    pattern("recv-send", &["--io", "recv-send"], three),
    pattern("vectored", &["--io", "vectored"], three),
    pattern("message", &["--io", "message"], three),
    pattern(
        "vectored-longer",
        &["--io", "vectored"],
        longer_than_is_copied,
    ),
    pattern(
        "message-longer",
        &["--io", "message"],
        longer_than_is_copied,
    ),
    pattern("several-reads", &["--read-sizes", "100"], three),
    pattern("tiny-reads", &["--read-sizes", "24,1"], three),
    pattern(
        "tiny-vectored",
        &["--io", "vectored", "--read-sizes", "5,3"],
        three,
    ),
    pattern("peeked", &["--peek", "--io", "recv-send"], three),
    pattern("split-head", &[], split_head),
    pattern("late-body", &[], late_body),
    pattern("split-answer", &[], split_answer),
    pattern("tiny-writes", &[], tiny_writes),
    pattern("close", &[], close),
    pattern("until-close", &[], until_close),
    pattern("continue", &[], waits_to_continue),
    pattern("large-body", &[], large_body),
    pattern("large-body-message", &["--io", "message"], large_body),
    pattern("large-answer", &[], large_answer),
    pattern("large-answer-vectored", &["--io", "vectored"], large_answer),
    pattern("chunked-answer", &[], chunked_answer),
    pattern("chunked-request", &[], chunked_request),
    pattern("no-bytes", &[], no_bytes),
    pattern("bodiless", &[], bodiless),
    pattern("failing", &[], failing),
    Pattern {
        times: Times::No,
        ..pattern("pipelined", &[], pipelined)
    },
];

/// Runs one pattern, and returns what does not match.
fn run(agent: &Agent, pattern: &Pattern, server: &mut Server) -> Vec<String> {
    println!("pattern {}", pattern.model);
    let mut client = Connection::open(&server.place).unwrap();
    let sends = (pattern.act)(&mut client, pattern.model);
    let stamps = server.stamps(sends.len());
    let rows = agent.rows(sends.len(), |row| row.model == pattern.model);
    let mut faults = Vec::new();
    for ((stamp, row), sent) in pair(&stamps, &rows).iter().zip(&sends) {
        let found = match pattern.times {
            Times::All => mismatches(stamp, sent, row),
            Times::No => size_mismatches(stamp, row),
        };
        if !found.is_empty() {
            faults.push(format!(
                "{}: {found:?}\n  {stamp:?}\n  {row:?}",
                pattern.model
            ));
        }
        if row.pid != server.pid() || row.purpose != "inference" {
            faults.push(format!("{}: {row:?}", pattern.model));
        }
    }
    faults
}

fn assert_counted(agent: &Agent, model: &str, count: usize) {
    if count > 0 {
        agent.wait_sum(
            "inferprobe_requests_total",
            &[("model", model)],
            count as f64,
        );
    }
    let counted = agent
        .metrics()
        .sum("inferprobe_requests_total", &[("model", model)]);
    assert_eq!(counted, count as f64, "{model}");
}

#[test]
fn every_pattern_on_tcp_is_measured() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut servers: Vec<Server> = PATTERNS.iter().map(|p| Server::start(p.server)).collect();
    let mut flags = Vec::new();
    for server in &servers {
        flags.extend(["--watch-port".to_owned(), server.port().to_string()]);
    }
    let agent = Agent::start(&flags);
    let mut faults = Vec::new();
    for (pattern, server) in PATTERNS.iter().zip(&mut servers) {
        faults.extend(run(&agent, pattern, server));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (pattern, server) in PATTERNS.iter().zip(&mut servers) {
        assert_counted(&agent, pattern.model, server.stamps(0).len());
    }
    let metrics = agent.metrics();
    for name in [
        "inferprobe_records_lost_total",
        "inferprobe_requests_unfinished_total",
    ] {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
    }
    agent.stop();
}

#[test]
fn every_pattern_on_a_unix_socket_is_measured() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Vec::new();
    for (index, pattern) in PATTERNS.iter().enumerate() {
        let path = folder.path().join(index.to_string());
        let mut args = vec![
            "--unix",
            path.to_str().unwrap(),
            "--tag",
            "patterns-on-unix",
        ];
        args.extend(pattern.server);
        servers.push(Server::start(&args));
    }
    let agent = Agent::start(&["--watch-exe", "reference-server.*patterns-on-unix"]);
    let mut faults = Vec::new();
    for (pattern, server) in PATTERNS.iter().zip(&mut servers) {
        for fault in run(&agent, pattern, server) {
            // On a unix socket the agent observes neither the start of a send nor the end of the connection. So a long
            // send has only a bound, and a response that ends with its connection has no last write.
            let bounded = fault.contains("[\"first write is unknown\"]")
                && pattern.model.starts_with("large-answer");
            let endless =
                fault.contains("[\"last write is unknown\"]") && pattern.model == "until-close";
            if !bounded && !endless {
                faults.push(fault);
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (pattern, server) in PATTERNS.iter().zip(&mut servers) {
        assert_counted(&agent, pattern.model, server.stamps(0).len());
    }
    agent.stop();
}
