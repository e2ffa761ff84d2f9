//! Describes each model: its figures, and why its requests are slow.
//!
//! Does not depend on: how a verdict is reached.

use std::collections::HashMap;

use crate::{
    api::{
        Labels, Served,
        history::{Sum, Window},
        live::{Figures, Model, Tokens},
        verdict::{Span, Verdict},
    },
    history::{
        History,
        models::{self, judged_from_ns},
        span::WINDOW_NS,
    },
    identity::{Identity, REPLICA_LABELS},
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
    let from = judged_from_ns(now_ns) / WINDOW_NS;
    let identities: Vec<Identity> = history.models().identities().cloned().collect();
    let mut models = Vec::with_capacity(identities.len());
    for identity in &identities {
        // One at a time: the event loop waits for these locks.
        let Some(judged) = history.models().judged(identity, now_ns) else {
            continue;
        };
        let windows = history
            .trends()
            .windows(from, Some(&|one| one == identity))
            .1;
        let key = (Served::of(identity), Labels::of(&identity.replica));
        let in_flight = in_flight.as_ref().map(|of| *of.get(&key).unwrap_or(&0));
        let (served, labels) = key;
        models.push(Model {
            figures: Figures {
                in_flight,
                ..figures(&windows, span_ns)
            },
            now: span(&judged.now),
            before: (judged.before.window.requests > 0).then(|| span(&judged.before)),
            verdict: Verdict::new(&judged.verdict, &judged.now.window),
            served,
            labels,
        });
    }
    models.sort_by_key(|model| std::cmp::Reverse(model.figures.requests));
    let windows = history.trends().windows(from, None).1;
    let totals = Figures {
        in_flight: in_flight.map(|of| of.values().sum()),
        ..figures(&windows, span_ns)
    };
    let omitted = models.len().saturating_sub(MAX_MODELS);
    models.truncate(MAX_MODELS);
    (totals, models, omitted as u64)
}

fn span(span: &models::Span) -> Span {
    Span::new(&span.window, &span.evidence)
}

fn figures(windows: &[Window], span_ns: u64) -> Figures {
    let mut all = Window::default();
    for window in windows {
        all.merge(window);
    }
    let mean_ns = |sum: &Sum| sum.ns.checked_div(sum.count);
    let has_tokens = all.with_tokens > 0 || all.first_token.count > 0;
    Figures {
        requests: all.requests,
        per_second: per_second(all.requests, span_ns),
        client_errors: all.client_errors,
        server_errors: all.server_errors,
        timed: all.timed(),
        p50_ns: all.quantile_ns(0.5),
        p99_ns: all.quantile_ns(0.99),
        in_flight: None,
        tokens: has_tokens.then(|| Tokens {
            responses: all.with_tokens,
            input_per_second: per_second(all.input_tokens, span_ns),
            output_per_second: per_second(all.output_tokens, span_ns),
            first_token_ns: mean_ns(&all.first_token),
            token_gap_ns: mean_ns(&all.token_gap),
        }),
    }
}

fn per_second(requests: u64, span_ns: u64) -> f64 {
    match span_ns {
        0 => 0.0,
        _ => requests as f64 / (span_ns as f64 / 1e9),
    }
}

/// Returns the requests in flight of each model; `None` if they are unknown.
fn in_flight(values: &Values) -> Option<HashMap<(Served, Labels), u64>> {
    let samples = values.of(&families::IN_FLIGHT);
    let by_model = samples.iter().map(|sample| {
        let [model, version, server] =
            ["model", "version", "server"].map(|name| label(sample, name).to_owned());
        let served = Served {
            model,
            version,
            server,
        };
        let labels = Labels::new(REPLICA_LABELS.map(|name| label(sample, name)));
        ((served, labels), sample.value as u64)
    });
    (!samples.is_empty()).then(|| by_model.collect())
}
