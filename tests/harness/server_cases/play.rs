//! Plays the client's side of a case, and records its requests, sends and responses.

use std::{io, ops::Range, time::Duration};

use crate::{
    client::{Connection, Response, request},
    clock::{monotonic_ns, wait_within},
    server::stamps::Call,
    server_cases::{
        expected::{Ending, Expected, Lenient, Sent},
        hosts::Kind,
    },
    socket_queues::unread_from,
};

/// Longest wait until a server has read what was sent; some do not read while they are busy.
const READ_LIMIT: Duration = Duration::from_millis(500);

/// One case on one connection.
pub struct Play {
    /// What the server is.
    pub kind: Kind,
    /// The client's end; `None` once it was reset.
    pub client: Option<Connection>,
    /// Its port, which the server calls the peer's.
    pub local_port: u16,
    /// Time span of its rows, because ports are reused.
    pub time_ns: Range<u64>,
    /// Every request, in order.
    pub expected: Vec<Expected>,
    /// Every send, in order.
    pub sends: Vec<Sent>,
    name: &'static str,
    port: u16,
    made: usize,
    sent: usize,
    answered: usize,
}

impl Play {
    /// Connects for the case `name`.
    pub fn open(name: &'static str, kind: Kind, port: u16) -> Self {
        let opened_ns = monotonic_ns();
        let client = Connection::open_tcp(port).expect("the server listens");
        Self {
            kind,
            local_port: client.local_port().expect("TCP has ports"),
            client: Some(client),
            time_ns: opened_ns..u64::MAX,
            expected: Vec::new(),
            sends: Vec::new(),
            name,
            port,
            made: 0,
            sent: 0,
            answered: 0,
        }
    }

    /// Makes a request for a new model, with a response as `query` says.
    pub fn post(&mut self, query: &str, body_bytes: usize) -> Vec<u8> {
        self.ask("POST", query, &[], &vec![b'x'; body_bytes])
    }

    /// As [`Play::post`], with every part of a request.
    pub fn ask(
        &mut self,
        method: &'static str,
        query: &str,
        fields: &[&str],
        body: &[u8],
    ) -> Vec<u8> {
        let target = format!("/v1/models/{}:predict?{query}", self.next_model());
        self.ask_at(method, &target, fields, body)
    }

    /// As [`Play::ask`], for any target.
    pub fn ask_at(
        &mut self,
        method: &'static str,
        target: &str,
        fields: &[&str],
        body: &[u8],
    ) -> Vec<u8> {
        let case = self.next_case();
        let mark = format!("X-Case: {case}");
        let fields = [fields, &[&mark]].concat();
        let bytes = request(method, target, &fields, body);
        self.note(method, target, &bytes);
        bytes
    }

    /// Records a request with these bytes as the next one on the connection.
    pub fn note(&mut self, method: &'static str, target: &str, bytes: &[u8]) {
        let status = target
            .split(['?', '&'])
            .find_map(|pair| pair.strip_prefix("status=")?.parse().ok())
            .unwrap_or(200);
        self.expected.push(Expected {
            case: self.next_case(),
            method,
            model: self.next_model(),
            purpose: "inference",
            status,
            code: status,
            place: self.made..self.made + bytes.len(),
            ending: Ending::Answered,
            lenient: Lenient::No,
            stream_ns: stream_ns(target),
            response_bytes: None,
            received_ns: None,
        });
        self.made += bytes.len();
    }

    /// Returns the name by which the server knows the next request.
    pub fn next_case(&self) -> String {
        format!("{}/{}", self.name, self.expected.len())
    }

    /// Returns the model of the next request; models of a connection differ, so that a wrong pairing shows.
    pub fn next_model(&self) -> String {
        format!("m{}", self.expected.len())
    }

    /// Returns the latest request.
    pub fn latest(&mut self) -> &mut Expected {
        self.expected.last_mut().expect("a request was made")
    }

    /// Records bytes between requests.
    pub fn filler(&mut self, bytes: usize) {
        self.made += bytes;
    }

    /// Sends bytes in one call; requests are sent in the order in which they were made. Panics if the server is gone.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server reads");
    }

    /// As [`Play::send`], to a server that may have ended the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let client = self.client.as_mut().expect("the client is there");
        let call = client.send(bytes)?;
        self.note_sent(bytes.len(), call);
        Ok(())
    }

    /// Records that this many more bytes were sent.
    pub fn note_sent(&mut self, bytes: usize, call: Call) {
        let place = self.sent..self.sent + bytes;
        self.sent = place.end;
        self.sends.push(Sent { place, call });
    }

    /// Sends parts, each once the server has read the one before.
    pub fn send_parts(&mut self, parts: &[&[u8]]) {
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.until_read();
            }
            self.send(part);
        }
    }

    /// Waits until the server has read all that was sent; some servers do not while they are busy.
    pub fn until_read(&self) {
        let unread = || unread_from(self.port, self.local_port);
        let _ = wait_within(READ_LIMIT, || (unread() == 0).then_some(()));
    }

    /// Reads the next response; it belongs to the oldest request without one. Panics if it is not the right one.
    pub fn receive(&mut self) {
        let case = self.expected[self.answered].case.clone();
        let status = self.expected[self.answered].status;
        let answer = self.try_receive();
        let answer = answer.unwrap_or_else(|err| panic!("{case} is answered: {err}"));
        assert_eq!(answer.status, status, "{case}: {:?}", answer.head);
    }

    /// As [`Play::receive`], from a server that may not respond. Whatever it responds, the agent must report.
    pub fn try_receive(&mut self) -> io::Result<Response> {
        let client = self.client.as_mut().expect("the client is there");
        let expected = &mut self.expected[self.answered];
        let answer = client.receive(expected.method == "HEAD")?;
        expected.received_ns = Some(monotonic_ns());
        expected.response_bytes = Some(answer.bytes);
        (expected.status, expected.code) = (answer.status, answer.status);
        self.answered += 1;
        Ok(answer)
    }

    /// Sends a request whole, and reads its response.
    pub fn exchange(&mut self, bytes: &[u8]) {
        self.send(bytes);
        self.receive();
    }

    /// Resets the connection.
    pub fn reset(&mut self) {
        let client = self.client.take().expect("the client is there");
        client.reset().expect("a socket of ours");
    }

    /// Expects whatever the server responds next, or `otherwise` without a response.
    pub fn receive_or(&mut self, otherwise: Ending) {
        let open = self.answered;
        if self.try_receive().is_ok() {
            self.expected[open].lenient = Lenient::Refused;
        } else {
            for expected in &mut self.expected[open..] {
                expected.ending = otherwise;
            }
        }
    }
}

/// Returns the least time from the first part of a response to its last, by the pauses in its target.
fn stream_ns(target: &str) -> u64 {
    let number = |name: &str| {
        let pair = target
            .split(['?', '&'])
            .find_map(|pair| pair.strip_prefix(name));
        pair.and_then(|value| value.parse::<u64>().ok())
    };
    let gaps = number("chunks=").unwrap_or(1).saturating_sub(1);
    gaps * number("gap_ms=").unwrap_or(0) * 1_000_000
}
