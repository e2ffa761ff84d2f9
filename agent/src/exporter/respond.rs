//! One request to one answer. Knows paths, methods and headers; connections are its caller's.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Bytes,
    header::{
        ACCEPT, ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName,
        HeaderValue, VARY,
    },
};

use crate::exporter::{negotiate, query, source::MetricsSource};

/// An answer with its body whole, so that hyper sets its length.
pub(crate) type TextResponse = Response<Full<Bytes>>;

/// The answer to a request; its body is not looked at.
pub(crate) fn respond<B>(pages: &impl MetricsSource, request: &Request<B>) -> TextResponse {
    let serve = match request.uri().path() {
        "/metrics" | "/metrics/" => metrics,
        "/healthz" => health,
        _ => {
            return refusal(
                StatusCode::NOT_FOUND,
                "ResourceNotFoundException",
                "Requested resource is not found; GET /metrics or /healthz.",
            );
        }
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowedException",
            "Requested method is not allowed; use GET or HEAD.",
        );
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    }
    serve(
        pages,
        request.uri().query().unwrap_or_default(),
        request.headers(),
    )
}

fn metrics(pages: &impl MetricsSource, query: &str, headers: &HeaderMap) -> TextResponse {
    let selection = match query::selection(query.as_bytes()) {
        Ok(selection) => selection,
        // TorchServe says 403 here, not 400.
        Err(err) => {
            return refusal(
                StatusCode::FORBIDDEN,
                "IllegalArgumentException",
                &err.to_string(),
            );
        }
    };
    let format = negotiate::format(values(headers, ACCEPT));
    let text = pages.metrics(&selection, format);
    let gzip = negotiate::gzip(values(headers, ACCEPT_ENCODING));
    let body = if gzip { compress(&text) } else { text.into() };
    let mut answer = text_answer(StatusCode::OK, format.content_type(), body);
    let headers = answer.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

fn health(pages: &impl MetricsSource, _query: &str, _headers: &HeaderMap) -> TextResponse {
    let (status, text) = match pages.health() {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    };
    let body = format!("{text}\n").into();
    text_answer(status, "text/plain; charset=utf-8", body)
}

/// The values of every header line of this name; a line that is not ASCII text is dropped.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter();
    lines.filter_map(|value| value.to_str().ok())
}

/// Compresses at the fastest level: the text repeats itself, and a scrape waits for it.
fn compress(text: &str) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(text.as_bytes());
    let compressed = written.and_then(|()| encoder.finish());
    compressed.expect("writing to a Vec succeeds").into()
}

fn text_answer(status: StatusCode, content_type: &'static str, body: Bytes) -> TextResponse {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// A refusal in TorchServe's shape, after which the connection closes as TorchServe closes it.
fn refusal(status: StatusCode, kind: &str, message: &str) -> TextResponse {
    let code = status.as_u16();
    let body = format!(
        "{{\n  \"code\": {code},\n  \"type\": \"{kind}\",\n  \"message\": \"{message}\"\n}}\n"
    );
    let mut answer = text_answer(status, "application/json", body.into());
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(CONNECTION, close);
    answer
}
