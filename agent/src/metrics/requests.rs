//! What finished requests add up to: answers by class, and our own families.
//!
//! What TorchServe makes of the same requests is `torchserve`'s. Does not know how a request was measured, and holds a bounded number of series whatever peers send.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    bounds::{Bounds, OTHER},
    encode::{Samples, Value},
    histogram::Histogram,
    names,
    torchserve::{self, LastTimes},
};
use crate::exchange::coverage::Tally;
use crate::latency::{Identity, Inner, Observation, Protocol, Purpose};

/// Distinct status codes of one model or server.
const MAX_CODES: usize = 32;

/// Totals and last values over every request since the agent started.
#[derive(Debug)]
pub(super) struct Requests {
    bounds: Bounds,
    by_identity: BTreeMap<Identity, Served>,
    admin: BTreeMap<Arc<str>, Codes>,
    carried: BTreeMap<Arc<str>, Tally>,
    last_times: LastTimes,
    /// Requests of every purpose.
    seen: u64,
    answers: Answers,
    unknown: Unknown,
}

/// What was served under one identity. Each request finds it once, and everything is added there; what is exported of
/// a model alone is summed up by the scrape.
#[derive(Debug, Default)]
struct Served {
    /// A request that showed that the server knows the model was counted here under its own labels, so that the bounds
    /// have nothing to say about the next.
    settled: bool,
    codes: Codes,
    queue: Histogram,
    handler: Histogram,
    duration: Histogram,
    inner_queue: Histogram,
    worker: Histogram,
    relay: Histogram,
    torchserve: torchserve::Served,
}

/// Answers by status code; a code outside 100 to 599, or past the limit, is `None`.
type Codes = BTreeMap<Option<u16>, u64>;

/// Answers over HTTP of every purpose by class, as TorchServe sorts them: what is neither 2xx nor 4xx is 5xx.
#[derive(Debug, Default)]
struct Answers {
    success: u64,
    client_error: u64,
    server_error: u64,
}

/// Inference requests with a stage that could not be timed.
#[derive(Debug, Default)]
struct Unknown {
    queue: u64,
    handler: u64,
    stream: u64,
    inner_queue: u64,
    worker: u64,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            bounds: Bounds::new(),
            by_identity: BTreeMap::new(),
            admin: BTreeMap::new(),
            carried: BTreeMap::new(),
            last_times: LastTimes::default(),
            seen: 0,
            answers: Answers::default(),
            unknown: Unknown::default(),
        }
    }

    /// Adds one finished request.
    pub(super) fn observe(&mut self, observation: &Observation) {
        self.seen += 1;
        if observation.protocol == Protocol::Http {
            self.answers.add(observation.status);
        }
        match observation.purpose {
            Purpose::Admin => {
                let server = self.bounds.admit_server(&observation.identity.server);
                let codes = self.admin.entry(server).or_default();
                count_code(codes, observation.status, &mut self.bounds);
            }
            Purpose::Inference => self.observe_inference(observation),
        }
    }

    /// Adds a request of TorchServe whose client left before its answer: TorchServe counts it as if it were answered,
    /// our own families as unfinished.
    pub(super) fn observe_abandoned(&mut self, observation: &Observation) {
        self.seen += 1;
        if observation.protocol == Protocol::Http {
            self.answers.add(observation.status);
        }
        self.last_times.add(observation);
        let identity = self.bounds.admit(&observation.identity, true);
        let served = self.by_identity.entry(identity).or_default();
        served.torchserve.add(observation, self.seen);
    }

    /// Adds bytes that went over watched sockets of `server`.
    pub(super) fn carried(&mut self, server: &Arc<str>, tally: Tally) {
        let server = self.bounds.admit_server(server);
        *self.carried.entry(server).or_default() += tally;
    }

    fn observe_inference(&mut self, observation: &Observation) {
        let status = observation.status;
        self.unknown.add(observation);
        self.last_times.add(observation);

        let index = self.seen;
        if let Some(served) = self.by_identity.get_mut(&observation.identity)
            && served.settled
        {
            served.add(observation, index, &mut self.bounds);
            return;
        }
        let proven = !(400..=499).contains(&status);
        let identity = self.bounds.admit(&observation.identity, proven);
        let settled = proven && identity == observation.identity;
        let served = self.by_identity.entry(identity).or_default();
        served.settled |= settled;
        served.add(observation, index, &mut self.bounds);
    }

    /// Adds every series to `samples`.
    pub(super) fn collect(&self, hostname: &str, samples: &mut Samples) {
        self.collect_torchserve(hostname, samples);
        for (identity, served) in &self.by_identity {
            let Identity {
                model,
                version,
                server,
            } = identity;
            for (code, count) in labelled(&served.codes) {
                let labels = [&**model, version, server, &code];
                samples.push(&names::REQUESTS, &labels, Value::Integer(count));
            }
            for (family, histogram) in [
                (&names::REQUEST_QUEUE, &served.queue),
                (&names::REQUEST_HANDLER, &served.handler),
                (&names::REQUEST_DURATION, &served.duration),
                (&names::REQUEST_INNER_QUEUE, &served.inner_queue),
                (&names::REQUEST_WORKER, &served.worker),
                (&names::REQUEST_RELAY, &served.relay),
            ] {
                if histogram.count() > 0 {
                    let labels = [&**model, version, server];
                    samples.push_histogram(family, &labels, histogram.clone());
                }
            }
        }
        for (server, codes) in &self.admin {
            for (code, count) in labelled(codes) {
                let value = Value::Integer(count);
                samples.push(&names::ADMIN_REQUESTS, &[server, &code], value);
            }
        }
        for (server, tally) in &self.carried {
            let ratio = tally.covered_ratio().map(Value::Float);
            for (family, value) in [
                (&names::COVERAGE, ratio),
                (&names::SOCKET_BYTES, Some(Value::Integer(tally.seen_bytes))),
                (
                    &names::MISSED_BYTES,
                    Some(Value::Integer(tally.missed_bytes)),
                ),
            ] {
                if let Some(value) = value {
                    samples.push(family, &[&**server], value);
                }
            }
        }
        for (stage, count) in [
            ("handler", self.unknown.handler),
            ("inner_queue", self.unknown.inner_queue),
            ("queue", self.unknown.queue),
            ("stream", self.unknown.stream),
            ("worker", self.unknown.worker),
        ] {
            let value = Value::Integer(count);
            samples.push(&names::STAGE_UNKNOWN, &[stage], value);
        }
        for (label, count) in self.bounds.overflows() {
            let value = Value::Integer(count);
            samples.push(&names::LABEL_OVERFLOW, &[label], value);
        }
    }

    fn collect_torchserve(&self, hostname: &str, samples: &mut Samples) {
        let host = ["Host", hostname];
        for (family, count) in [
            (&names::REQUESTS_2XX, self.answers.success),
            (&names::REQUESTS_4XX, self.answers.client_error),
            (&names::REQUESTS_5XX, self.answers.server_error),
        ] {
            if count > 0 {
                samples.push(family, &host, Value::Float(count as f64));
            }
        }
        self.last_times.collect(hostname, samples);
        let served = self.by_identity.iter();
        let served = served.map(|(identity, served)| (identity, &served.torchserve));
        torchserve::collect_served(served, hostname, samples);
    }
}

impl Served {
    /// Adds one inference request, the `index`-th of all answered.
    fn add(&mut self, observation: &Observation, index: u64, bounds: &mut Bounds) {
        let Observation { status, stages, .. } = observation;
        let total_ns = stages.total_ns();
        count_code(&mut self.codes, *status, bounds);
        for (histogram, ns) in [
            (&mut self.queue, stages.queue_ns),
            (&mut self.handler, stages.handler_ns),
            (&mut self.duration, total_ns),
        ] {
            if let Some(ns) = ns {
                histogram.observe_ns(ns);
            }
        }
        if let Inner::Worker(hop) = &observation.inner {
            for (histogram, ns) in [
                (&mut self.inner_queue, hop.inner_queue_ns),
                (&mut self.worker, hop.worker_ns),
                (&mut self.relay, hop.relay_ns),
            ] {
                if let Some(ns) = ns {
                    histogram.observe_ns(ns);
                }
            }
        }
        self.torchserve.add(observation, index);
    }
}

impl Unknown {
    fn add(&mut self, observation: &Observation) {
        let Observation {
            status,
            stages,
            inner,
            ..
        } = observation;
        self.queue += u64::from(stages.queue_ns.is_none());
        self.handler += u64::from(stages.handler_ns.is_none());
        self.stream += u64::from(stages.stream_ns.is_none());
        let (inner_queue_unknown, worker_unknown) = match inner {
            Inner::None => (false, false),
            // An answer that only a worker can have given.
            Inner::Unseen => ((200..=299).contains(status), (200..=299).contains(status)),
            Inner::Worker(hop) => (hop.inner_queue_ns.is_none(), hop.worker_ns.is_none()),
        };
        self.inner_queue += u64::from(inner_queue_unknown);
        self.worker += u64::from(worker_unknown);
    }
}

impl Answers {
    fn add(&mut self, status: u16) {
        match status {
            200..=299 => self.success += 1,
            400..=499 => self.client_error += 1,
            _ => self.server_error += 1,
        }
    }
}

fn count_code(codes: &mut Codes, status: u16, bounds: &mut Bounds) {
    let code = Some(status).filter(|status| (100..=599).contains(status));
    if codes.contains_key(&code) || codes.len() < MAX_CODES {
        *codes.entry(code).or_default() += 1;
    } else {
        bounds.overflow("code");
        *codes.entry(None).or_default() += 1;
    }
}

fn labelled(codes: &Codes) -> impl Iterator<Item = (String, u64)> {
    codes.iter().map(|(code, count)| {
        let label = code.map_or_else(|| OTHER.to_owned(), |code| code.to_string());
        (label, *count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        latency::{Stages, WorkEnd, WorkerHop},
        metrics::encode::{Format, Selection},
    };

    const KNOWN: Stages = Stages {
        queue_ns: Some(2_900_500),
        receive_ns: 100_000,
        handler_ns: Some(36_024_999),
        stream_ns: Some(0),
        unsplit_ns: None,
    };

    fn observation(model: &str, status: u16) -> Observation {
        Observation {
            identity: Identity {
                model: model.into(),
                version: "default".into(),
                server: "torchserve".into(),
            },
            purpose: Purpose::Inference,
            status,
            protocol: Protocol::Http,
            stages: KNOWN,
            inner: Inner::None,
        }
    }

    /// The samples of one family, without HELP and TYPE.
    fn lines(requests: &Requests, name: &str) -> Vec<String> {
        let mut samples = Samples::default();
        requests.collect("vm", &mut samples);
        let text = samples.encode(&Selection::named([name]), Format::Text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    fn after(observations: &[Observation]) -> Requests {
        let mut requests = Requests::new();
        for observation in observations {
            requests.observe(observation);
        }
        requests
    }

    #[test]
    fn every_answer_counts_in_its_class_and_the_rest_is_5xx() {
        let admin = Observation {
            purpose: Purpose::Admin,
            ..observation("", 200)
        };
        let statuses = [200, 204, 404, 429, 302, 101, 503, 999];
        let mut given: Vec<_> = statuses.map(|status| observation("tiny", status)).into();
        given.push(admin);
        let requests = after(&given);
        for (name, count) in [
            ("Requests2XX", "3.0"),
            ("Requests4XX", "2.0"),
            ("Requests5XX", "4.0"),
        ] {
            let expected = format!("{name}{{Level=\"Host\",Hostname=\"vm\"}} {count}");
            assert_eq!(lines(&requests, name), [expected]);
        }
    }

    #[test]
    fn an_unknown_queue_is_counted_and_guesses_nothing() {
        let mut unqueued = observation("tiny", 200);
        unqueued.stages.queue_ns = None;
        let requests = after(&[observation("tiny", 200), unqueued]);
        let count_of = |name: &str| {
            let found = lines(&requests, name);
            let count = found.iter().find(|line| line.contains("_count")).cloned();
            count.unwrap().rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(count_of("inferprobe_request_queue_seconds"), "1");
        assert_eq!(count_of("inferprobe_request_handler_seconds"), "2");
        assert_eq!(count_of("inferprobe_request_duration_seconds"), "1");
        assert_eq!(
            lines(&requests, "inferprobe_request_stage_unknown_total"),
            [
                r#"inferprobe_request_stage_unknown_total{stage="handler"} 0"#,
                r#"inferprobe_request_stage_unknown_total{stage="inner_queue"} 0"#,
                r#"inferprobe_request_stage_unknown_total{stage="queue"} 1"#,
                r#"inferprobe_request_stage_unknown_total{stage="stream"} 0"#,
                r#"inferprobe_request_stage_unknown_total{stage="worker"} 0"#,
            ]
        );
        assert_eq!(
            lines(&requests, "ts_inference_latency_microseconds"),
            [
                r#"ts_inference_latency_microseconds{model_name="tiny",model_version="default",hostname="vm"} 39025.499"#
            ]
        );
        assert_eq!(
            lines(&requests, "QueueTime"),
            [r#"QueueTime{Level="Host",Hostname="vm"} 2.0"#]
        );
    }

    #[test]
    fn the_inner_hop_has_histograms_of_its_own_and_counts_what_is_unknown() {
        let hop = WorkerHop {
            inner_queue_ns: Some(5_000_000),
            worker_ns: None,
            latency_ns: 9,
            relay_ns: Some(7),
            end: WorkEnd::Predicted,
        };
        let with = |status, inner| Observation {
            inner,
            ..observation("tiny", status)
        };
        let requests = after(&[
            with(200, Inner::Worker(hop)),
            with(200, Inner::Unseen),
            with(503, Inner::Unseen),
        ]);
        let sum = lines(&requests, "inferprobe_request_inner_queue_seconds");
        assert!(sum.iter().any(|line| line.ends_with("} 0.005")), "{sum:?}");
        assert!(lines(&requests, "inferprobe_request_worker_seconds").is_empty());
        let unknown = lines(&requests, "inferprobe_request_stage_unknown_total");
        for (stage, count) in [("inner_queue", 1), ("worker", 2)] {
            let expected =
                format!(r#"inferprobe_request_stage_unknown_total{{stage="{stage}"}} {count}"#);
            assert!(unknown.contains(&expected), "{unknown:?}");
        }
    }

    #[test]
    fn ten_thousand_models_keep_the_series_few_and_the_counts_whole() {
        let mut requests = Requests::new();
        for index in 0..10_000 {
            requests.observe(&observation(&format!("m{index}"), 200));
        }
        let counts = lines(&requests, "inferprobe_requests_total");
        assert_eq!(counts.len(), 201);
        let of_other = r#"model="other",version="other",server="torchserve",code="200"} 9800"#;
        assert!(counts.iter().any(|line| line.ends_with(of_other)));
        let redirected = lines(&requests, "inferprobe_label_overflow_total");
        let expected = r#"inferprobe_label_overflow_total{label="model"} 9800"#;
        assert!(redirected.iter().any(|line| line == expected));
    }

    #[test]
    fn codes_are_bounded() {
        let mut requests = Requests::new();
        for status in (100..1000).chain([200]) {
            requests.observe(&observation("tiny", status));
        }
        let counts = lines(&requests, "inferprobe_requests_total");
        assert_eq!(counts.len(), MAX_CODES + 1);
        assert!(counts[0].ends_with(r#"code="other"} 869"#), "{}", counts[0]);
    }

    #[test]
    fn a_hostile_model_name_is_escaped() {
        let requests = after(&[observation("a\"b\\c\nd", 200)]);
        let counts = lines(&requests, "inferprobe_requests_total");
        assert!(counts[0].contains(r#"model="a\"b\\c\nd""#), "{}", counts[0]);
    }
}
