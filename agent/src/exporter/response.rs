//! Builds responses: bodies, headers and compression.
//!
//! Refusals have TorchServe's JSON form.
//! Does not depend on: paths, connections.

use std::io::{BufWriter, Write};

use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::Bytes,
    header::{
        ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, VARY,
    },
};

use serde::Serialize;

use crate::exporter::negotiate;

/// A response with its whole body, so that hyper sets its length.
pub(super) type TextResponse = Response<Full<Bytes>>;

/// Returns whether the client takes compressed bodies.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    negotiate::gzip(values(headers, ACCEPT_ENCODING))
}

/// Returns the values of all headers with this name; ignores those that are not ASCII text.
pub(super) fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter();
    lines.filter_map(|value| value.to_str().ok())
}

/// Compresses. A scrape waits for it, so the fastest level is best: the text is repetitive.
pub(super) fn compress(text: &str, level: Compression) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    let written = encoder.write_all(text.as_bytes());
    let compressed = written.and_then(|()| encoder.finish());
    compressed.expect("writing to a Vec succeeds").into()
}

/// Compresses JSON while it is written.
///
/// # Panics
/// If `answer` has a key that is no text.
pub(super) fn compress_json(answer: &impl Serialize) -> Bytes {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut writer = BufWriter::new(encoder);
    serde_json::to_writer(&mut writer, answer).expect("answers have text keys");
    let encoder = writer.into_inner().expect("writing to a Vec succeeds");
    encoder.finish().expect("writing to a Vec succeeds").into()
}

/// Returns a response with a body that is compressed if `gzip`.
pub(super) fn compressed_response(
    content_type: &'static str,
    body: Bytes,
    gzip: bool,
) -> TextResponse {
    let mut response = text_response(StatusCode::OK, content_type, body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Returns a response with this body.
pub(super) fn text_response(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> TextResponse {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Returns a refusal in TorchServe's form, after which the connection closes, as in TorchServe.
pub(super) fn refusal(status: StatusCode, kind: &str, message: &str) -> TextResponse {
    let code = status.as_u16();
    // The message may quote the client.
    let message = serde_json::Value::from(message);
    let body =
        format!("{{\n  \"code\": {code},\n  \"type\": \"{kind}\",\n  \"message\": {message}\n}}\n");
    let mut response = text_response(status, "application/json", body.into());
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}
