//! Keeps the windows of each model, and what is known of each server, and gives the verdict on them.
//!
//! Does not depend on: where readings come from, a clock.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::{
    history::{
        occupancy::{Occupancy, Occupied},
        readings::{Reading, Readings},
        sample::Sample,
        seconds::Seconds,
        span::{WINDOW_NS, WINDOWS},
    },
    identity::{Identity, Instance, Replica},
    verdict::{
        component::{Component, Components, Missing},
        evidence::{Evidence, Readers, Workers},
        judge::{Verdict, judge},
        slow::{Because, Typical},
        window::Window,
    },
};

/// Windows that a verdict is about, the current one included.
const JUDGED: u64 = 6;
/// Windows before them that they are compared with.
const COMPARED: u64 = 12;
/// Threads or workers that are kept of a model in one window.
const IDS: usize = 256;
/// Time whose readings say why one request was slow, ns. It ends with the request, of which there may be no reading yet:
/// they explain it only if most of the time that requests took has one.
const RECENT_NS: u64 = 15_000_000_000;
/// Models that are kept. Beyond it, requests of further models have no history.
const MODELS: usize = 512;
/// Servers whose readings are kept. Beyond it, those of further servers are no evidence.
const SERVERS: usize = 256;

/// What is known of each model and server.
#[derive(Debug, Default)]
pub struct Models {
    by_identity: BTreeMap<Identity, Model>,
    /// By server and container.
    readings: BTreeMap<Instance, Readings>,
    readers: Occupancy,
    workers: Occupancy,
}

#[derive(Debug, Default)]
struct Model {
    windows: VecDeque<Kept>,
    /// When its requests took their time: what was read at that time tells of them.
    seconds: Seconds,
    typical: Typical,
}

#[derive(Debug)]
struct Kept {
    index: u64,
    /// Arrival of its first request, or first read if that is unknown, ns.
    from_ns: u64,
    /// End of its latest request, ns.
    to_ns: u64,
    window: Window,
    readers: Ids,
    workers: Ids,
}

/// Distinct threads or workers of one model in one window.
#[derive(Debug, Default)]
struct Ids {
    known: Vec<u32>,
    /// Whether there were more.
    is_cut: bool,
}

/// Windows that follow each other, as one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Span {
    /// The requests.
    pub window: Window,
    /// What is known of the server in that time.
    pub evidence: Evidence,
}

/// A verdict, and what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// The latest windows.
    pub now: Span,
    /// Those before them.
    pub before: Span,
}

impl Models {
    /// Adds a finished request; returns why it was slow, if it was slow for its model.
    pub fn add(&mut self, identity: &Identity, sample: &Sample) -> Option<Because> {
        if let Some(reader) = sample.reader {
            self.readers.add(reader);
        }
        if let Some(worker) = sample.worker {
            self.workers.add(worker);
        }
        if !self.by_identity.contains_key(identity) {
            if self.by_identity.len() >= MODELS {
                return None;
            }
            self.by_identity.insert(identity.clone(), Model::default());
        }
        let model = self.by_identity.get_mut(identity)?;
        let components = sample.parts.components();
        model.add(sample, &components);
        let components = components.ok()?;
        model.seconds.add(sample.at_ns, &components);
        let (readings, seconds) = (&self.readings, &model.seconds);
        let evidence = || {
            let (mut now, mut before) = (Evidence::default(), Evidence::default());
            if let Some(readings) = readings.get(&identity.processes()) {
                let start_ns = sample.at_ns.saturating_sub(RECENT_NS);
                let from_ns = start_ns.saturating_sub(COMPARED * WINDOW_NS);
                readings.tell(seconds.within(start_ns, sample.at_ns + 1), &mut now);
                readings.tell(seconds.within(from_ns, start_ns), &mut before);
            }
            (now, before)
        };
        let typical = &mut model.typical;
        typical.because(&sample.parts, components, evidence)
    }

    /// Forgets the models of these replicas.
    pub fn forget(&mut self, replicas: &HashSet<Replica>) {
        let is_kept = |replica: &Replica| !replicas.contains(replica);
        self.by_identity
            .retain(|identity, _| is_kept(&identity.replica));
        let ended: HashSet<Replica> = replicas.iter().map(Replica::without_port).collect();
        self.readings
            .retain(|server, _| !server.replica.is_contained() || !ended.contains(&server.replica));
    }

    /// Adds what a collector read of the processes of a server in one container.
    pub fn read(&mut self, server: &Instance, reading: Reading) {
        if !self.readings.contains_key(server) && self.readings.len() >= SERVERS {
            return;
        }
        let readings = self.readings.entry(server.clone()).or_default();
        readings.add(&reading);
    }

    /// Returns the identity of every model that has windows.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.by_identity.keys()
    }

    /// Returns who read the requests of each model that ended in the latest windows.
    pub fn readers(&self, now_ns: u64) -> impl Iterator<Item = (&Identity, Readers)> {
        let (start, end) = (judged_from_ns(now_ns) / WINDOW_NS, now_ns / WINDOW_NS + 1);
        self.by_identity
            .iter()
            .filter_map(move |(identity, model)| {
                let span = self.span(identity, model, start, end);
                Some((identity, span.evidence.readers?))
            })
    }

    /// Judges the latest windows of a model at `now_ns`; `None` if the model is unknown.
    pub fn judged(&self, identity: &Identity, now_ns: u64) -> Option<Judged> {
        let model = self.by_identity.get(identity)?;
        let end = now_ns / WINDOW_NS + 1;
        let start = judged_from_ns(now_ns) / WINDOW_NS;
        let now = self.span(identity, model, start, end);
        let before = self.span(identity, model, start.saturating_sub(COMPARED), start);
        let verdict = judge(
            (&now.window, &now.evidence),
            Some((&before.window, &before.evidence)),
        );
        Some(Judged {
            verdict,
            now,
            before,
        })
    }

    fn span(&self, identity: &Identity, model: &Model, start: u64, end: u64) -> Span {
        let windows = model.windows.iter();
        let mut windows = windows
            .filter(|kept| (start..end).contains(&kept.index))
            .peekable();
        let from_ns = windows.peek().map_or(0, |kept| kept.from_ns);
        let mut to_ns = from_ns;
        let mut window = Window::default();
        let (mut readers, mut workers) = (Vec::new(), Vec::new());
        let (mut readers_cut, mut workers_cut) = (false, false);
        let (mut readers_busy, mut workers_busy) = (Share::default(), Share::default());
        for kept in windows {
            to_ns = kept.to_ns;
            readers_busy.add(
                self.readers
                    .busy(&kept.readers.known, kept.from_ns, kept.to_ns),
                kept.window.sums[Component::Queue],
            );
            workers_busy.add(
                self.workers
                    .busy(&kept.workers.known, kept.from_ns, kept.to_ns),
                kept.window.sums[Component::InnerQueue],
            );
            window.merge(&kept.window);
            readers.extend(&kept.readers.known);
            workers.extend(&kept.workers.known);
            (readers_cut, workers_cut) = (
                readers_cut || kept.readers.is_cut,
                workers_cut || kept.workers.is_cut,
            );
        }
        window.span_ns = to_ns.saturating_sub(from_ns);
        for ids in [&mut readers, &mut workers] {
            ids.sort_unstable();
            ids.dedup();
        }
        let count = |ids: &[u32]| u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let mut evidence = Evidence {
            readers: (!readers.is_empty() && !readers_cut).then(|| Readers {
                threads: count(&readers),
                busy: readers_busy.mean(),
            }),
            workers: workers_busy
                .mean()
                .filter(|_| !workers_cut)
                .map(|busy| Workers {
                    processes: count(&workers),
                    busy,
                }),
            ..Evidence::default()
        };
        if let Some(readings) = self.readings.get(&identity.processes()) {
            let seconds = model.seconds.within(start * WINDOW_NS, end * WINDOW_NS);
            readings.tell(seconds, &mut evidence);
        }
        Span { window, evidence }
    }
}

/// Returns when the windows begin that a verdict at `now_ns` is about, ns.
pub const fn judged_from_ns(now_ns: u64) -> u64 {
    (now_ns / WINDOW_NS + 1).saturating_sub(JUDGED) * WINDOW_NS
}

/// Mean of a busy share over windows, each weighted by how long requests waited in it: the load may have changed
/// meanwhile.
#[derive(Debug, Default)]
struct Share {
    sum: f64,
    weight: f64,
    is_unknown: bool,
}

impl Share {
    fn add(&mut self, share: Option<f64>, waited_ns: u64) {
        // Windows without waits weigh next to nothing.
        let weight = waited_ns as f64 + 1.0;
        self.is_unknown |= share.is_none();
        self.sum += share.unwrap_or(0.0) * weight;
        self.weight += weight;
    }

    fn mean(&self) -> Option<f64> {
        (!self.is_unknown && self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

impl Model {
    fn add(&mut self, sample: &Sample, components: &Result<Components, Missing>) {
        let index = sample.at_ns / WINDOW_NS;
        // Requests end in the order in which they are recorded, but for a few.
        let begins = self.windows.back().is_none_or(|kept| kept.index < index);
        if begins {
            if self.windows.len() >= WINDOWS {
                self.windows.pop_front();
            }
            let follows = self
                .windows
                .back()
                .is_some_and(|kept| kept.index + 1 == index);
            let begun_ns = sample.reader.map_or(sample.at_ns, |reader| reader.from_ns);
            self.windows.push_back(Kept {
                index,
                from_ns: match follows {
                    true => index * WINDOW_NS,
                    false => begun_ns.max(index * WINDOW_NS),
                },
                to_ns: sample.at_ns,
                window: Window::new(WINDOW_NS),
                readers: Ids::default(),
                workers: Ids::default(),
            });
        }
        let Some(kept) = self.windows.back_mut() else {
            return;
        };
        kept.to_ns = kept.to_ns.max(sample.at_ns);
        kept.window
            .add(&sample.parts, components, sample.status, sample.is_first);
        kept.readers.note(sample.reader);
        kept.workers.note(sample.worker);
    }
}

impl Ids {
    fn note(&mut self, occupied: Option<Occupied>) {
        let Some(Occupied { id, .. }) = occupied else {
            return;
        };
        if !self.known.contains(&id) {
            match self.known.len() < IDS {
                true => self.known.push(id),
                false => self.is_cut = true,
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use crate::verdict::{component::Parts, judge::Cause};

    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    pub(in crate::history) fn identity() -> Identity {
        Identity {
            model: "m".into(),
            version: "default".into(),
            server: "s".into(),
            replica: Replica::default(),
        }
    }

    /// A request of 20 ms that waited `queue_ns` before thread 7 read it.
    fn sample(at_ns: u64, queue_ns: u64) -> Sample {
        Sample {
            at_ns,
            parts: Parts {
                queue_ns: Some(queue_ns),
                accept_ns: Some(0),
                receive_ns: Some(0),
                sending_ns: Some(0),
                handler_ns: Some(20 * MS),
                starved_ns: Some(0),
                stream_ns: Some(0),
                undrained_ns: Some(0),
                ..Parts::default()
            },
            status: 200,
            is_first: false,
            reader: Some(Occupied {
                id: 7,
                from_ns: at_ns - 20 * MS,
                to_ns: at_ns,
                handed_over: false,
            }),
            worker: None,
        }
    }

    /// Adds requests one after the other from `from_s` to `to_s`, one each `gap_ms`.
    fn load(models: &mut Models, (from_s, to_s): (u64, u64), gap_ms: u64, queue_ms: u64) {
        let mut at_ns = from_s * S + 20 * MS;
        while at_ns < to_s * S {
            models.add(&identity(), &sample(at_ns, queue_ms * MS));
            at_ns += gap_ms * MS;
        }
    }

    fn cause(models: &Models, now_s: u64) -> Cause {
        let judged = models.judged(&identity(), now_s * S).unwrap();
        judged.verdict.cause
    }

    #[test]
    fn saturated_reader_is_found_and_ends() {
        let mut models = Models::default();
        load(&mut models, (100, 190), 80, 0);
        assert_eq!(cause(&models, 190), Cause::Fine);
        load(&mut models, (192, 210), 20, 86);
        let Cause::WaitsToBeRead { readers: 1, busy } = cause(&models, 210) else {
            panic!("{:?}", cause(&models, 210));
        };
        assert!(busy > 0.8, "{busy}");
        assert_eq!(cause(&models, 400), Cause::Idle);
        assert_eq!(
            models.judged(
                &Identity {
                    model: "n".into(),
                    ..identity()
                },
                S
            ),
            None
        );
    }

    #[test]
    fn reader_with_time_to_spare_is_slow_to_read() {
        let mut models = Models::default();
        load(&mut models, (100, 130), 200, 60);
        assert_eq!(cause(&models, 130), Cause::SlowToRead { or_accept: false });
    }

    #[test]
    fn readings_are_evidence_for_their_time() {
        let mut models = Models::default();
        load(&mut models, (100, 130), 200, 0);
        let starved = Sample {
            parts: Parts {
                handler_ns: Some(90 * MS),
                starved_ns: Some(70 * MS),
                ..sample(131 * S, 0).parts
            },
            ..sample(131 * S, 0)
        };
        for at_ms in (130_500..159_000).step_by(200) {
            let sample = Sample {
                at_ns: at_ms * MS,
                reader: None,
                ..starved
            };
            models.add(&identity(), &sample);
        }
        let lacks = "CPU limit of its control group";
        assert_eq!(
            cause(&models, 159),
            Cause::CannotSay {
                lacks,
                requests: None
            }
        );
        let mut read = |from_s: u64, to_s: u64, throttled_ns| {
            for at_s in from_s..to_s {
                let reading = Reading {
                    from_ns: at_s * S,
                    at_ns: (at_s + 1) * S,
                    throttled_ns: Some(throttled_ns),
                    own_cpu: Some(0.2),
                    ..Reading::default()
                };
                models.read(&identity().instance(), reading);
            }
            cause(&models, 159)
        };
        // Readings of the time before, and of a few seconds.
        let Cause::CannotSay { lacks, requests } = read(100, 134, S) else {
            panic!("the readings are older than most requests");
        };
        assert_eq!(lacks, "CPU limit of its control group");
        assert!(
            requests.is_some_and(|requests| requests > 50),
            "{requests:?}"
        );
        assert_eq!(read(134, 159, 0), Cause::CpuTaken);
    }

    #[test]
    fn slow_request_is_named_once_there_is_a_median() {
        let mut models = Models::default();
        load(&mut models, (100, 110), 200, 0);
        let because = models.add(&identity(), &sample(111 * S, 300 * MS));
        assert_eq!(because, Some(Because::Queue));
        assert_eq!(models.add(&identity(), &sample(112 * S, 0)), None);
    }

    #[test]
    fn readers_of_the_latest_windows_are_counted_unless_they_are_too_many() {
        let mut models = Models::default();
        load(&mut models, (100, 110), 1_000, 0);
        let mut other = sample(107 * S, 0);
        other.reader = other.reader.map(|reader| Occupied { id: 8, ..reader });
        models.add(&identity(), &other);
        let readers =
            |models: &Models, now_s| models.readers(now_s * S).next().map(|(_, readers)| readers);
        let now = readers(&models, 112).unwrap();
        assert_eq!(now.threads, 2);
        assert!((0.01..0.03).contains(&now.busy.unwrap()), "{now:?}");
        assert_eq!(readers(&models, 200), None);
        for id in 0..=IDS as u32 {
            other.reader = other.reader.map(|reader| Occupied { id, ..reader });
            models.add(&identity(), &other);
        }
        assert_eq!(readers(&models, 112), None);
    }

    #[test]
    fn models_and_windows_are_bounded() {
        let mut models = Models::default();
        for number in 0..2 * MODELS {
            let identity = Identity {
                model: number.to_string().into(),
                ..identity()
            };
            models.add(&identity, &sample(100 * S, 0));
        }
        assert_eq!(models.identities().count(), MODELS);
        let mut models = Models::default();
        load(&mut models, (100, 1_000), 1_000, 0);
        assert_eq!(models.by_identity[&identity()].windows.len(), WINDOWS);
    }
}
