//! Holds what the agent's endpoint serves: metrics, health, API.
//!
//! Does not depend on: how anything is measured, HTTP.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    api::{
        history::{History, Wanted},
        live::{Live, ProbeState, Probes},
        requests::Requests,
    },
    collectors::process::ProcessReader,
    exporter::source::{ApiSource, MetricsSource},
    live::Kept,
    metrics::{Format, Metrics, Selection},
};

/// Whether the probes work, as `/healthz` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeHealth {
    /// Attached.
    Attached,
    /// Switched off by the configuration.
    Off,
    /// Not attached, and why.
    Failed(String),
}

/// What the agent's endpoint serves.
#[derive(Debug)]
pub struct Endpoint {
    metrics: Arc<Metrics>,
    health: Mutex<ProbeHealth>,
    process: ProcessReader,
    kept: Option<Kept>,
    host_names: Vec<String>,
}

impl Endpoint {
    /// Creates an endpoint that serves `metrics`.
    pub fn new(metrics: Arc<Metrics>, health: ProbeHealth) -> Self {
        Self {
            metrics,
            health: Mutex::new(health),
            process: ProcessReader::new(),
            kept: None,
            host_names: Vec::new(),
        }
    }

    /// Also serves page and API, which tell of `kept`, under these names, `localhost` and IP addresses.
    #[must_use]
    pub fn with_api(mut self, kept: Kept, host_names: Vec<String>) -> Self {
        self.kept = Some(kept);
        self.host_names = host_names;
        self
    }

    /// Changes what `/healthz` reports.
    pub fn set_health(&self, health: ProbeHealth) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }
}

impl MetricsSource for Endpoint {
    fn metrics(&self, selection: &Selection, format: Format) -> String {
        self.process.publish(&self.metrics);
        self.metrics.refresh(selection);
        self.metrics.encode(selection, format)
    }

    fn health(&self) -> Result<String, String> {
        let health = self.health.lock();
        match &*health.unwrap_or_else(PoisonError::into_inner) {
            ProbeHealth::Attached => Ok("ok: probes are attached".into()),
            ProbeHealth::Off => Ok("ok: probes are switched off".into()),
            ProbeHealth::Failed(reason) => Err(format!("probes are not attached: {reason}")),
        }
    }

    fn api(&self) -> Option<&dyn ApiSource> {
        self.kept.is_some().then_some(self as &dyn ApiSource)
    }
}

impl ApiSource for Endpoint {
    fn host_names(&self) -> &[String] {
        &self.host_names
    }

    fn requests(&self, after: Option<u64>, limit: usize) -> Requests {
        let kept = self.kept.as_ref();
        kept.map_or_else(Requests::default, |kept| kept.requests(after, limit))
    }

    fn history(&self, wanted: &Wanted) -> History {
        let kept = self.kept.as_ref();
        kept.map_or_else(History::default, |kept| kept.history(wanted))
    }

    fn live(&self) -> Live {
        let Some(kept) = &self.kept else {
            return Live::default();
        };
        self.process.publish(&self.metrics);
        let health = self.health.lock();
        let probes = match &*health.unwrap_or_else(PoisonError::into_inner) {
            ProbeHealth::Attached => Probes {
                state: ProbeState::Attached,
                reason: None,
            },
            ProbeHealth::Off => Probes {
                state: ProbeState::Off,
                reason: None,
            },
            ProbeHealth::Failed(reason) => Probes {
                state: ProbeState::Failed,
                reason: Some(reason.clone()),
            },
        };
        kept.live(probes)
    }
}
