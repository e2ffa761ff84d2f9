//! Puts together what the API says, from what the agent keeps.
//!
//! `values` reads the metrics, `gpus` those of GPUs, `cost` the agent's own CPU time.
//! Does not depend on: how anything is measured, HTTP.

mod cost;
mod gpus;
mod losses;
mod models;
mod values;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    api::{
        self, Labels, Served,
        history::Wanted,
        live::{Coverage, Host, Live, Probes, Server},
        requests::Requests,
    },
    clock::monotonic_ns,
    discovery::roster::Roster,
    history::{History, models::judged_from_ns, span::WINDOW_NS},
    identity::Identity,
    live::{cost::CpuTime, values::Values},
    metrics::{Metrics, families, family::Family},
};

/// Most processes that are listed of a server.
const MAX_PIDS: usize = 64;

/// What the agent keeps that the API tells of.
#[derive(Debug)]
pub struct Kept {
    hostname: String,
    started_ns: u64,
    metrics: Arc<Metrics>,
    history: Arc<History>,
    roster: Arc<Roster>,
    cpu_time: CpuTime,
}

impl Kept {
    /// Tells of these from now on.
    pub fn new(
        hostname: &str,
        metrics: Arc<Metrics>,
        history: Arc<History>,
        roster: Arc<Roster>,
    ) -> Self {
        Self {
            hostname: hostname.to_owned(),
            started_ns: monotonic_ns(),
            metrics,
            history,
            roster,
            cpu_time: CpuTime::default(),
        }
    }

    /// Returns what is known now. The metrics of the agent's own process must be fresh.
    pub fn live(&self, probes: Probes) -> Live {
        let now_ns = monotonic_ns();
        let values = Values::read(&self.metrics);
        let from_ns = judged_from_ns(now_ns).max(self.started_ns);
        let span_ns = now_ns.saturating_sub(from_ns);
        let coverage = coverage_by_server(&values);
        let (totals, models, models_omitted) =
            models::list(&self.history, &values, now_ns, span_ns);
        Live {
            source: self.source(now_ns),
            span_ms: span_ns / 1_000_000,
            probes,
            totals,
            coverage: whole(coverage.values()),
            losses: losses::list(&values),
            cost: self.cpu_time.cost(&values, now_ns),
            models,
            models_omitted,
            servers: self.servers(&values, coverage),
            host: host(&values),
            gpus: gpus::read(&values),
        }
    }

    /// Returns at most `limit` finished requests after number `after`; the latest ones if that is `None`.
    pub fn requests(&self, after: Option<u64>, limit: usize) -> Requests {
        let unseen = self.history.finished().after(after, limit);
        Requests {
            source: self.source(monotonic_ns()),
            next: unseen
                .requests
                .last()
                .map_or(unseen.last, |last| last.number),
            last: unseen.last,
            missed: unseen.missed,
            requests: unseen.requests,
        }
    }

    /// Returns the windows that are wanted.
    pub fn history(&self, wanted: &Wanted) -> api::history::History {
        let from = wanted.from.unwrap_or(0);
        let is_meant = |identity: &Identity| {
            let served = [&*identity.model, &*identity.version, &*identity.server];
            wanted.is_of(served, identity.replica.labels())
        };
        let is_whole = wanted.is_whole();
        let meant: Option<&dyn Fn(&Identity) -> bool> = (!is_whole).then_some(&is_meant);
        let (identities, windows) = self.history.trends().windows(from, meant);
        api::history::History {
            source: self.source(monotonic_ns()),
            window_ms: WINDOW_NS / 1_000_000,
            served: identities.iter().map(Served::of).collect(),
            labels: identities
                .iter()
                .map(|one| Labels::of(&one.replica))
                .collect(),
            windows,
            gpus: match is_whole {
                true => self.history.gpus().from(from),
                false => Vec::new(),
            },
        }
    }

    fn source(&self, now_ns: u64) -> api::Source {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        api::Source {
            api_version: api::VERSION,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            hostname: self.hostname.clone(),
            started_ns: self.started_ns,
            now_ns,
            unix_ms: unix.map_or(0, |unix| unix.as_millis() as u64),
        }
    }

    fn servers(&self, values: &Values, coverage: BTreeMap<String, Coverage>) -> Vec<Server> {
        let mut servers: BTreeMap<String, Server> = BTreeMap::new();
        for (pid, instance) in self.roster.servers(|_| true) {
            let server = servers.entry(instance.server.to_string());
            server.or_default().pids.push(pid);
        }
        for (name, coverage) in coverage {
            servers.entry(name).or_default().coverage = coverage;
        }
        for sample in values.of(&families::SERVER_THREADS) {
            let name = values::label(sample, "server").to_owned();
            let threads = &mut servers.entry(name).or_default().threads;
            *threads.get_or_insert(0) += sample.value as u64;
        }
        let named = servers.into_iter().map(|(name, mut server)| {
            server.server = name;
            server.processes = server.pids.len() as u64;
            server.pids.sort_unstable();
            server.pids.truncate(MAX_PIDS);
            server
        });
        named.collect()
    }
}

fn coverage_by_server(values: &Values) -> BTreeMap<String, Coverage> {
    let mut by_server: BTreeMap<String, Coverage> = BTreeMap::new();
    let mut each = |family: &Family, set: &dyn Fn(&mut Coverage, f64)| {
        for sample in values.of(family) {
            let name = values::label(sample, "server").to_owned();
            set(by_server.entry(name).or_default(), sample.value);
        }
    };
    // A server may have several replicas.
    each(&families::SOCKET_BYTES, &|coverage, bytes| {
        coverage.socket_bytes += bytes as u64;
    });
    each(&families::MISSED_BYTES, &|coverage, bytes| {
        coverage.missed_bytes += bytes as u64;
    });
    for coverage in by_server.values_mut() {
        coverage.ratio = ratio_of(coverage);
    }
    by_server
}

fn ratio_of(coverage: &Coverage) -> Option<f64> {
    let covered_bytes = coverage.socket_bytes.saturating_sub(coverage.missed_bytes);
    (coverage.socket_bytes > 0).then(|| covered_bytes as f64 / coverage.socket_bytes as f64)
}

/// Adds up the coverage of all servers.
fn whole<'a>(servers: impl Iterator<Item = &'a Coverage>) -> Coverage {
    let mut whole = Coverage::default();
    for server in servers {
        whole.socket_bytes += server.socket_bytes;
        whole.missed_bytes += server.missed_bytes;
    }
    whole.ratio = ratio_of(&whole);
    whole
}

fn host(values: &Values) -> Host {
    let ratio = |pct: f64| pct / 100.0;
    Host {
        cpu_ratio: values.one(&families::CPU_UTILIZATION).map(ratio),
        memory_ratio: values.one(&families::MEMORY_UTILIZATION).map(ratio),
        memory_used_bytes: values
            .one(&families::MEMORY_USED)
            .map(|mib| (mib * f64::from(1 << 20)) as u64),
    }
}

#[cfg(test)]
mod tests;
