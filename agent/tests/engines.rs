//! Asks a small HTTP server that serves a page in vLLM's format, in place of a vLLM, and compares what both sides say.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use inferprobe::{
    collectors::engines,
    discovery::roster::{Member, Roster, ServedTimes},
    history::History,
    identity::{Identity, Replica},
    metrics::{Format, Metrics, Selection},
};

const PAGE: &str = include_str!("engines/vllm.txt");
const INTERVAL: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(20);

/// Held while a listener of this process is asked: all of them would be.
static ONLY_LISTENER: Mutex<()> = Mutex::new(());

/// A collector that asks the only listener of this process.
struct Asking {
    server: Option<JoinHandle<()>>,
    address: SocketAddr,
    _only_listener: MutexGuard<'static, ()>,
    metrics: Arc<Metrics>,
    /// The response of the server.
    response: Arc<Mutex<Vec<u8>>>,
    /// Requests in flight, as the kernel would show them.
    in_flight: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Asking {
    fn start(response: Vec<u8>) -> Self {
        let only_listener = ONLY_LISTENER.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (response, ends) = (
            Arc::new(Mutex::new(response)),
            Arc::new(AtomicBool::new(false)),
        );
        let server = {
            let (response, ends) = (response.clone(), ends.clone());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                    let response = response.lock().unwrap().clone();
                    respond(stream.unwrap(), &response);
                }
            })
        };
        let asking = Self {
            server: Some(server),
            address,
            _only_listener: only_listener,
            metrics: Arc::new(Metrics::new("vm")),
            response,
            in_flight: Arc::new(AtomicU64::new(21)),
            ends,
        };
        asking.serve_scrapes();
        let roster = Arc::new(Roster::default());
        let member = Member {
            server: "chat".into(),
            replica: Replica::default(),
            model: "m".into(),
            is_loaded: false,
            recognised: Some("vllm".into()),
        };
        let members = HashMap::from([(std::process::id(), member)]);
        roster.publish(members, ServedTimes::new());
        engines::spawn(
            &asking.metrics,
            Arc::new(History::default()),
            INTERVAL,
            roster,
        )
        .unwrap();
        asking
    }

    /// Counts requests in flight in place of the event loop.
    fn serve_scrapes(&self) {
        let (metrics, in_flight, ends) = (
            self.metrics.clone(),
            self.in_flight.clone(),
            self.ends.clone(),
        );
        metrics.on_demand.attend(true);
        thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                if let Some(number) = metrics.on_demand.asked() {
                    let identity = Identity {
                        model: "m".into(),
                        version: "default".into(),
                        server: "chat".into(),
                        replica: Replica::default(),
                    };
                    let open = in_flight.load(Ordering::Relaxed);
                    metrics.set_in_flight(&BTreeMap::from([(identity, open)]));
                    metrics.on_demand.serve(number);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
    }

    fn await_line(&self, line: &str) {
        let deadline = Instant::now() + DEADLINE;
        let (name, _) = line.split_once(['{', ' ']).unwrap();
        loop {
            let text = self.metrics.encode(&Selection::named([name]), Format::Text);
            if text.lines().any(|one| one.starts_with(line)) {
                return;
            }
            assert!(Instant::now() < deadline, "no {line:?} in {text}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn lines(&self, name: &str) -> usize {
        let text = self.metrics.encode(&Selection::named([name]), Format::Text);
        text.lines().filter(|line| !line.starts_with('#')).count()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes the server, so that its listener is closed.
        let _ = TcpStream::connect(self.address);
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

fn respond(mut stream: TcpStream, response: &[u8]) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
        head.extend(byte);
    }
    // The client may leave before the end of a response that is too large.
    let _ = stream.write_all(response);
}

fn page(text: &str) -> Vec<u8> {
    let length = text.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}").into_bytes()
}

#[test]
fn what_an_engine_says_is_exported_beside_what_the_kernel_shows() {
    let asking = Asking::start(page(PAGE));
    let labels = r#"{server="chat",engine="vllm",namespace="",pod="",container=""}"#;
    for (name, value) in [
        ("requests_running", "8.0"),
        ("requests_waiting", "13.0"),
        ("kv_cache_ratio", "0.9875"),
        ("requests_in_flight", "21.0"),
        ("preemptions_total", "0.0"),
    ] {
        asking.await_line(&format!("inferprobe_engine_{name}{labels} {value}"));
    }
    assert_eq!(asking.lines("inferprobe_engine_differences_total"), 0);
    *asking.response.lock().unwrap() = page(&PAGE.replace("\"} 21.0", "\"} 30.0"));
    asking.await_line(&format!("inferprobe_engine_preemptions_total{labels} 9.0"));
    asking.in_flight.store(3, Ordering::Relaxed);
    asking.await_line(&format!("inferprobe_engine_differences_total{labels} "));
}

#[test]
fn servers_without_figures_are_counted_and_export_nothing() {
    let large = vec![b'x'; 5 << 20];
    let large = [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5242880\r\n\r\n"[..],
        &large,
    ]
    .concat();
    for (response, outcome) in [
        (page("process_cpu_seconds_total 3\n"), "no_figures"),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "no_page",
        ),
        (b"SSH-2.0-server\r\n\r\n".to_vec(), "no_http"),
        (large, "too_large"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec(),
            "no_http",
        ),
    ] {
        let asking = Asking::start(response);
        let labels = format!(r#"{{server="chat",outcome="{outcome}","#);
        asking.await_line(&format!("inferprobe_engine_asks_total{labels}"));
        assert_eq!(
            asking.lines("inferprobe_engine_requests_running"),
            0,
            "{outcome}"
        );
    }
}
