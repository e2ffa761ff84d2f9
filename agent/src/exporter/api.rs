//! Makes the responses of the API: paths, parameters and JSON.
//!
//! Does not depend on: connections, how anything is measured.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use flate2::Compression;
use hyper::{
    HeaderMap, StatusCode,
    body::Bytes,
    header::{CACHE_CONTROL, HeaderValue},
};
use serde::Serialize;

use crate::exporter::{
    query,
    response::{TextResponse, accepts_gzip, compress, compressed_response, refusal},
    source::ApiSource,
};

/// How long an answer of `live` is served again: many readers then cost no more than two.
const FRESH: Duration = Duration::from_millis(500);

/// A path of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// What is known now.
    Live,
}

impl Path {
    /// Returns the path that `path` is.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/api/v1/live" => Some(Self::Live),
            _ => None,
        }
    }
}

/// The latest answer of `live`, which many readers share.
#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<Option<Answer>>);

#[derive(Debug)]
struct Answer {
    made: Instant,
    plain: Bytes,
    gzip: Bytes,
}

/// Returns the response to a request of the API.
pub(super) fn respond(
    source: &dyn ApiSource,
    path: Path,
    query: &str,
    headers: &HeaderMap,
    live: &Memo,
) -> TextResponse {
    let gzip = accepts_gzip(headers);
    let body = match path {
        Path::Live => match query::pairs(query.as_bytes()) {
            Ok(pairs) if pairs.is_empty() => live.body(source, gzip),
            Ok(_) => return bad_request("this path has no parameters"),
            Err(err) => return bad_request(&err.to_string()),
        },
    };
    let mut response = compressed_response("application/json", body, gzip);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

impl Memo {
    fn body(&self, source: &dyn ApiSource, gzip: bool) -> Bytes {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match latest.take().filter(|latest| latest.made.elapsed() < FRESH) {
            Some(answer) => answer,
            None => {
                let plain = json(&source.live());
                Answer {
                    made: Instant::now(),
                    gzip: compress(&plain, Compression::fast()),
                    plain: plain.into(),
                }
            }
        };
        let answer = latest.insert(answer);
        match gzip {
            true => answer.gzip.clone(),
            false => answer.plain.clone(),
        }
    }
}

fn json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect("answers have text keys")
}

fn bad_request(message: &str) -> TextResponse {
    refusal(StatusCode::BAD_REQUEST, "BadRequestException", message)
}
