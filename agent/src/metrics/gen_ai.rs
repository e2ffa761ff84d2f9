//! Sums up requests to language models, under the names of OpenTelemetry's semantic conventions for generative AI.
//!
//! Also the tokens that responses state.
//! Does not depend on: how a token was observed, which paths belong to language models.

use std::collections::BTreeMap;

use crate::{
    exchange::generation::Unknown,
    identity::Identity,
    metrics::{
        encode::{Samples, Value},
        families,
        histogram::{GEN_AI_DURATION, GEN_AI_FIRST_TOKEN, GEN_AI_OUTPUT_TOKEN, Histogram},
    },
    observation::{Observation, tokens::Tokens},
    protocol::genai::Operation,
};

/// Status codes with an `error.type` of their own; any other error is [`OTHER_ERROR`].
const ERRORS: [(u16, &str); 13] = [
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (408, "408"),
    (413, "413"),
    (422, "422"),
    (429, "429"),
    (499, "499"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];
/// The conventions' value for an error without a name.
const OTHER_ERROR: &str = "_OTHER";
/// Value without an error: an empty label equals no label.
const NO_ERROR: &str = "";

/// Requests to one language model.
#[derive(Debug, Default)]
pub(super) struct GenAi {
    durations: BTreeMap<(Operation, &'static str), Histogram>,
    streamed: BTreeMap<Operation, Streamed>,
    used: Used,
}

/// Tokens that successful responses state.
#[derive(Debug, Default)]
struct Used {
    input: u64,
    output: u64,
    /// Responses of which no number is known, by the place of the reason in [`Unknown::ALL`].
    unknown: [u64; Unknown::ALL.len()],
}

/// Streamed responses of one operation.
#[derive(Debug)]
struct Streamed {
    first_token: Histogram,
    output_token: Histogram,
}

impl Default for Streamed {
    fn default() -> Self {
        Self {
            first_token: Histogram::new(&GEN_AI_FIRST_TOKEN),
            output_token: Histogram::new(&GEN_AI_OUTPUT_TOKEN),
        }
    }
}

impl GenAi {
    /// Adds the tokens of a successful response.
    pub(super) fn add_usage(&mut self, tokens: &Tokens) {
        self.used.input += tokens.usage.input.unwrap_or(0);
        self.used.output += tokens.usage.output.unwrap_or(0);
        if let Some(reason) = tokens.usage_unknown {
            self.used.unknown[reason as usize] += 1;
        }
    }

    /// Adds one request for `operation`; `streamed` are the tokens of its response, if that is streamed and no error.
    pub(super) fn add(
        &mut self,
        operation: Operation,
        observation: &Observation,
        streamed: Option<&Tokens>,
    ) {
        if let Some(ns) = observation.stages.total_ns() {
            let error = error_type(observation.status);
            let durations = self.durations.entry((operation, error));
            let duration = durations.or_insert_with(|| Histogram::new(&GEN_AI_DURATION));
            duration.observe_ns(ns);
        }
        if let Some(tokens) = streamed {
            let streamed = self.streamed.entry(operation).or_default();
            if let Some(ns) = tokens.first.known_ns() {
                streamed.first_token.observe_ns(ns);
            }
            if let Some(ns) = tokens.gap.known_ns() {
                streamed.output_token.observe_ns(ns);
            }
        }
    }

    /// Adds every series of `identity` to `samples`.
    pub(super) fn collect(&self, identity: &Identity, samples: &mut Samples) {
        let Identity {
            model,
            version,
            server,
            replica,
        } = identity;
        for ((operation, error), histogram) in &self.durations {
            let name = operation.name();
            let labels = [&**model, version, server, name, server, model, error];
            samples.push_histogram_of(replica, &families::GEN_AI_DURATION, &labels, histogram);
        }
        for (kind, count) in [("input", self.used.input), ("output", self.used.output)] {
            let labels = [&**model, version, server, kind];
            samples.push_of(replica, &families::TOKENS, &labels, Value::Integer(count));
        }
        for (reason, count) in Unknown::ALL.iter().zip(self.used.unknown) {
            let labels = [&**model, version, server, reason.name()];
            samples.push_of(
                replica,
                &families::USAGE_UNKNOWN,
                &labels,
                Value::Integer(count),
            );
        }
        for (operation, streamed) in &self.streamed {
            let name = operation.name();
            let labels = [&**model, version, server, name, server, model];
            for (family, histogram) in [
                (&families::GEN_AI_FIRST_TOKEN, &streamed.first_token),
                (&families::GEN_AI_OUTPUT_TOKEN, &streamed.output_token),
            ] {
                samples.push_histogram_of(replica, family, &labels, histogram);
            }
        }
    }
}

fn error_type(status: u16) -> &'static str {
    if status < 400 {
        return NO_ERROR;
    }
    let named = ERRORS.iter().find(|(code, _)| *code == status);
    named.map_or(OTHER_ERROR, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_few_names() {
        for (status, expected) in [
            (200, ""),
            (302, ""),
            (404, "404"),
            (503, "503"),
            (418, "_OTHER"),
            (999, "_OTHER"),
        ] {
            assert_eq!(error_type(status), expected, "{status}");
        }
    }
}
