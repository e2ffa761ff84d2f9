//! Spells a verdict: the cause, in words, with its evidence.
//!
//! Does not depend on: how the verdict was reached.

use serde::{Deserialize, Serialize};

use crate::{
    api::stages::Stages,
    verdict::{self, evidence::Evidence, window::Window, words},
};

/// Requests that ended in a span of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Length, ns.
    pub span_ns: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Those of which each stage is known: the sums are over these.
    pub complete: u64,
    /// Mean duration of those, ns; `null` if there is none.
    pub mean_ns: Option<u64>,
    /// Sums of their parts, ns.
    pub sums_ns: Stages,
    /// Threads that read requests; `null` if unknown.
    pub readers: Option<u32>,
    /// Share of the time in which they had a request in hand, 0 to 1; `null` if unknown.
    pub readers_busy: Option<f64>,
    /// Worker processes that handled requests; `null` if there are none, or unknown.
    pub workers: Option<u32>,
    /// Share of the time in which they had a request in hand, 0 to 1; `null` if unknown.
    pub workers_busy: Option<f64>,
}

impl Span {
    /// Describes a window, with the evidence of its time.
    pub fn new(window: &Window, evidence: &Evidence) -> Self {
        Self {
            span_ns: window.span_ns,
            requests: window.requests,
            complete: window.complete,
            mean_ns: (window.complete > 0).then(|| window.mean_ns()),
            sums_ns: Stages::from(&window.sums),
            readers: evidence.readers.map(|readers| readers.threads),
            readers_busy: evidence.readers.and_then(|readers| readers.busy),
            workers: evidence.workers.map(|workers| workers.processes),
            workers_busy: evidence.workers.map(|workers| workers.busy),
        }
    }
}

/// Why a model's requests are slow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the cause; `idle`: no request ended, `fine`: nothing stands out, `unknown`: the evidence is missing.
    pub cause: String,
    /// The verdict as one phrase.
    pub headline: String,
    /// The part that stands out; `null` if none does, or too little is known.
    pub focus: Option<Focus>,
    /// Responses with status 500 and above, most frequent first; empty if they are fewer than one in a hundred.
    pub fails: Vec<Failure>,
    /// What was ruled out, each with its mean.
    pub ruled_out: Vec<String>,
    /// What to try next; `null` if the evidence suggests nothing.
    pub advice: Option<String>,
    /// What the server says of itself, in words; `null` unless it was asked.
    pub own_word: Option<String>,
    /// How many requests the verdict rests on, in words.
    pub certainty: String,
    /// Requests that ended.
    pub requests: u64,
    /// Those of which each stage is known.
    pub complete: u64,
}

/// The part of the duration that stands out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Focus {
    /// Name of the part, a key of the stages.
    pub component: String,
    /// What it means, as a noun.
    pub noun: String,
    /// Its mean, ns.
    pub mean_ns: f64,
    /// Its share of the mean duration, 0 to 1.
    pub share: f64,
    /// Its mean before, ns, if it explains the growth since then.
    pub before_ns: Option<f64>,
}

/// Responses with one status code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Status code.
    pub status: u16,
    /// Responses.
    pub requests: u64,
}

impl Verdict {
    /// Spells the verdict on `now`.
    pub fn new(verdict: &verdict::judge::Verdict, now: &Window) -> Self {
        let fails = verdict.fails.iter();
        Self {
            cause: verdict.cause.name().into(),
            headline: words::headline(verdict),
            focus: verdict.focus.map(|focus| Focus {
                component: focus.component.name().into(),
                noun: words::noun(focus.component).into(),
                mean_ns: focus.mean_ns,
                share: focus.share,
                before_ns: focus.before_ns,
            }),
            fails: fails
                .map(|&(status, requests)| Failure { status, requests })
                .collect(),
            ruled_out: words::ruled_out(verdict, now),
            advice: words::advice(verdict),
            own_word: words::own_word(verdict),
            certainty: words::certainty(verdict),
            requests: verdict.requests,
            complete: verdict.complete,
        }
    }
}
