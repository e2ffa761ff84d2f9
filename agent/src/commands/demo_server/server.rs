//! Serves the example models over HTTP/1.1: a healthy answer for most requests, 503 for one in fifty.
//!
//! `demo_server` opens the socket.
//! Does not depend on: the client that sends the requests.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, time::sleep};

use crate::commands::demo_server::model::MODELS;

/// One request in this many is answered 503.
const FAILURE_PERIOD: u64 = 50;

/// Longest request body that is read, bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Accepts and serves connections until accepting fails.
pub(super) async fn serve(listener: &TcpListener) -> Result<()> {
    let requests = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await.context("accept a connection")?;
        let requests = Arc::clone(&requests);
        let service = service_fn(move |request| {
            let number = requests.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, Infallible>(respond(request, number).await) }
        });
        tokio::spawn(async move {
            // An error here is a client that disconnected, which needs no action.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Answers the `number`th request, after the time that its model takes.
async fn respond(request: Request<Incoming>, number: u64) -> Response<Full<Bytes>> {
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
    sleep(model.handler_time(number)).await;
    if number % FAILURE_PERIOD == FAILURE_PERIOD - 1 {
        return json(StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"no worker"}"#);
    }
    json(StatusCode::OK, model.response)
}

fn json(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hyper::header::HOST;

    use super::*;
    use crate::commands::demo_server::client::{connect, send};

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
    async fn both_models_answer_json_on_one_connection() {
        let address = started().await;
        let mut sender = connect(address).await.unwrap();
        for model in &MODELS {
            let (status, body) = send(&mut sender, address, model).await.unwrap();
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
    async fn one_request_in_fifty_is_answered_503() {
        let address = started().await;
        let mut sender = connect(address).await.unwrap();
        let mut unavailable = 0;
        for _ in 0..FAILURE_PERIOD {
            let (status, _) = send(&mut sender, address, &MODELS[0]).await.unwrap();
            unavailable += u32::from(status == StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(unavailable, 1);
    }
}
