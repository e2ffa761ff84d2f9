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

use crate::{
    api::history::Wanted,
    exporter::{
        parameters::{Parameters, Wrong},
        response::{
            TextResponse, accepts_gzip, compress, compress_json, compressed_response, refusal,
        },
        source::ApiSource,
    },
    history::finished::KEPT,
    identity::REPLICA_LABELS,
};

/// How long an answer of `live` is served again: many readers that ask once a second cost hardly more than one.
const FRESH: Duration = Duration::from_millis(900);
/// Requests in one answer, unless a limit is given.
const REQUESTS: usize = 1_000;

/// A path of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// What is known now.
    Live,
    /// The latest requests.
    Requests,
    /// The last minutes.
    History,
}

impl Path {
    /// Returns the path that `path` is.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/api/v1/live" => Some(Self::Live),
            "/api/v1/requests" => Some(Self::Requests),
            "/api/v1/history" => Some(Self::History),
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
    let body = match body(source, path, query, gzip, live) {
        Ok(body) => body,
        Err(wrong) => {
            let (status, kind) = (StatusCode::BAD_REQUEST, "BadRequestException");
            return refusal(status, kind, &wrong.to_string());
        }
    };
    let mut response = compressed_response("application/json", body, gzip);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

fn body(
    source: &dyn ApiSource,
    path: Path,
    query: &str,
    gzip: bool,
    live: &Memo,
) -> Result<Bytes, Wrong> {
    let mut parameters = Parameters::parse(query)?;
    Ok(match path {
        Path::Live => {
            parameters.end(&[])?;
            live.body(source, gzip)
        }
        Path::Requests => {
            let after = parameters.number("after")?;
            let limit = parameters.number("limit")?;
            parameters.end(&["after", "limit"])?;
            let limit = limit.map_or(REQUESTS, |limit| limit.min(KEPT as u64) as usize);
            encode(&source.requests(after, limit), gzip)
        }
        Path::History => {
            let wanted = Wanted {
                model: parameters.text("model")?,
                version: parameters.text("version")?,
                server: parameters.text("server")?,
                replica: parameters.texts(REPLICA_LABELS)?,
                from: parameters.number("from")?,
            };
            let known = [
                &["model", "version", "server"],
                &REPLICA_LABELS[..],
                &["from"],
            ];
            parameters.end(&known.concat())?;
            encode(&source.history(&wanted), gzip)
        }
    })
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

/// Writes an answer as JSON. A long one is compressed as it is written: its text takes ten times the memory.
fn encode(answer: &impl Serialize, gzip: bool) -> Bytes {
    match gzip {
        true => compress_json(answer),
        false => json(answer).into(),
    }
}

fn json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect("answers have text keys")
}
