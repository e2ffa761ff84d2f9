//! The example inference server: two invented models, and a gentle stream of requests to itself.
//!
//! Runs in a process of its own, so that it is measured like any other server; it knows nothing of what measures it.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cli::DemoArgs;

/// What stands before the port in the line that tells it.
const LISTENING: &str = "demo-server listening on 127.0.0.1:";

/// One request in this many is answered 503.
const FAILURE_PERIOD: u64 = 50;

/// Longest request body that is read, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// An invented model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Model {
    path: &'static str,
    /// Time that it takes in the middle; single requests take 20 % less to 20 % more.
    typical: Duration,
    /// Time between two of the requests that the server sends to itself.
    period: Duration,
    question: &'static str,
    response: &'static str,
}

/// Together they get five requests a second.
static MODELS: [Model; 2] = [
    Model {
        path: "/predictions/tiny",
        typical: Duration::from_millis(5),
        period: Duration::from_millis(250),
        question: r#"{"text":"a fine day"}"#,
        response: r#"{"label":"positive","score":0.98}"#,
    },
    Model {
        path: "/v2/models/resnet/versions/2/infer",
        typical: Duration::from_millis(40),
        period: Duration::from_millis(1000),
        question: r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[0,1,2,3]}]}"#,
        response: r#"{"model_name":"resnet","model_version":"2","outputs":[{"name":"class","datatype":"INT64","shape":[1],"data":[281]}]}"#,
    },
];

/// Serves until the process is ended: by a signal, or with the process that started it.
pub async fn run(args: &DemoArgs) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("tie demo-server to its parent")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} (--port {})", args.port))?;
    let address = listener.local_addr().context("read back the port")?;
    // A parent that died before the signal was asked for has closed its end: this write then fails.
    writeln!(io::stdout(), "{LISTENING}{}", address.port()).context("print the port")?;
    for model in &MODELS {
        tokio::spawn(send_forever(address, model));
    }
    serve(&listener).await
}

/// Starts `program demo-server` on a free port; returns the process and the port.
///
/// The child is ended when the calling thread ends, not only the process: call this from a thread that stays.
pub fn spawn(program: &Path) -> io::Result<(Child, u16)> {
    let mut child = Command::new(program)
        .args(["demo-server", "--port", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().expect("standard output was piped");
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line);
    if let Some(port) = read.is_ok().then(|| parse_port(&line)).flatten() {
        return Ok((child, port));
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::other(format!(
        "demo-server printed {:?} where its port was expected",
        line.trim_end()
    )))
}

fn parse_port(line: &str) -> Option<u16> {
    line.trim_end().strip_prefix(LISTENING)?.parse().ok()
}

async fn serve(listener: &TcpListener) -> anyhow::Result<()> {
    let requests = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await.context("accept a connection")?;
        let requests = Arc::clone(&requests);
        let service = service_fn(move |request| {
            let number = requests.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, Infallible>(response(request, number).await) }
        });
        tokio::spawn(async move {
            // A client that goes away midway is its own affair.
            let _ = server::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Answers the `number`th request, after the time that its model takes.
async fn response(request: Request<Incoming>, number: u64) -> Response<Full<Bytes>> {
    if request.method() == Method::GET && request.uri().path() == "/ping" {
        return json(StatusCode::OK, r#"{"status":"Healthy"}"#);
    }
    let path = request.uri().path();
    let found = MODELS.iter().find(|model| model.path == path);
    let Some(model) = found.filter(|_| request.method() == Method::POST) else {
        return json(StatusCode::NOT_FOUND, r#"{"error":"no such model"}"#);
    };
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES);
    if body.collect().await.is_err() {
        return json(
            StatusCode::PAYLOAD_TOO_LARGE,
            r#"{"error":"more than 1 MiB, or cut off"}"#,
        );
    }
    sleep(handler_time(model.typical, number)).await;
    if number % FAILURE_PERIOD == FAILURE_PERIOD - 1 {
        return json(StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"no worker"}"#);
    }
    json(StatusCode::OK, model.response)
}

fn json(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    response
}

/// `typical` scaled by 0.8 to 1.2, as the number of the request has it.
fn handler_time(typical: Duration, number: u64) -> Duration {
    // Multiplication by a large odd number spreads the numbers; the top bits are the well-mixed ones.
    let spread = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 41;
    typical * u32::try_from(80 + spread).expect("below 121") / 100
}

/// Sends requests over one connection, and over a new one when that breaks.
async fn send_forever(address: SocketAddr, model: &'static Model) {
    let mut ticks = interval(model.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(mut sender) = connect(address).await else {
            continue;
        };
        while ask(&mut sender, address, model).await.is_ok() {
            ticks.tick().await;
        }
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<client::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends one question and reads the answer to its end.
async fn ask(
    sender: &mut client::SendRequest<Full<Bytes>>,
    address: SocketAddr,
    model: &Model,
) -> anyhow::Result<(StatusCode, Bytes)> {
    sender.ready().await?;
    let request = Request::post(model.path)
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from_static(model.question.as_bytes())))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn started() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { serve(&listener).await });
        address
    }

    async fn status_of(address: SocketAddr, method: Method, path: &str) -> StatusCode {
        let mut sender = connect(address).await.unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .body(Full::default())
            .unwrap();
        sender.send_request(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn both_models_response_json_on_one_connection() {
        let address = started().await;
        let mut sender = connect(address).await.unwrap();
        for model in &MODELS {
            let (status, body) = ask(&mut sender, address, model).await.unwrap();
            assert_eq!(status, StatusCode::OK);
            assert_eq!(body, model.response);
            serde_json::from_slice::<serde_json::Value>(&body).unwrap();
        }
    }

    #[tokio::test]
    async fn paths_and_methods_of_no_model_are_not_found() {
        let address = started().await;
        for (method, path, expected) in [
            (Method::GET, "/ping", StatusCode::OK),
            (Method::POST, "/predictions/huge", StatusCode::NOT_FOUND),
            (Method::POST, "/predictions/tiny/2", StatusCode::NOT_FOUND),
            (Method::GET, "/predictions/tiny", StatusCode::NOT_FOUND),
        ] {
            let status = status_of(address, method.clone(), path).await;
            assert_eq!(status, expected, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn one_request_in_fifty_is_refused() {
        let address = started().await;
        let mut sender = connect(address).await.unwrap();
        let mut refused = 0;
        for _ in 0..FAILURE_PERIOD {
            let (status, _) = ask(&mut sender, address, &MODELS[0]).await.unwrap();
            refused += u32::from(status == StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(refused, 1);
    }

    #[test]
    fn handler_times_vary_by_a_fifth_to_both_sides() {
        let times: Vec<_> = (0..1000)
            .map(|number| handler_time(Duration::from_millis(100), number))
            .collect();
        assert_eq!(times.iter().min(), Some(&Duration::from_millis(80)));
        assert_eq!(times.iter().max(), Some(&Duration::from_millis(120)));
    }

    #[test]
    fn the_port_is_read_from_its_line_alone() {
        assert_eq!(
            parse_port("demo-server listening on 127.0.0.1:8123\n"),
            Some(8123)
        );
        for line in [
            "",
            "\n",
            "error: listen",
            "demo-server listening on 127.0.0.1:",
        ] {
            assert_eq!(parse_port(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_program_that_prints_no_port_is_an_error() {
        let err = spawn(Path::new("/bin/echo")).unwrap_err();
        assert_eq!(
            err.to_string(),
            "demo-server printed \"demo-server --port 0\" where its port was expected"
        );
    }
}
