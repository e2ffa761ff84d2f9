//! Describes each model: its figures, and why its requests are slow.
//!
//! Does not depend on: how a verdict is reached.

use std::collections::{BTreeMap, HashMap};

use crate::{
    api::{
        Served,
        live::{Figures, Model},
        verdict::{Span, Verdict},
    },
    history::{History, models::Judged},
    identity::Identity,
    live::values::{Values, label},
    metrics::families,
};

/// Most models that are listed.
const MAX_MODELS: usize = 100;

/// Returns the figures of all requests, each model with most requests first, and how many models are left out.
pub(super) fn list(
    history: &History,
    values: &Values,
    now_ns: u64,
    span_ns: u64,
) -> (Figures, Vec<Model>, u64) {
    let in_flight = in_flight(values);
    let identities: Vec<Identity> = history.models().identities().cloned().collect();
    let mut models = Vec::with_capacity(identities.len());
    for identity in &identities {
        // One at a time: the event loop waits for this lock.
        let Some(judged) = history.models().judged(identity, now_ns) else {
            continue;
        };
        let served = Served {
            model: identity.model.to_string(),
            version: identity.version.to_string(),
            server: identity.server.to_string(),
        };
        let in_flight = in_flight.as_ref().map(|of| *of.get(&served).unwrap_or(&0));
        models.push(describe(served, &judged, in_flight, span_ns));
    }
    models.sort_by_key(|model| std::cmp::Reverse(model.figures.requests));
    let mut totals = Figures {
        requests: models.iter().map(|model| model.figures.requests).sum(),
        server_errors: models.iter().map(|model| model.figures.server_errors).sum(),
        in_flight: in_flight.map(|of| of.values().sum()),
        ..Figures::default()
    };
    totals.per_second = per_second(totals.requests, span_ns);
    let omitted = models.len().saturating_sub(MAX_MODELS);
    models.truncate(MAX_MODELS);
    (totals, models, omitted as u64)
}

fn describe(served: Served, judged: &Judged, in_flight: Option<u64>, span_ns: u64) -> Model {
    let Judged {
        verdict,
        now,
        before,
    } = judged;
    let failed = now.window.failed().into_iter();
    Model {
        served,
        labels: BTreeMap::new(),
        figures: Figures {
            requests: now.window.requests,
            per_second: per_second(now.window.requests, span_ns),
            server_errors: failed.map(|(_, requests)| requests).sum(),
            in_flight,
            ..Figures::default()
        },
        now: Span::new(&now.window, &now.evidence),
        before: (before.window.requests > 0).then(|| Span::new(&before.window, &before.evidence)),
        verdict: Verdict::new(verdict, &now.window),
    }
}

fn per_second(requests: u64, span_ns: u64) -> f64 {
    match span_ns {
        0 => 0.0,
        _ => requests as f64 / (span_ns as f64 / 1e9),
    }
}

/// Returns the requests in flight of each model; `None` if they are unknown.
fn in_flight(values: &Values) -> Option<HashMap<Served, u64>> {
    let samples = values.of(&families::IN_FLIGHT);
    let by_model = samples.iter().map(|sample| {
        let [model, version, server] =
            ["model", "version", "server"].map(|name| label(sample, name).to_owned());
        let served = Served {
            model,
            version,
            server,
        };
        (served, sample.value as u64)
    });
    (!samples.is_empty()).then(|| by_model.collect())
}
