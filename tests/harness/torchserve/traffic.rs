//! Sends requests to a TorchServe: every outcome that its counting rules distinguish.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::{
    client::{Connection, request},
    clock::{monotonic_ns, wait_for},
};

/// Longest wait for a number of responses while traffic goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Target, body and expected status of requests that differ in how TorchServe counts them.
pub const EVERY_ROW: [(&str, &str, u16); 20] = [
    ("/predictions/tiny", "{}", 200),
    ("/predictions/twin", r#"{"sleep_ms": 2}"#, 200),
    ("/predictions/tiny/1.0", r#"{"sleep_ms": 1}"#, 200),
    ("/predictions/twin", r#"{"pad_bytes": 300000}"#, 200),
    ("/predictions/tiny", r#"{"stream": 3, "gap_ms": 1}"#, 200),
    ("/explanations/tiny", "{}", 503),
    ("/predictions/unknown", "{}", 404),
    ("/predictions/tiny/9.9", "{}", 404),
    ("/nowhere", "{}", 404),
    ("//predictions/tiny", "{}", 404),
    ("/predictions/tiny", r#"{"fail_code": 400}"#, 400),
    ("/predictions/tiny", r#"{"fail_code": 404}"#, 404),
    ("/predictions/tiny", r#"{"fail_code": 413}"#, 507),
    ("/predictions/twin/1.0", r#"{"fail_code": 302}"#, 302),
    ("/predictions/tiny", r#"{"set_code": 400}"#, 400),
    ("/predictions/tiny", r#"{"set_code": 404}"#, 404),
    ("/predictions/twin", r#"{"set_code": 503}"#, 503),
    ("/predictions/tiny", r#"{"answer": "raise"}"#, 503),
    ("/predictions/twin", r#"{"answer": "memory"}"#, 507),
    ("/predictions/tiny", r#"{"answer": "not-a-list"}"#, 503),
];

/// A client that reconnects after TorchServe has closed the connection, as it does after each error of its own.
pub struct Client {
    port: u16,
    connection: Option<Connection>,
}

impl Client {
    /// A client of the TorchServe endpoint at `port`.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            connection: None,
        }
    }

    /// Sends one request, and returns the status of the response.
    pub fn status(&mut self, method: &str, target: &str, body: &str) -> u16 {
        let fields = ["Content-Type: application/json"];
        let bytes = request(method, target, &fields, body.as_bytes());
        let connection = self.connection.get_or_insert_with(|| {
            Connection::open_tcp(self.port).expect("TorchServe takes connections")
        });
        let (_, answer) = connection
            .exchange(&bytes)
            .unwrap_or_else(|err| panic!("{method} {target} {body}: {err}"));
        if answer.head.field("connection") == Some("close") {
            self.connection = None;
        }
        answer.status
    }

    /// Asks `model` to work for `sleep_ms`, which must succeed.
    pub fn predict(&mut self, model: &str, sleep_ms: u32) {
        let target = format!("/predictions/{model}");
        let body = format!(r#"{{"sleep_ms": {sleep_ms}}}"#);
        assert_eq!(self.status("POST", &target, &body), 200, "{target}");
    }
}

/// Lets each of `clients` send all of `requests`, `rounds` times, and then three requests about the server. Returns how
/// many requests were sent.
pub fn send(
    ports: super::Ports,
    requests: &[(&str, &str, u16)],
    clients: usize,
    rounds: usize,
) -> usize {
    thread::scope(|scope| {
        for start in 0..clients {
            scope.spawn(move || {
                let mut inference = Client::new(ports.inference);
                let mut management = Client::new(ports.management);
                for index in 0..rounds * requests.len() {
                    let (target, body, status) = requests[(start + index) % requests.len()];
                    let got = inference.status("POST", target, body);
                    assert_eq!(got, status, "{target} {body}");
                }
                assert_eq!(inference.status("GET", "/ping", ""), 200);
                assert_eq!(management.status("GET", "/models/tiny", ""), 200);
                assert_eq!(management.status("GET", "/models/unknown", ""), 404);
            });
        }
    });
    clients * (rounds * requests.len() + 3)
}

/// A response that a client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Status code.
    pub status: u16,
    /// When the request was about to be sent, ns of CLOCK_MONOTONIC.
    pub asked_ns: u64,
    /// When the response was complete, ns of CLOCK_MONOTONIC.
    pub answered_ns: u64,
}

/// Traffic that goes on until it is dropped.
pub struct Traffic<'a> {
    answered: &'a AtomicUsize,
    ended: &'a AtomicBool,
}

impl Traffic<'_> {
    /// Waits until `count` more requests were answered.
    pub fn await_answers(&self, count: usize) {
        let enough = self.answered.load(Ordering::Relaxed) + count;
        wait_for(&format!("{count} answers"), PATIENCE, || {
            (self.answered.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Lets each of `clients` ask `model` repeatedly to work for `sleep_ms` while `act` runs, and returns all responses.
pub fn while_asking(
    port: u16,
    model: &str,
    clients: usize,
    sleep_ms: u32,
    act: impl FnOnce(&Traffic<'_>),
) -> Vec<Answered> {
    let (answered, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let target = format!("/predictions/{model}");
    let body = format!(r#"{{"sleep_ms": {sleep_ms}}}"#);
    let ask = || {
        let mut client = Client::new(port);
        let mut answers = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            let asked_ns = monotonic_ns();
            let status = client.status("POST", &target, &body);
            answers.push(Answered {
                status,
                asked_ns,
                answered_ns: monotonic_ns(),
            });
            answered.fetch_add(1, Ordering::Relaxed);
        }
        answers
    };
    thread::scope(|scope| {
        let traffic = Traffic {
            answered: &answered,
            ended: &ended,
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
        act(&traffic);
        drop(traffic);
        let answers = clients
            .into_iter()
            .map(|client| client.join().expect("a client ends with its answers"));
        answers.flatten().collect()
    })
}
