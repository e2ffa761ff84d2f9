//! A gRPC client of TorchServe's predictions: a script in TorchServe's own Python environment.

use std::path::Path;

use serde::Deserialize;

use crate::script::Script;

const SCRIPT: &str = include_str!("../../torchserve/grpc_client.py");

/// A client with one connection; it ends when dropped.
pub struct PredictionClient(Script);

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Called {
    /// Name that gRPC gives to the status: `OK`, `INTERNAL`.
    pub code: String,
    /// Time from the call to the end of the response, with connecting, in milliseconds.
    #[serde(rename = "ms")]
    pub time_ms: f64,
    /// Messages of the response.
    pub parts: usize,
}

impl PredictionClient {
    /// Starts a client of the TorchServe at `port`, with the Python of `installed`; it connects at its first call.
    pub fn start(installed: &Path, port: u16) -> Self {
        let python = installed.join("venv/bin/python");
        Self(Script::start(&python, SCRIPT, &[&port.to_string()]))
    }

    /// Asks for one response; `body` is one line.
    pub fn predict(&mut self, model: &str, version: Option<&str>, body: &str) -> Called {
        self.call("predict", model, version, body)
    }

    /// Asks for a response in parts; `body` is one line.
    pub fn stream(&mut self, model: &str, version: Option<&str>, body: &str) -> Called {
        self.call("stream", model, version, body)
    }

    /// As [`PredictionClient::predict`], but disconnects after a tenth of a second.
    pub fn leave(&mut self, model: &str, version: Option<&str>, body: &str) -> Called {
        self.call("leave", model, version, body)
    }

    fn call(&mut self, kind: &str, model: &str, version: Option<&str>, body: &str) -> Called {
        assert!(!body.contains('\n'), "{body:?}");
        let version = version.unwrap_or("-");
        let line = self.0.ask(&format!("{kind} {model} {version} {body}"));
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("the gRPC client ended: {err}"))
    }
}
