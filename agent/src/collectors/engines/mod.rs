//! Asks servers for their Prometheus page, and sets what they say of themselves beside what the kernel shows.
//!
//! Only with `--ask-servers`, because it sends requests. On a thread of its own, with limits on time and size.
//! Does not depend on: verdicts.

mod page;
mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use tokio::runtime::Runtime;
use tracing::info;

use crate::{
    clock::monotonic_ns,
    collectors::engines::{page::Figures, places::Unreachable},
    discovery::roster::Roster,
    history::{History, readings},
    http::client::{FetchError, Limits, fetch},
    identity::Instance,
    metrics::{Metrics, Reading, families},
    verdict::evidence::Engine,
};

/// Label `collector`, and name of the thread.
const COLLECTOR: &str = "engines";
/// Servers of the catalogue that have a page with such figures.
pub const ENGINES: [&str; 6] = [
    "vllm",
    "sglang",
    "tgi",
    "triton",
    "llama-server",
    "ray-serve",
];
/// Longest time between two rounds.
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// Rounds after which a value that was not read again expires.
const STALE_AFTER: u32 = 3;
/// Most servers to ask.
const MAX_SERVERS: usize = 16;
/// Most addresses to ask of one server.
const MAX_ADDRESSES: usize = 8;
/// Time after which the addresses of a server are looked for again.
const SEARCH_AFTER: Duration = Duration::from_secs(60);
/// Limits of one answer.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(1),
    body_bytes: 4 << 20,
};
/// Difference between the two numbers of requests that may come from their reading one after the other.
const SLACK: (f64, f64) = (1.0, 0.1);

/// Asks the servers of `roster` for as long as `metrics` is in use elsewhere. Their answers are also evidence in `history`.
pub fn spawn(
    metrics: &Arc<Metrics>,
    history: Arc<History>,
    refresh: Duration,
    roster: Arc<Roster>,
) -> io::Result<()> {
    metrics.collector_up(COLLECTOR, false);
    let metrics = Arc::downgrade(metrics);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name(COLLECTOR.into())
        .spawn(move || {
            let interval = refresh.min(MAX_INTERVAL);
            watch(&metrics, &history, interval, &roster, &runtime);
        })?;
    Ok(())
}

fn watch(
    metrics: &Weak<Metrics>,
    history: &History,
    interval: Duration,
    roster: &Roster,
    runtime: &Runtime,
) {
    let mut servers: BTreeMap<Instance, Server> = BTreeMap::new();
    while let Some(metrics) = metrics.upgrade() {
        let found = roster.recognised(&ENGINES);
        servers.retain(|server, _| found.contains_key(server));
        let mut series = Vec::new();
        for (server, recognised) in found.into_iter().take(MAX_SERVERS) {
            let from_ns = monotonic_ns();
            let state = servers.entry(server.clone()).or_default();
            let pids = places::with_helpers(&recognised);
            let Some(said) = state.ask(&server, &pids, &metrics, runtime) else {
                continue;
            };
            series.extend(said.series(&server));
            let reading = readings::Reading {
                from_ns,
                at_ns: monotonic_ns(),
                engine: Some(said.evidence),
                ..readings::Reading::default()
            };
            history.models().read(&server, reading);
        }
        let valid_until = Instant::now() + interval * STALE_AFTER;
        metrics.set_readings(COLLECTOR, series, valid_until);
        metrics.collector_up_until(COLLECTOR, valid_until);
        drop(metrics);
        thread::sleep(interval);
    }
}

/// What is kept of a server from one round to the next.
#[derive(Debug, Default)]
struct Server {
    /// Its processes when its addresses were looked for.
    pids: BTreeSet<u32>,
    /// Addresses with a page of an engine, and its counters at the reading before.
    pages: BTreeMap<SocketAddr, Option<Figures>>,
    searched: Option<Instant>,
    /// Requests stopped since the agent started to ask; `None` if the engine does not say.
    preemptions: Option<u64>,
}

/// What a server said in one round.
#[derive(Debug)]
struct Said {
    engine: &'static str,
    evidence: Engine,
    batch: Option<f64>,
    /// Since the agent started to ask.
    preemptions: Option<u64>,
}

impl Server {
    fn ask(
        &mut self,
        server: &Instance,
        pids: &BTreeSet<u32>,
        metrics: &Metrics,
        runtime: &Runtime,
    ) -> Option<Said> {
        let ask = |address| match runtime.block_on(page_of(address)) {
            Ok(figures) => {
                count(metrics, server, "answered");
                Some(figures)
            }
            Err(outcome) => {
                count(metrics, server, outcome);
                None
            }
        };
        if self.is_stale(pids) {
            self.search(server, pids, metrics, ask);
        }
        if self.pages.is_empty() {
            return None;
        }
        let before = metrics.in_flight(server);
        let mut now = Vec::new();
        for (address, last) in &mut self.pages {
            let Some(figures) = ask(*address) else {
                *last = None;
                continue;
            };
            now.push((last.replace(figures), figures));
        }
        let after = metrics.in_flight(server);
        let said = Said::of(&now, before.zip(after))?;
        if let Some(growth) = said.evidence.preemptions {
            *self.preemptions.get_or_insert(0) += growth;
        }
        if said.evidence.differing > 0 {
            let labels = labels(server, said.engine);
            metrics.add(&families::ENGINE_DIFFERENCES, &labels, 1);
        }
        Some(Said {
            preemptions: self.preemptions,
            ..said
        })
    }

    fn is_stale(&self, pids: &BTreeSet<u32>) -> bool {
        let is_old = self
            .searched
            .is_none_or(|searched| searched.elapsed() >= SEARCH_AFTER);
        is_old || self.pids != *pids
    }

    /// Asks every address of the server that is not known to have a page.
    fn search(
        &mut self,
        server: &Instance,
        pids: &BTreeSet<u32>,
        metrics: &Metrics,
        ask: impl Fn(SocketAddr) -> Option<Figures>,
    ) {
        let is_first = self.searched.is_none();
        self.searched = Some(Instant::now());
        self.pids.clone_from(pids);
        let mut addresses = BTreeSet::new();
        for pid in pids {
            match places::of(*pid) {
                Ok(found) => addresses.extend(found),
                Err(Unreachable::OtherNamespace) => count(metrics, server, "other_namespace"),
                Err(Unreachable::Refused) => count(metrics, server, "process_unreadable"),
            }
        }
        self.pages.retain(|address, _| addresses.contains(address));
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            if !self.pages.contains_key(&address)
                && let Some(figures) = ask(address)
            {
                info!(
                    server = &*server.server,
                    engine = figures.engine,
                    "asked at http://{address}/metrics"
                );
                self.pages.insert(address, None);
            }
        }
        if is_first && self.pages.is_empty() {
            info!(
                server = &*server.server,
                "has no Prometheus page that says what it does"
            );
        }
    }
}

/// Reads the page at an address; returns the reason if it has none.
async fn page_of(address: SocketAddr) -> Result<Figures, &'static str> {
    let url = format!("http://{address}/metrics");
    let url = url.parse().map_err(|_| "refused")?;
    let response = fetch(Method::GET, &url, None, LIMITS).await;
    let response = response.map_err(|err| match err {
        FetchError::Connect(_) => "refused",
        FetchError::Timeout(_) => "timeout",
        FetchError::Protocol(_) => "no_http",
        FetchError::TooLarge(_) => "too_large",
    })?;
    if response.status != StatusCode::OK {
        return Err("no_page");
    }
    let text = String::from_utf8_lossy(&response.body);
    Figures::of(&text).ok_or("no_figures")
}

fn count(metrics: &Metrics, server: &Instance, outcome: &str) {
    metrics.add(&families::ENGINE_ASKS, &labels(server, outcome), 1);
}

/// Values of the labels of a family: `own` is that of its own label.
fn labels<'a>(server: &'a Instance, own: &'a str) -> Vec<&'a str> {
    let container = server.replica.container_labels();
    [&[&*server.server, own][..], &container].concat()
}

impl Said {
    /// Joins the pages of one server, each with its figures before, and the requests in flight before and after; `None` if
    /// there is no page.
    fn of(pages: &[(Option<Figures>, Figures)], in_flight: Option<(u64, u64)>) -> Option<Self> {
        let engine = pages.first()?.1.engine;
        let sum = |of: fn(&Figures) -> Option<f64>| {
            let values = pages.iter().filter_map(|(_, now)| of(now));
            values.reduce(|one, other| one + other)
        };
        let (running, waiting) = (sum(|now| now.running), sum(|now| now.waiting));
        let kv_caches = pages.iter().filter_map(|(_, now)| now.kv_cache);
        let executed = pages.iter().filter_map(|(before, now)| {
            let (before, now) = (before.as_ref()?.executed?, now.executed?);
            Some((now.0 - before.0, now.1 - before.1))
        });
        let executed = executed.reduce(|one, other| (one.0 + other.0, one.1 + other.1));
        let mean_batch = executed
            .filter(|(requests, executions)| *requests >= 0.0 && *executions >= 1.0)
            .map(|(requests, executions)| requests / executions);
        Some(Self {
            engine,
            evidence: Engine {
                readings: 1,
                running,
                waiting,
                kv_cache: kv_caches.reduce(f64::max),
                preemptions: growth(pages),
                in_flight: in_flight.map(|(before, after)| (before + after) as f64 / 2.0),
                differing: u32::from(differ(running.zip(waiting), in_flight)),
            },
            batch: sum(|now| now.batch).or(mean_batch),
            preemptions: None,
        })
    }

    fn series(&self, server: &Instance) -> Vec<Reading> {
        let Engine {
            running,
            waiting,
            kv_cache,
            in_flight,
            ..
        } = self.evidence;
        let values = [
            (&families::ENGINE_RUNNING, running),
            (&families::ENGINE_WAITING, waiting),
            (&families::ENGINE_KV_CACHE, kv_cache),
            (&families::ENGINE_BATCH, self.batch),
            (&families::ENGINE_IN_FLIGHT, in_flight),
            (
                &families::ENGINE_PREEMPTIONS,
                self.preemptions.map(|number| number as f64),
            ),
        ];
        let known = values
            .into_iter()
            .filter_map(|(family, value)| Some((family, value?)));
        known
            .map(|(family, value)| Reading::new(family, &labels(server, self.engine), value))
            .collect()
    }
}

/// Requests stopped since the reading before. An engine that counts fewer than before was started anew.
fn growth(pages: &[(Option<Figures>, Figures)]) -> Option<u64> {
    let growths = pages.iter().filter_map(|(before, now)| {
        let now = now.preemptions?;
        let before = before.as_ref().and_then(|before| before.preemptions);
        let growth = match before {
            // What was before the first reading does not count.
            None => 0.0,
            Some(before) if before > now => now,
            Some(before) => now - before,
        };
        Some(growth as u64)
    });
    growths.reduce(|one, other| one + other)
}

/// Whether an engine's requests, running and waiting, are others than those in flight before and after it was asked.
fn differ(engine: Option<(f64, f64)>, in_flight: Option<(u64, u64)>) -> bool {
    let (Some((running, waiting)), Some((before, after))) = (engine, in_flight) else {
        return false;
    };
    let all = running + waiting;
    let (least, most) = (before.min(after) as f64, before.max(after) as f64);
    let (requests, share) = SLACK;
    let slack = requests.max(share * most);
    all < least - slack || all > most + slack
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(running: f64, waiting: f64, preemptions: f64) -> Figures {
        Figures {
            engine: "vllm",
            running: Some(running),
            waiting: Some(waiting),
            kv_cache: Some(running / 10.0),
            preemptions: Some(preemptions),
            ..Figures::default()
        }
    }

    #[test]
    fn pages_of_one_server_add_up() {
        let pages = [
            (Some(figures(1.0, 0.0, 5.0)), figures(4.0, 1.0, 7.0)),
            (Some(figures(1.0, 0.0, 9.0)), figures(6.0, 2.0, 3.0)),
            (None, figures(0.0, 0.0, 400.0)),
        ];
        let said = Said::of(&pages, Some((12, 14))).unwrap();
        let expected = Engine {
            readings: 1,
            running: Some(10.0),
            waiting: Some(3.0),
            kv_cache: Some(0.6),
            preemptions: Some(5),
            in_flight: Some(13.0),
            differing: 0,
        };
        assert_eq!(said.evidence, expected);
        assert!(Said::of(&[], None).is_none());
    }

    #[test]
    fn batches_of_triton_are_requests_per_execution() {
        let triton = |executed| Figures {
            engine: "triton",
            waiting: Some(0.0),
            executed: Some(executed),
            ..Figures::default()
        };
        for (before, now, expected) in [
            ((80.0, 20.0), (128.0, 26.0), Some(8.0)),
            ((80.0, 20.0), (80.0, 20.0), None),
            ((80.0, 20.0), (8.0, 2.0), None),
        ] {
            let said = Said::of(&[(Some(triton(before)), triton(now))], None).unwrap();
            assert_eq!(said.batch, expected);
        }
    }

    #[test]
    fn numbers_of_requests_differ_beyond_what_may_begin_and_end_meanwhile() {
        for (engine, in_flight, expected) in [
            (Some((8.0, 3.0)), Some((11, 11)), false),
            (Some((8.0, 4.0)), Some((11, 11)), false),
            (Some((8.0, 5.0)), Some((11, 11)), true),
            (Some((2.0, 0.0)), Some((4, 4)), true),
            (Some((2.0, 0.0)), Some((1, 9)), false),
            (Some((200.0, 18.0)), Some((200, 200)), false),
            (Some((200.0, 23.0)), Some((200, 200)), true),
            (None, Some((9, 9)), false),
            (Some((2.0, 0.0)), None, false),
        ] {
            assert_eq!(
                differ(engine, in_flight),
                expected,
                "{engine:?} {in_flight:?}"
            );
        }
    }
}
