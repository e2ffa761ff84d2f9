//! Covers responses whose end cannot be seen, and what follows them on the same connection.

use inferprobe_tests::{
    agent::{Agent, LOG_LIMIT, request_log::Logged},
    check_times::{mismatches, size_mismatches},
    client::{Connection, request},
    require_kernel::require_kernel,
    server::{
        Server,
        stamps::{Call, Stamp},
    },
};

/// One connection between a client and a server that an agent watches.
struct Scene {
    server: Server,
    agent: Agent,
    client: Connection,
    model: &'static str,
    asked: usize,
}

impl Scene {
    fn new(model: &'static str) -> Self {
        let server = Server::start(&[]);
        let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
        let client = Connection::open(&server.place).unwrap();
        Self {
            server,
            agent,
            client,
            model,
            asked: 0,
        }
    }

    /// Sends one request. Returns its send, the server's stamp and the agent's row, which must come within a second.
    fn ask(&mut self, query: &str) -> (Call, Stamp, Logged) {
        let target = format!("/predictions/{}?{query}", self.model);
        let bytes = request("POST", &target, &[], &[b'x'; 100]);
        let (sent, _) = self.client.exchange(&bytes).unwrap();
        self.asked += 1;
        let wanted = |row: &Logged| row.model == self.model;
        let rows = self.agent.rows_within(LOG_LIMIT, self.asked, wanted);
        assert_eq!(rows.len(), self.asked, "{rows:?}");
        let stamps = self.server.stamps(self.asked);
        (
            sent,
            stamps[self.asked - 1].clone(),
            rows[self.asked - 1].clone(),
        )
    }

    /// Sends one request that must be measured in full.
    fn ask_in_full(&mut self, query: &str) {
        let (sent, stamp, row) = self.ask(query);
        assert_eq!(
            mismatches(&stamp, &sent, &row),
            Vec::<String>::new(),
            "{row:?}"
        );
    }

    /// Asserts that exactly the sent requests are counted.
    fn end(self) {
        let metrics = self.agent.metrics();
        for (name, expected) in [
            ("inferprobe_requests_total", self.asked as f64),
            ("inferprobe_requests_unfinished_total", 0.0),
            ("inferprobe_records_lost_total", 0.0),
        ] {
            assert_eq!(metrics.sum(name, &[]), expected, "{name}");
        }
        self.agent.stop();
    }
}

#[test]
fn trailers_end_a_response_on_an_idle_connection() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut scene = Scene::new("trailers");
    for _ in 0..2 {
        scene.ask_in_full("status=201&chunks=3&body=40&gap_ms=5&trailers=1");
        scene.ask_in_full("sleep_ms=3&body=500");
    }
    scene.end();
}

#[test]
fn response_with_a_long_head_is_measured_in_full() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut scene = Scene::new("long-head");
    for query in [
        "head_bytes=1025",
        "head_bytes=3000",
        "head_bytes=3000&split=1&body=5000",
        "head_bytes=3000&write_size=700",
        "head_bytes=3000&write_size=1024&body=100000",
        "head_bytes=9000&write_size=2000",
        "head_bytes=16000&body=100000",
        "head_bytes=16000&split=1&body=100000",
        "head_bytes=6000&chunks=3&body=40&gap_ms=5",
        "head_bytes=6000&chunks=3&body=40&gap_ms=700&trailers=1",
    ] {
        scene.ask_in_full(&format!("status=201&{query}"));
        scene.ask_in_full("sleep_ms=3&body=500");
    }
    scene.end();
}

#[test]
fn response_with_a_head_too_long_to_copy_keeps_its_status() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut scene = Scene::new("longer-head");
    for query in [
        "head_bytes=20000",
        "head_bytes=20000&split=1&body=5000",
        "head_bytes=20000&write_size=700",
    ] {
        let (_, stamp, row) = scene.ask(&format!("status=201&{query}"));
        assert_eq!(row.last_write_ns, None, "{query}: {row:?}");
        let mismatches = size_mismatches(&stamp, &row);
        assert_eq!(mismatches, Vec::<String>::new(), "{query}: {row:?}");
        scene.ask_in_full("sleep_ms=3&body=500");
    }
    scene.end();
}

#[test]
fn slow_stream_after_a_head_too_long_to_copy_is_one_response() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let mut scene = Scene::new("slow-stream");
    // Its pauses are longer than the time-out after which the agent regards it as finished.
    let (_, stamp, row) = scene.ask("status=201&head_bytes=20000&chunks=2&body=40&gap_ms=700");
    assert_eq!((row.status, row.last_write_ns), (201, None), "{row:?}");
    assert_eq!(row.request_bytes, stamp.request_bytes, "{row:?}");
    for _ in 0..2 {
        scene.ask_in_full("sleep_ms=3&body=500");
    }
    scene.end();
}
