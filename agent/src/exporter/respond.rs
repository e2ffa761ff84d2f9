//! Makes the response to one request: paths, methods, headers and compression.
//!
//! Refusals have TorchServe's JSON form.
//! Does not depend on: connections.

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

/// A response with its whole body, so that hyper sets its length.
pub(crate) type TextResponse = Response<Full<Bytes>>;

/// Returns the response to a request, whose body is ignored.
pub(crate) fn respond<B>(source: &impl MetricsSource, request: &Request<B>) -> TextResponse {
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
        let mut response = refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowedException",
            "Requested method is not allowed; use GET or HEAD.",
        );
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    serve(
        source,
        request.uri().query().unwrap_or_default(),
        request.headers(),
    )
}

fn metrics(source: &impl MetricsSource, query: &str, headers: &HeaderMap) -> TextResponse {
    let selection = match query::selection(query.as_bytes()) {
        Ok(selection) => selection,
        // TorchServe returns 403 here, not 400.
        Err(err) => {
            return refusal(
                StatusCode::FORBIDDEN,
                "IllegalArgumentException",
                &err.to_string(),
            );
        }
    };
    let format = negotiate::format(values(headers, ACCEPT));
    let text = source.metrics(&selection, format);
    let gzip = negotiate::gzip(values(headers, ACCEPT_ENCODING));
    let body = if gzip { compress(&text) } else { text.into() };
    let mut response = text_response(StatusCode::OK, format.content_type(), body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn health(source: &impl MetricsSource, _query: &str, _headers: &HeaderMap) -> TextResponse {
    let (status, text) = match source.health() {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    };
    let body = format!("{text}\n").into();
    text_response(status, "text/plain; charset=utf-8", body)
}

/// Returns the values of all headers with this name; ignores those that are not ASCII text.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter();
    lines.filter_map(|value| value.to_str().ok())
}

/// Compresses at the fastest level: the text is repetitive, and a scrape waits for it.
fn compress(text: &str) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(text.as_bytes());
    let compressed = written.and_then(|()| encoder.finish());
    compressed.expect("writing to a Vec succeeds").into()
}

fn text_response(status: StatusCode, content_type: &'static str, body: Bytes) -> TextResponse {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Returns a refusal in TorchServe's form, after which the connection closes, as in TorchServe.
fn refusal(status: StatusCode, kind: &str, message: &str) -> TextResponse {
    let code = status.as_u16();
    let body = format!(
        "{{\n  \"code\": {code},\n  \"type\": \"{kind}\",\n  \"message\": \"{message}\"\n}}\n"
    );
    let mut response = text_response(status, "application/json", body.into());
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}
