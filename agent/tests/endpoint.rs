//! Tests the endpoint over real connections: paths, methods, negotiation, limits and shutdown.

#![expect(
    clippy::unwrap_used,
    reason = "a test panics; the helpers here are not test functions to clippy"
)]

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use inferprobe::{
    exporter::{
        endpoint::{Endpoint, ProbeHealth},
        serve,
    },
    live::Kept,
    metrics::{Format, Metrics, Selection},
};
use serde_json::Value;
use tokio::sync::oneshot;

/// Longest wait.
const DEADLINE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    endpoint: Arc<Endpoint>,
    metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(health: ProbeHealth) -> Self {
        let metrics = Arc::new(Metrics::new("vm"));
        let (history, roster) = (Arc::default(), Arc::default());
        let kept = Kept::new("vm", metrics.clone(), history, roster);
        let endpoint =
            Arc::new(Endpoint::new(metrics.clone(), health).with_api(kept, vec!["x".into()]));
        let served = endpoint.clone();
        let (stop, stopped) = oneshot::channel();
        let (send_address, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                send_address.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, served, stopped).await;
            });
        });
        Self {
            address: address.recv_timeout(DEADLINE).unwrap(),
            endpoint,
            metrics,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends one request on a connection of its own.
    fn request(&self, request_line: &str, headers: &str) -> Response {
        let mut stream = self.connect();
        send(&mut stream, request_line, headers);
        let has_body = !request_line.starts_with("HEAD ");
        read_response(&mut BufReader::new(stream), has_body)
    }

    fn get(&self, target: &str) -> Response {
        self.request(&format!("GET {target} HTTP/1.1"), "")
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

fn send(stream: &mut TcpStream, request_line: &str, headers: &str) {
    write!(stream, "{request_line}\r\nHost: x\r\n{headers}\r\n").unwrap();
}

fn read_response(stream: &mut impl BufRead, has_body: bool) -> Response {
    let mut status_line = String::new();
    stream.read_line(&mut status_line).unwrap();
    let status = status_line.split(' ').nth(1).expect("a status line");
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut response = Response {
        status: status.parse().unwrap(),
        headers,
        body: Vec::new(),
    };
    if has_body {
        let length = response.header("content-length").expect("a length").parse();
        response.body = vec![0; length.unwrap()];
        stream.read_exact(&mut response.body).unwrap();
    }
    response
}

#[test]
fn metrics_are_plain_text_by_default() {
    let server = Server::start(ProbeHealth::Off);
    for target in ["/metrics", "/metrics/", "/metrics?x=y"] {
        let response = server.get(target);
        assert_eq!(response.status, 200, "{target}");
        assert_eq!(
            response.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        assert_eq!(response.header("vary"), Some("accept, accept-encoding"));
        assert_eq!(response.header("content-encoding"), None);
        assert!(response.text().starts_with("# HELP CPUUtilization "));
        assert!(response.text().contains("\nprocess_open_fds "));
        assert!(response.text().ends_with('\n'));
    }
}

#[test]
fn openmetrics_is_served_on_request() {
    let server = Server::start(ProbeHealth::Off);
    let response = server.request(
        "GET /metrics HTTP/1.1",
        "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n",
    );
    assert_eq!(
        response.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(response.text().ends_with("\n# EOF\n"));
}

#[test]
fn gzip_holds_the_same_text() {
    let server = Server::start(ProbeHealth::Off);
    let response = server.request(
        "GET /metrics?name[]=inferprobe_build_info HTTP/1.1",
        "Accept-Encoding: gzip\r\n",
    );
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    let mut decoder = GzDecoder::new(&response.body[..]);
    decoder.read_to_string(&mut text).unwrap();
    let selection = Selection::named(["inferprobe_build_info"]);
    assert_eq!(text, server.metrics.encode(&selection, Format::Text));
}

#[test]
fn a_filter_reaches_the_exposition() {
    let server = Server::start(ProbeHealth::Off);
    server.metrics.set_cpu_pct(Some(12.5));
    let one = "# HELP CPUUtilization Torchserve prometheus gauge metric with unit: Percent\n\
               # TYPE CPUUtilization gauge\nCPUUtilization{Level=\"Host\",Hostname=\"vm\"} 12.5\n";
    for (query, expected) in [
        ("name[]=CPUUtilization", one),
        ("name%5B%5D=CPUUtilization&name%5b%5d=NoSuch", one),
        ("name[]=NoSuch", ""),
        ("name[]=GPUUtilization", ""),
    ] {
        let response = server.get(&format!("/metrics?{query}"));
        assert_eq!(response.status, 200, "{query}");
        assert_eq!(response.text(), expected, "{query}");
    }
}

#[test]
fn a_bad_escape_is_refused_as_torchserve_refuses_it() {
    let server = Server::start(ProbeHealth::Off);
    let response = server.get("/metrics?name[]=%zz");
    assert_eq!(response.status, 403);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(
        response.text(),
        "{\n  \"code\": 403,\n  \"type\": \"IllegalArgumentException\",\n  \"message\": \"bad percent escape at \
         byte 7 of the query; write a literal % as %25\"\n}\n"
    );
}

#[test]
fn other_paths_are_not_found() {
    let server = Server::start(ProbeHealth::Off);
    for target in [
        "/index.html",
        "/metricsfoo",
        "/metrics/foo",
        "/Metrics",
        "//metrics",
        "/ping",
    ] {
        let response = server.get(target);
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.header("connection"), Some("close"), "{target}");
        let kind = "\"type\": \"ResourceNotFoundException\"";
        assert!(response.text().contains(kind), "{target}");
    }
}

#[test]
fn only_get_and_head_are_allowed() {
    let server = Server::start(ProbeHealth::Attached);
    for target in ["/metrics", "/healthz"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO"] {
            let response = server.request(&format!("{method} {target} HTTP/1.1"), "");
            assert_eq!(response.status, 405, "{method} {target}");
            assert_eq!(response.header("allow"), Some("GET, HEAD"), "{method}");
        }
    }
}

#[test]
fn head_returns_the_length_and_no_body() {
    let server = Server::start(ProbeHealth::Off);
    let target = "/metrics?name[]=inferprobe_build_info";
    let length = server.get(target).body.len().to_string();
    let mut stream = server.connect();
    send(&mut stream, &format!("HEAD {target} HTTP/1.1"), "");
    send(&mut stream, "GET /healthz HTTP/1.1", "");
    let mut stream = BufReader::new(stream);
    let head = read_response(&mut stream, false);
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some(length.as_str()));
    assert_eq!(
        read_response(&mut stream, true).text(),
        "ok: probes are switched off\n"
    );
}

#[test]
fn healthz_reports_the_probes() {
    let server = Server::start(ProbeHealth::Failed("no BTF in this kernel".into()));
    let response = server.get("/healthz");
    assert_eq!(response.status, 503);
    let expected = "probes are not attached: no BTF in this kernel\n";
    assert_eq!(response.text(), expected);
    for (health, expected) in [
        (ProbeHealth::Attached, "ok: probes are attached\n"),
        (ProbeHealth::Off, "ok: probes are switched off\n"),
    ] {
        server.endpoint.set_health(health);
        let response = server.get("/healthz");
        assert_eq!((response.status, response.text()), (200, expected));
    }
}

#[test]
fn junk_and_oversize_heads_harm_only_their_connection() {
    let server = Server::start(ProbeHealth::Off);
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 * 1024));
    let long_header = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(200_000));
    for junk in [
        &b"\x16\x03\x01\x02\x00\x01\x00\xfe"[..],
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n\r\n",
        long_path.as_bytes(),
        long_header.as_bytes(),
    ] {
        let mut stream = server.connect();
        // The server may close before it has read everything.
        let _ = stream.write_all(junk);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{junk:?}");
    }
    assert_eq!(server.get("/metrics").status, 200);
}

#[test]
fn many_slow_clients_do_not_block_a_scrape() {
    let server = Server::start(ProbeHealth::Off);
    let mut slow: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").unwrap();
            stream
        })
        .collect();
    assert_eq!(server.get("/metrics").status, 200);
    let oldest = &mut slow[0];
    let closed = match oldest.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(err) => err.kind() == ErrorKind::ConnectionReset,
    };
    assert!(closed, "the oldest connection is closed");
}

#[test]
fn many_readers_do_not_close_the_connection_of_a_scrape() {
    let server = Server::start(ProbeHealth::Off);
    let mut scrapes = BufReader::new(server.connect());
    let mut scrape = || {
        send(scrapes.get_mut(), "GET /metrics HTTP/1.1", "");
        read_response(&mut scrapes, true).status
    };
    assert_eq!(scrape(), 200);
    let mut readers = Vec::new();
    for _ in 0..200 {
        let mut reader = BufReader::new(server.connect());
        send(reader.get_mut(), "GET /api/v1/live HTTP/1.1", "");
        assert_eq!(read_response(&mut reader, true).status, 200);
        readers.push(reader);
    }
    assert_eq!(scrape(), 200);
    // The latest readers are still connected too.
    let latest = readers.last_mut().unwrap();
    send(latest.get_mut(), "GET /api/v1/live HTTP/1.1", "");
    assert_eq!(read_response(latest, true).status, 200);
}

#[test]
fn shutdown_closes_idle_connections_within_a_second() {
    let mut server = Server::start(ProbeHealth::Off);
    let mut idle = BufReader::new(server.connect());
    send(idle.get_mut(), "GET /healthz HTTP/1.1", "");
    assert_eq!(read_response(&mut idle, true).status, 200);
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn live_is_json_and_shared_by_many_readers() {
    let server = Server::start(ProbeHealth::Attached);
    let response = server.get("/api/v1/live");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let live: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(live["source"]["api_version"], 1);
    assert_eq!(live["probes"]["state"], "attached");
    assert_eq!(live["coverage"]["ratio"], Value::Null);
    let packed = server.request("GET /api/v1/live HTTP/1.1", "Accept-Encoding: gzip\r\n");
    let mut text = String::new();
    GzDecoder::new(&*packed.body)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), live);
}

#[test]
fn requests_and_history_are_json() {
    let server = Server::start(ProbeHealth::Attached);
    for (target, key) in [
        ("/api/v1/requests", "requests"),
        ("/api/v1/requests?after=5&limit=10", "requests"),
        ("/api/v1/history", "windows"),
        (
            "/api/v1/history?model=a%20b&version=1&server=s&port=80&pod=p&from=7",
            "windows",
        ),
    ] {
        let response = server.get(target);
        assert_eq!(response.status, 200, "{target}");
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(answer[key], Value::Array(Vec::new()), "{target}");
        assert_eq!(answer["source"]["hostname"], "vm", "{target}");
    }
}

#[test]
fn api_refuses_what_it_does_not_know() {
    let server = Server::start(ProbeHealth::Off);
    for (request_line, status) in [
        ("GET /api/v1/live?model=x HTTP/1.1", 400),
        ("GET /api/v1/live?%zz HTTP/1.1", 400),
        ("GET /api/v1/requests?limit=many HTTP/1.1", 400),
        ("GET /api/v1/requests?model=x HTTP/1.1", 400),
        ("GET /api/v1/history?model=a&model=b HTTP/1.1", 400),
        ("GET /api/v2/live HTTP/1.1", 404),
        ("GET /api/v1/ HTTP/1.1", 404),
        ("POST /api/v1/live HTTP/1.1", 405),
    ] {
        let response = server.request(request_line, "");
        assert_eq!(response.status, status, "{request_line}");
        let refusal: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(refusal["code"], status, "{request_line}");
    }
}

#[test]
fn page_is_one_document_that_runs_nothing_else() {
    let server = Server::start(ProbeHealth::Attached);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let packed = server.request("GET / HTTP/1.1", "Accept-Encoding: gzip\r\n");
    let mut text = String::new();
    GzDecoder::new(&*packed.body)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, page.text());
    assert_eq!(server.request("HEAD / HTTP/1.1", "").status, 200);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let response = server.request(&format!("{method} / HTTP/1.1"), "");
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("GET, HEAD"));
    }
}

#[test]
fn page_and_api_are_not_served_under_a_foreign_name() {
    let server = Server::start(ProbeHealth::Attached);
    let status = |path: &str, host: &str| {
        let mut stream = server.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        read_response(&mut BufReader::new(stream), true)
    };
    for path in ["/", "/api/v1/live", "/api/v1/requests", "/api/v1/history"] {
        for (host, expected) in [
            ("127.0.0.1:8082", 200),
            ("localhost", 200),
            ("x", 200),
            ("rebound.example", 403),
            ("x.rebound.example:8082", 403),
        ] {
            assert_eq!(status(path, host).status, expected, "{path} {host}");
        }
    }
    let refusal = status("/", "rebound.example");
    assert!(
        refusal.text().contains("--allowed-host"),
        "{}",
        refusal.text()
    );
    // Prometheus may know the host by any name.
    for path in ["/metrics", "/healthz"] {
        assert_eq!(status(path, "rebound.example").status, 200, "{path}");
    }
}
