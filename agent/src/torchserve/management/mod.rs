//! Calls TorchServe's management API: describe a model, scale it, list the workers.
//!
//! `scale`, `autoscale` and the look-up of workers use it. Each error is one line with the address, TorchServe's message
//! and the remedy.
//! Does not depend on: when to scale, and how far.

pub mod model_lookup;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use hyper::{Method, StatusCode, header::HeaderValue};
use serde::Deserialize;

use crate::http::{
    client::{self, FetchError, HttpResponse, Limits},
    url::HttpUrl,
};

/// Largest content of a response, bytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Most models in one list.
const MAX_MODELS: usize = 1000;
/// Most characters of a message of TorchServe.
const MAX_MESSAGE_CHARS: usize = 500;
/// Error type of TorchServe for a wrong or missing key, with status 400.
const INVALID_KEY: &str = "InvalidKeyException";

/// A model as TorchServe registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its version; `None` for the one that TorchServe serves by default.
    pub version: Option<String>,
}

/// State of a model in TorchServe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Number of workers that accept requests.
    pub ready: u32,
    /// Number of workers, including those that are being started.
    pub desired: u32,
    /// Number of requests in the model's queue.
    pub pending: u64,
}

/// A scaling that TorchServe accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaled {
    /// TorchServe's message.
    pub status: String,
    /// Whether TorchServe responded before the end, although the request was synchronous.
    pub partial: bool,
}

/// A worker process, and the model that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningWorker {
    /// Process ID in TorchServe's own namespace.
    pub pid: u32,
    /// Name that its model is registered under.
    pub model: String,
    /// Version of its model.
    pub version: String,
}

/// Client of a TorchServe's management API.
#[derive(Debug, Clone)]
pub struct Management {
    address: HttpUrl,
    /// Read for each call, because TorchServe replaces the keys when they expire.
    token_file: Option<PathBuf>,
    time_limit: Duration,
}

impl Management {
    /// Creates a client for `address`; `token_file` is TorchServe's key_file.json, if it requires a key.
    pub fn new(address: HttpUrl, token_file: Option<PathBuf>, time_limit: Duration) -> Self {
        Self {
            address,
            token_file,
            time_limit,
        }
    }

    /// Returns the state of `model`.
    pub async fn describe(&self, model: &Model) -> Result<Description> {
        let url = self.model_url(model);
        let response = self.call(Method::GET, &url).await?;
        description(&response.body).map_err(|err| self.not_torchserve("GET", &url, &err))
    }

    /// Sets the bounds of `model`: TorchServe starts workers below `min`, and ends workers above `max`.
    pub async fn scale(
        &self,
        model: &Model,
        min: u32,
        max: u32,
        synchronous: bool,
    ) -> Result<Scaled> {
        let url = self
            .model_url(model)
            .with_pair("min_worker", &min.to_string())
            .with_pair("max_worker", &max.to_string())
            .with_pair("synchronous", &synchronous.to_string());
        let response = self.call(Method::PUT, &url).await?;
        let status: StatusText = serde_json::from_slice(&response.body)
            .map_err(|err| self.not_torchserve("PUT", &url, &err.to_string()))?;
        Ok(Scaled {
            status: one_line(&status.status),
            partial: response.status == StatusCode::PARTIAL_CONTENT,
        })
    }

    /// Returns every running worker.
    pub async fn running(&self) -> Result<Vec<RunningWorker>> {
        let url = self
            .address
            .join(&["models"])
            .with_pair("limit", &MAX_MODELS.to_string());
        let response = self.call(Method::GET, &url).await?;
        let listed: RawList = serde_json::from_slice(&response.body)
            .map_err(|err| self.not_torchserve("GET", &url, &err.to_string()))?;
        let mut running = Vec::new();
        for model in listed.models {
            let url = self.address.join(&["models", &model.model_name, "all"]);
            let response = self.call(Method::GET, &url).await?;
            let versions: Vec<RawVersion> = serde_json::from_slice(&response.body)
                .map_err(|err| self.not_torchserve("GET", &url, &err.to_string()))?;
            running.extend(versions.into_iter().flat_map(RawVersion::running));
        }
        Ok(running)
    }

    fn model_url(&self, model: &Model) -> HttpUrl {
        let mut segments = vec!["models", &model.name];
        segments.extend(model.version.as_deref());
        self.address.join(&segments)
    }

    /// Returns a response with a 2xx status, or an error with the remedy.
    async fn call(&self, method: Method, url: &HttpUrl) -> Result<HttpResponse> {
        let limits = Limits {
            time: self.time_limit,
            body_bytes: MAX_BODY_BYTES,
        };
        let name = method.clone();
        let response = client::fetch(method, url, self.bearer()?, limits).await;
        match response {
            Ok(response) if response.status.is_success() => Ok(response),
            Ok(response) => {
                let refusal = Refusal::of(&response);
                let remedy = self.remedy(&response, &refusal);
                bail!("{name} {url}: TorchServe refused: {refusal}; {remedy}")
            }
            Err(err) => {
                let remedy = match err {
                    FetchError::Timeout(_) => {
                        "TorchServe may still complete the request; raise scale --timeout, or see its log"
                    }
                    FetchError::Connect(_) => {
                        "start TorchServe, or give its management_address as --management"
                    }
                    FetchError::Protocol(_) | FetchError::TooLarge(_) => {
                        "give TorchServe's management_address as --management"
                    }
                };
                bail!("{name} {url}: {err}; {remedy}")
            }
        }
    }

    fn remedy(&self, response: &HttpResponse, refusal: &Refusal) -> String {
        let is_key = matches!(
            response.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) || refusal.kind == INVALID_KEY;
        match (response.status, &self.token_file) {
            _ if response.status.is_redirection() => format!(
                "it redirects to {}, and redirects are not followed: give TorchServe's own address as --management",
                response
                    .location
                    .as_deref()
                    .map_or_else(|| "nowhere".to_owned(), one_line)
            ),
            (_, None) if is_key => {
                "it requires a key: give --token-file with the key_file.json from the folder where TorchServe was started"
                    .to_owned()
            }
            (_, Some(path)) if is_key => format!(
                "the management key in {} is wrong or has expired: give the key_file.json of this TorchServe, or have it make a new key",
                path.display()
            ),
            (StatusCode::NOT_FOUND, _) if refusal.kind.starts_with("Model") => {
                format!("GET {} lists its models", self.address.join(&["models"]))
            }
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => {
                "give TorchServe's management_address as --management".to_owned()
            }
            _ => "see TorchServe's log (logs/ts_log.log in the folder where it was started)".to_owned(),
        }
    }

    fn not_torchserve(&self, method: &str, url: &HttpUrl, detail: &str) -> anyhow::Error {
        let detail = one_line(detail);
        anyhow!(
            "{method} {url}: not a response of TorchServe: {detail}; give TorchServe's management_address as --management"
        )
    }

    /// Returns the `Authorization` value for the key in the token file.
    fn bearer(&self) -> Result<Option<HeaderValue>> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let bearer = || -> Result<HeaderValue> {
            let text = std::fs::read(path)?;
            let keys: KeyFile = serde_json::from_slice(&text)?;
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", keys.management.key))?;
            bearer.set_sensitive(true);
            Ok(bearer)
        };
        let bearer = bearer().with_context(|| {
            format!(
                "--token-file {}: give the key_file.json from the folder where TorchServe was started",
                path.display()
            )
        });
        bearer.map(Some)
    }
}

#[derive(Debug, Deserialize)]
struct KeyFile {
    management: Key,
}

#[derive(Debug, Deserialize)]
struct Key {
    key: String,
}

#[derive(Debug, Deserialize)]
struct StatusText {
    status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescription {
    min_workers: u32,
    max_workers: u32,
    workers: Vec<RawWorker>,
    job_queue_status: RawQueue,
}

#[derive(Debug, Deserialize)]
struct RawList {
    models: Vec<RawModel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawModel {
    model_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVersion {
    model_name: String,
    model_version: String,
    workers: Vec<RawProcess>,
}

#[derive(Debug, Deserialize)]
struct RawProcess {
    /// -1 while it is being started.
    pid: i64,
}

impl RawVersion {
    fn running(self) -> Vec<RunningWorker> {
        let pids = self
            .workers
            .iter()
            .filter_map(|worker| u32::try_from(worker.pid).ok());
        let running = pids.map(|pid| RunningWorker {
            pid,
            model: self.model_name.clone(),
            version: self.model_version.clone(),
        });
        running.collect()
    }
}

#[derive(Debug, Deserialize)]
struct RawWorker {
    status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawQueue {
    pending_requests: u64,
}

fn description(body: &[u8]) -> Result<Description, String> {
    let models: Vec<RawDescription> =
        serde_json::from_slice(body).map_err(|err| err.to_string())?;
    let [model] = models.as_slice() else {
        return Err(format!("it describes {} models, not one", models.len()));
    };
    if model.min_workers > model.max_workers {
        return Err("it has minWorkers over maxWorkers".into());
    }
    let ready = model.workers.iter().filter(|one| one.status == "READY");
    let ready = u32::try_from(ready.count()).unwrap_or(u32::MAX);
    let listed = u32::try_from(model.workers.len()).unwrap_or(u32::MAX);
    Ok(Description {
        ready,
        // TorchServe keeps the number of workers between its bounds, and lists a worker as soon as it is requested.
        desired: listed.clamp(model.min_workers, model.max_workers),
        pending: model.job_queue_status.pending_requests,
    })
}

/// An error response of TorchServe.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    kind: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRefusal {
    r#type: String,
    message: String,
}

impl Refusal {
    fn of(response: &HttpResponse) -> Self {
        let raw = serde_json::from_slice(&response.body).unwrap_or_else(|_| RawRefusal {
            r#type: String::new(),
            message: String::from_utf8_lossy(&response.body).into_owned(),
        });
        Self {
            status: response.status,
            kind: one_line(&raw.r#type),
            message: one_line(&raw.message).trim_end_matches('.').to_owned(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status.as_u16())?;
        for part in [&self.kind, &self.message] {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        Ok(())
    }
}

/// Returns a message as one line: without control characters and line ends, and not too long.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(MAX_MESSAGE_CHARS) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

#[cfg(test)]
mod tests;
