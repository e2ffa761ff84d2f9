//! Sums up finished requests: responses by class, and the agent's own families.
//!
//! `torchserve` sums up the same requests by TorchServe's rules. The number of series is limited.
//! Does not depend on: how a request was measured.

mod replicas;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    catalogue::route::{ModelSource, Purpose},
    exchange::byte_accounting::ByteCounts,
    identity::{Identity, Instance, Replica},
    metrics::{
        cardinality::{Cardinality, OTHER},
        encode::{Samples, Value},
        families,
        family::Family,
        gen_ai::GenAi,
        histogram::Histogram,
        stages,
        streams::{self, Streams},
        torchserve::{self, LastTimes},
    },
    observation::{Observation, Protocol, Stream, tokens::Tokens},
    torchserve::timing::WorkerSide,
    verdict::slow::Because,
};

/// Distinct status codes of one model or server.
const MAX_CODES: usize = 32;

/// Totals and last values of all requests since the agent started.
#[derive(Debug)]
pub(crate) struct Requests {
    cardinality: Cardinality,
    by_identity: BTreeMap<Identity, Served>,
    /// Of replicas that are forgotten: TorchServe's families do not tell replicas apart.
    forgotten: BTreeMap<Identity, torchserve::ModelTotals>,
    admin: BTreeMap<Instance, Codes>,
    carried: BTreeMap<Instance, ByteCounts>,
    accept_wait: BTreeMap<Instance, Histogram>,
    internal: BTreeMap<Instance, u64>,
    /// Requests that a watched server sent: by the server that got them, and its own label.
    from_gateways: BTreeMap<(Instance, Arc<str>), u64>,
    losses: BTreeMap<Instance, Losses>,
    /// Open requests at the latest scrape; `None` if they are not known.
    in_flight: Option<BTreeMap<Identity, u64>>,
    /// Connections that each server has open; `None` if that is not known.
    connections: Option<BTreeMap<Instance, u64>>,
    last_times: LastTimes,
    /// Requests of every purpose but internal ones.
    observed: u64,
    responses: Responses,
    unknown: Unknown,
    unknown_of_streams: streams::Unknown,
}

/// What was served under one identity. Each request looks it up once. A scrape sums up the families that have only the
/// label of the model.
#[derive(Debug, Default)]
struct Served {
    /// Requests by the source of their model, in the order of [`ModelSource::ALL`].
    sources: [u64; ModelSource::ALL.len()],
    /// Whether a request proved that the server knows the model and was counted under its own labels. The limits then
    /// need no check for later requests.
    settled: bool,
    codes: Codes,
    queue: Histogram,
    handler: Histogram,
    starved: Histogram,
    /// Slow requests by reason.
    slow: [u64; Because::ALL.len()],
    duration: Histogram,
    inner_queue: Histogram,
    worker: Histogram,
    relay: Histogram,
    /// Of WebSocket sessions: bytes and messages, received and sent.
    sessions: Option<Box<[Traffic; 2]>>,
    /// Most models never stream.
    streams: Option<Box<Streams>>,
    /// Most models are no language models.
    gen_ai: Option<Box<GenAi>>,
    torchserve: torchserve::ModelTotals,
}

/// Responses by status code, 0 if it is unknown. `None`: a code outside 100 to 599, or beyond the limit.
type Codes = BTreeMap<Option<u16>, u64>;

/// Counts of a family by reason; the key is the family's name and the reason.
type Losses = BTreeMap<(&'static str, &'static str), (&'static Family, u64)>;

/// What one direction of sessions carried.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    bytes: u64,
    messages: u64,
}

/// HTTP responses of every purpose by class. As in TorchServe, a code that is neither 2xx nor 4xx counts as 5xx.
#[derive(Debug, Default)]
struct Responses {
    success: u64,
    client_error: u64,
    server_error: u64,
}

/// Inference requests with a stage that could not be timed.
#[derive(Debug, Default)]
struct Unknown {
    queue: u64,
    handler: u64,
    starved: u64,
    stream: u64,
    inner_queue: u64,
    worker: u64,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            cardinality: Cardinality::new(),
            by_identity: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            admin: BTreeMap::new(),
            carried: BTreeMap::new(),
            accept_wait: BTreeMap::new(),
            internal: BTreeMap::new(),
            from_gateways: BTreeMap::new(),
            losses: BTreeMap::new(),
            in_flight: None,
            connections: None,
            last_times: LastTimes::default(),
            observed: 0,
            responses: Responses::default(),
            unknown: Unknown::default(),
            unknown_of_streams: streams::Unknown::default(),
        }
    }

    /// Adds one finished request.
    pub(crate) fn observe(&mut self, observation: &Observation) {
        if observation.purpose != Purpose::Internal {
            self.observed += 1;
            if observation.protocol == Protocol::Http && observation.hop.is_nearest {
                self.responses.add(observation.status);
            }
        }
        match observation.purpose {
            Purpose::Admin => {
                let server = self.admit_instance(&observation.identity.instance());
                let codes = self.admin.entry(server).or_default();
                count_code(codes, observation.status, &mut self.cardinality);
            }
            Purpose::Inference => self.observe_inference(observation),
            Purpose::Internal => {
                let server = self.admit_instance(&observation.identity.instance());
                *self.internal.entry(server).or_default() += 1;
            }
        }
    }

    /// Adds a TorchServe request whose client left before the response. TorchServe counts it as answered; the agent's
    /// own families count it as unfinished.
    pub(crate) fn observe_abandoned(&mut self, observation: &Observation) {
        self.observed += 1;
        if observation.protocol == Protocol::Http {
            self.responses.add(observation.status);
        }
        self.last_times.add(observation);
        let identity = self.cardinality.admit(&observation.identity, true);
        let served = self.by_identity.entry(identity).or_default();
        served.torchserve.add(observation, self.observed);
    }

    pub(crate) fn admit_instance(&mut self, server: &Instance) -> Instance {
        self.cardinality.admit_instance(server)
    }

    /// Adds `n` to what was lost or left unfinished of `server`; 0 exports it as 0 if nothing was.
    pub(crate) fn lost(
        &mut self,
        family: &'static Family,
        server: &Instance,
        reason: &'static str,
        n: u64,
    ) {
        let losses = self.losses.entry(self.cardinality.admit_instance(server));
        let count = losses.or_default().entry((family.name, reason));
        count.or_insert((family, 0)).1 += n;
    }

    /// Sets how many requests each identity has open.
    pub(crate) fn set_in_flight(&mut self, open: &BTreeMap<Identity, u64>) {
        let mut in_flight: BTreeMap<Identity, u64> = self
            .by_identity
            .keys()
            .map(|identity| (identity.clone(), 0))
            .collect();
        for (identity, count) in open {
            let identity = self.cardinality.admit(identity, false);
            *in_flight.entry(identity).or_default() += count;
        }
        self.in_flight = Some(in_flight);
    }

    /// Sets how many connections each server has open.
    pub(crate) fn set_connections(&mut self, open: &BTreeMap<Instance, u64>) {
        let known = self.carried.keys().map(|server| (server.clone(), 0));
        let mut connections: BTreeMap<Instance, u64> = known.collect();
        for (server, count) in open {
            let server = self.admit_instance(server);
            *connections.entry(server).or_default() += count;
        }
        self.connections = Some(connections);
    }

    /// Returns how many the processes of a server in one container have open; `None` if that is not known.
    pub(crate) fn in_flight_of(&self, server: &Instance) -> Option<u64> {
        let open = self.in_flight.as_ref()?.iter();
        let own = open.filter(|(identity, _)| identity.processes() == *server);
        Some(own.map(|(_, count)| count).sum())
    }

    /// Forgets them, because they are not known any more.
    pub(crate) fn forget_in_flight(&mut self) {
        self.in_flight = None;
        self.connections = None;
    }

    /// Adds a connection that had waited `wait_ns` until `server` accepted it.
    pub(crate) fn accepted(&mut self, server: &Instance, wait_ns: u64) {
        let server = self.admit_instance(server);
        self.accept_wait
            .entry(server)
            .or_default()
            .observe_ns(wait_ns);
    }

    /// Adds bytes read and written on watched sockets of `server`.
    pub(crate) fn carried(&mut self, server: &Instance, counts: ByteCounts) {
        let server = self.admit_instance(server);
        *self.carried.entry(server).or_default() += counts;
    }

    fn observe_inference(&mut self, observation: &Observation) {
        let status = observation.status;
        self.unknown.add(observation);
        if let Some(stream) = streamed(observation) {
            self.unknown_of_streams.add(stream);
        }
        if let Some(tokens) = streamed_tokens(observation) {
            self.unknown_of_streams.add_tokens(tokens);
        }
        if let Some(session) = &observation.session {
            self.unknown_of_streams.add_session(session);
        }
        if observation.hop.is_nearest {
            self.last_times.add(observation);
        }
        if let Some(gateway) = &observation.hop.gateway {
            let server = self.admit_instance(&observation.identity.instance());
            let gateway = self.cardinality.admit_server(gateway);
            *self.from_gateways.entry((server, gateway)).or_default() += 1;
        }

        let index = self.observed;
        if let Some(served) = self.by_identity.get_mut(&observation.identity)
            && served.settled
        {
            served.add(observation, index, &mut self.cardinality);
            return;
        }
        let proven = !(400..=499).contains(&status);
        let identity = self.cardinality.admit(&observation.identity, proven);
        let settled = proven && identity == observation.identity;
        let served = self.by_identity.entry(identity).or_default();
        served.settled |= settled;
        served.add(observation, index, &mut self.cardinality);
    }

    /// Adds every series to `samples`.
    pub(crate) fn collect(&self, hostname: &str, samples: &mut Samples) {
        self.collect_torchserve(hostname, samples);
        for (identity, served) in &self.by_identity {
            let Identity {
                model,
                version,
                server,
                replica,
            } = identity;
            for (code, count) in labelled(&served.codes) {
                let labels = [&**model, version, server, &code];
                samples.push_of(replica, &families::REQUESTS, &labels, Value::Integer(count));
            }
            for (family, histogram) in [
                (&families::REQUEST_QUEUE, &served.queue),
                (&families::REQUEST_HANDLER, &served.handler),
                (&families::REQUEST_STARVED, &served.starved),
                (&families::REQUEST_DURATION, &served.duration),
                (&families::REQUEST_INNER_QUEUE, &served.inner_queue),
                (&families::REQUEST_WORKER, &served.worker),
                (&families::REQUEST_RELAY, &served.relay),
            ] {
                samples.push_histogram_of(replica, family, &[model, version, server], histogram);
            }
            for (traffic, direction) in served
                .sessions
                .iter()
                .flat_map(|both| both.iter().zip(["received", "sent"]))
            {
                let labels = [&**model, version, server, direction];
                for (family, count) in [
                    (&families::SESSION_BYTES, traffic.bytes),
                    (&families::SESSION_MESSAGES, traffic.messages),
                ] {
                    samples.push_of(replica, family, &labels, Value::Integer(count));
                }
            }
            for because in Because::ALL {
                let count = served.slow[because as usize];
                if count > 0 {
                    let labels = [&**model, version, server, because.name()];
                    samples.push_of(
                        replica,
                        &families::SLOW_REQUESTS,
                        &labels,
                        Value::Integer(count),
                    );
                }
            }
            if let Some(streams) = &served.streams {
                streams.collect(identity, samples);
            }
            if let Some(gen_ai) = &served.gen_ai {
                gen_ai.collect(identity, samples);
            }
        }
        for (server, replica, source, count) in self.model_sources() {
            let (family, value) = (&families::MODEL_SOURCE, Value::Integer(count));
            samples.push_of(replica, family, &[server, source], value);
        }
        for (Instance { server, replica }, codes) in &self.admin {
            for (code, count) in labelled(codes) {
                let (family, value) = (&families::ADMIN_REQUESTS, Value::Integer(count));
                samples.push_of(replica, family, &[server, &code], value);
            }
        }
        for (Instance { server, replica }, waits) in &self.accept_wait {
            samples.push_histogram_of(replica, &families::ACCEPT_WAIT, &[&**server], waits);
        }
        for (Instance { server, replica }, counts) in &self.carried {
            let ratio = counts.covered_ratio().map(Value::Float);
            for (family, value) in [
                (&families::COVERAGE, ratio),
                (
                    &families::SOCKET_BYTES,
                    Some(Value::Integer(counts.seen_bytes)),
                ),
                (
                    &families::MISSED_BYTES,
                    Some(Value::Integer(counts.missed_bytes)),
                ),
                (
                    &families::TLS_UNREAD_BYTES,
                    (counts.unread_bytes > 0).then_some(Value::Integer(counts.unread_bytes)),
                ),
            ] {
                if let Some(value) = value {
                    samples.push_of(replica, family, &[&**server], value);
                }
            }
        }
        for (Instance { server, replica }, losses) in &self.losses {
            for ((_, reason), (family, count)) in losses {
                let labels = [&[&**server], &replica.labels()[..], &[reason]].concat();
                samples.push(family, &labels, Value::Integer(*count));
            }
        }
        for (Instance { server, replica }, count) in &self.internal {
            let value = Value::Integer(*count);
            samples.push_of(replica, &families::INNER_REQUESTS, &[server], value);
        }
        for (identity, count) in self.in_flight.iter().flatten() {
            let Identity {
                model,
                version,
                server,
                replica,
            } = identity;
            let value = Value::Integer(*count);
            let labels = [&**model, version, server];
            samples.push_of(replica, &families::IN_FLIGHT, &labels, value);
        }
        for (Instance { server, replica }, count) in self.connections.iter().flatten() {
            let (family, value) = (&families::CONNECTIONS, Value::Integer(*count));
            samples.push_of(replica, family, &[server], value);
        }
        for ((Instance { server, replica }, gateway), count) in &self.from_gateways {
            let (family, value) = (&families::GATEWAY_REQUESTS, Value::Integer(*count));
            samples.push_of(replica, family, &[server, gateway], value);
        }
        for (stage, count) in [
            (&stages::HANDLER, self.unknown.handler),
            (&stages::INNER_QUEUE, self.unknown.inner_queue),
            (&stages::QUEUE, self.unknown.queue),
            (&stages::STARVED, self.unknown.starved),
            (&stages::STREAM, self.unknown.stream),
            (&stages::WORKER, self.unknown.worker),
        ] {
            let value = Value::Integer(count);
            samples.push(&families::STAGE_UNKNOWN, &[stage.name], value);
        }
        self.unknown_of_streams.collect(samples);
        for (label, count) in self.cardinality.overflows() {
            let value = Value::Integer(count);
            samples.push(&families::LABEL_OVERFLOW, &[label], value);
        }
    }

    /// Inference requests by server and the source of their model.
    fn model_sources(&self) -> impl Iterator<Item = (&str, &Replica, &'static str, u64)> {
        type Sums = [u64; ModelSource::ALL.len()];
        let mut by_server: BTreeMap<(&str, &Replica), Sums> = BTreeMap::new();
        for (identity, served) in &self.by_identity {
            let server = (&*identity.server, &identity.replica);
            let sums = by_server.entry(server).or_default();
            for (sum, count) in sums.iter_mut().zip(served.sources) {
                *sum += count;
            }
        }
        by_server.into_iter().flat_map(|((server, replica), sums)| {
            let counts = ModelSource::ALL.into_iter().zip(sums);
            let counts = counts.filter(|(_, count)| *count > 0);
            counts.map(move |(source, count)| (server, replica, source.name(), count))
        })
    }

    fn collect_torchserve(&self, hostname: &str, samples: &mut Samples) {
        let host = ["Host", hostname];
        for (family, count) in [
            (&families::REQUESTS_2XX, self.responses.success),
            (&families::REQUESTS_4XX, self.responses.client_error),
            (&families::REQUESTS_5XX, self.responses.server_error),
        ] {
            if count > 0 {
                samples.push(family, &host, Value::Float(count as f64));
            }
        }
        self.last_times.collect(hostname, samples);
        let served = self.by_identity.iter();
        let served = served.map(|(identity, served)| (identity, &served.torchserve));
        let served = served.chain(&self.forgotten);
        torchserve::collect_served(served, hostname, samples);
    }
}

impl Served {
    /// Adds one inference request, the `index`-th of all answered.
    fn add(&mut self, observation: &Observation, index: u64, cardinality: &mut Cardinality) {
        let Observation { status, stages, .. } = observation;
        let total_ns = stages.total_ns();
        self.sources[observation.model_source as usize] += 1;
        count_code(&mut self.codes, *status, cardinality);
        for (histogram, ns) in [
            (&mut self.queue, stages.queue_ns),
            (&mut self.handler, stages.handler_ns),
            (&mut self.starved, observation.starved_ns),
            (&mut self.duration, total_ns),
        ] {
            if let Some(ns) = ns {
                histogram.observe_ns(ns);
            }
        }
        if let Some(because) = observation.because {
            self.slow[because as usize] += 1;
        }
        if let WorkerSide::Observed(timing) = &observation.worker_side {
            for (histogram, ns) in [
                (&mut self.inner_queue, timing.internal_queue_ns),
                (&mut self.worker, timing.worker_ns),
                (&mut self.relay, timing.relay_ns),
            ] {
                if let Some(ns) = ns {
                    histogram.observe_ns(ns);
                }
            }
        }
        if let Some(session) = observation.session {
            let [received, sent] = &mut **self.sessions.get_or_insert_default();
            received.bytes += session.received_bytes;
            sent.bytes += session.sent_bytes;
            received.messages += session.messages.received.unwrap_or(0);
            sent.messages += session.messages.sent.unwrap_or(0);
        }
        if let Some(stream) = streamed(observation) {
            self.streams.get_or_insert_default().add(stream);
        }
        if let Some(operation) = observation.operation {
            let gen_ai = self.gen_ai.get_or_insert_default();
            gen_ai.add(operation, observation, streamed_tokens(observation));
        }
        if let Some(tokens) = &observation.tokens
            && (200..=299).contains(status)
        {
            self.gen_ai.get_or_insert_default().add_usage(tokens);
        }
        if observation.hop.is_nearest {
            self.torchserve.add(observation, index);
        }
    }
}

/// Returns the stream to count: an error is not the requested response, even if it is streamed.
fn streamed(observation: &Observation) -> Option<&Stream> {
    let stream = observation.stream.as_deref();
    stream.filter(|_| observation.status < 400)
}

/// Returns the tokens of a language model's response to count, if it is streamed.
fn streamed_tokens(observation: &Observation) -> Option<&Tokens> {
    let is_stream = streamed(observation).is_some_and(Stream::is_incremental);
    let tokens = observation.tokens.as_ref().filter(|_| is_stream);
    tokens.filter(|tokens| observation.operation.is_some() && !tokens.is_one_value)
}

impl Unknown {
    fn add(&mut self, observation: &Observation) {
        let Observation {
            status,
            stages,
            worker_side,
            ..
        } = observation;
        self.queue += u64::from(stages.queue_ns.is_none());
        self.handler += u64::from(stages.handler_ns.is_none());
        self.starved += u64::from(observation.starved_ns.is_none());
        self.stream += u64::from(stages.stream_ns.is_none());
        let (inner_queue_unknown, worker_unknown) = match worker_side {
            WorkerSide::NoWorker => (false, false),
            // Only a worker can have produced this response.
            WorkerSide::NotObserved => ((200..=299).contains(status), (200..=299).contains(status)),
            WorkerSide::Observed(timing) => (
                timing.internal_queue_ns.is_none(),
                timing.worker_ns.is_none(),
            ),
        };
        self.inner_queue += u64::from(inner_queue_unknown);
        self.worker += u64::from(worker_unknown);
    }
}

impl Responses {
    fn add(&mut self, status: u16) {
        match status {
            200..=299 => self.success += 1,
            400..=499 => self.client_error += 1,
            _ => self.server_error += 1,
        }
    }
}

fn count_code(codes: &mut Codes, status: u16, cardinality: &mut Cardinality) {
    let code = Some(status).filter(|status| matches!(status, 0 | 100..=599));
    if codes.contains_key(&code) || codes.len() < MAX_CODES {
        *codes.entry(code).or_default() += 1;
    } else {
        cardinality.overflow("code");
        *codes.entry(None).or_default() += 1;
    }
}

fn labelled(codes: &Codes) -> impl Iterator<Item = (String, u64)> {
    codes.iter().map(|(code, count)| {
        let label = match code {
            Some(0) => "unknown".to_owned(),
            Some(code) => code.to_string(),
            None => OTHER.to_owned(),
        };
        (label, *count)
    })
}

#[cfg(test)]
mod tests;
