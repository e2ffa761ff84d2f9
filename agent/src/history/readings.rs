//! Keeps what collectors read of one server, and says what it tells of the time that requests took.
//!
//! A reading tells of the time since the one before. Only what was read of the very time in which requests waited or were
//! worked on is evidence; where most of that time has no reading, the evidence is missing.
//! Does not depend on: where it is read, a clock.

use std::collections::VecDeque;

use crate::{
    history::seconds::{SECOND_NS, SECONDS, Second},
    verdict::evidence::{Engine, Evidence, Gpu},
};

/// How long readings are kept, ns.
const KEPT_NS: u64 = (SECONDS + 5) * SECOND_NS;
/// A reading that tells of a long time is kept for as many times as long: the next one may take as long.
const LONG: u64 = 3;
/// Readings of one kind that are kept.
const READINGS: usize = 512;
/// Share of the requests' time that readings must tell of.
const COVERED: f64 = 0.5;

/// What a collector read of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    /// Start of the time that it tells of: the reading before, ns.
    pub from_ns: u64,
    /// End of that time, ns.
    pub at_ns: u64,
    /// How long the CPU limit of its control group stopped it, ns; `None` if that is unknown.
    pub throttled_ns: Option<u64>,
    /// Share of the busy time of its CPUs that it took itself, 0 to 1; `None` if that is unknown.
    pub own_cpu: Option<f64>,
    /// The GPUs that it uses; `None` if it uses none, or they are unknown.
    pub gpu: Option<Gpu>,
    /// What it says of itself; `None` if it was not asked, or did not say.
    pub engine: Option<Engine>,
}

/// The readings of one server.
#[derive(Debug, Default)]
pub(super) struct Readings {
    throttled_ns: Told<u64>,
    own_cpu: Told<f64>,
    gpus: Told<Gpu>,
    engines: Told<Engine>,
}

/// Values of one kind, in the order of their time, each with that time.
#[derive(Debug)]
struct Told<T>(VecDeque<(u64, u64, T)>);

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl Readings {
    /// Adds a reading.
    pub(super) fn add(&mut self, reading: &Reading) {
        let Reading { from_ns, at_ns, .. } = *reading;
        self.throttled_ns.add(from_ns, at_ns, reading.throttled_ns);
        self.own_cpu.add(from_ns, at_ns, reading.own_cpu);
        self.gpus.add(from_ns, at_ns, reading.gpu);
        self.engines.add(from_ns, at_ns, reading.engine);
    }

    /// Adds what was read of these seconds of requests to `evidence`.
    pub(super) fn tell<'a>(
        &self,
        seconds: impl Iterator<Item = &'a Second> + Clone,
        evidence: &mut Evidence,
    ) {
        self.tell_limit(seconds.clone(), evidence);
        self.tell_own_cpu(seconds.clone(), evidence);
        self.tell_gpu(seconds.clone(), evidence);
        let worked = seconds.filter(|second| second.worked_ns > 0);
        let worked: Vec<u64> = worked.map(|second| second.index).collect();
        let mut told: Option<Engine> = None;
        for (from_ns, at_ns, engine) in &self.engines.0 {
            let asked = from_ns / SECOND_NS..=at_ns / SECOND_NS;
            if !worked.iter().any(|index| asked.contains(index)) {
                continue;
            }
            match &mut told {
                None => told = Some(*engine),
                Some(told) => told.add(engine),
            }
        }
        evidence.engine = told;
    }

    fn tell_limit<'a>(&self, seconds: impl Iterator<Item = &'a Second>, evidence: &mut Evidence) {
        if self.throttled_ns.0.is_empty() {
            return;
        }
        let (mut cover, mut stopped_ns, mut waited_ns) = (Cover::default(), 0.0_f64, 0.0);
        for second in seconds {
            let (mut covered, mut throttled_ns) = (0.0, 0.0);
            for (part, share, throttled) in self.throttled_ns.of(second.index) {
                covered += part;
                throttled_ns += share * *throttled as f64;
            }
            cover.add(second, second.starved_ns as f64, covered);
            // Several requests wait at once; one thread is not stopped for longer than the second.
            let starved_ns = second.starved_ns.min(SECOND_NS) as f64 * covered;
            stopped_ns += throttled_ns.min(starved_ns);
            waited_ns += starved_ns;
        }
        let by_limit = match waited_ns > 0.0 {
            true => stopped_ns / waited_ns,
            false => 0.0,
        };
        match cover.lacking() {
            None => evidence.by_limit = Some(by_limit),
            lacking => evidence.lacking.limit = lacking,
        }
    }

    fn tell_own_cpu<'a>(&self, seconds: impl Iterator<Item = &'a Second>, evidence: &mut Evidence) {
        if self.own_cpu.0.is_empty() {
            return;
        }
        let (mut cover, mut own) = (Cover::default(), Mean::default());
        for second in seconds.filter(|second| second.starved_ns > 0) {
            let starved_ns = second.starved_ns as f64;
            let mut covered = 0.0;
            for (part, _, share) in self.own_cpu.of(second.index) {
                covered += part;
                own.add(Some(*share), part * starved_ns);
            }
            cover.add(second, starved_ns, covered);
        }
        evidence.lacking.own_cpu = cover.lacking();
        evidence.own_cpu = own.known().filter(|_| evidence.lacking.own_cpu.is_none());
    }

    fn tell_gpu<'a>(&self, seconds: impl Iterator<Item = &'a Second>, evidence: &mut Evidence) {
        if self.gpus.0.is_empty() {
            return;
        }
        let (mut cover, mut others) = (Cover::default(), Mean::default());
        let (mut throttled, mut most) = (Mean::default(), None::<Gpu>);
        for second in seconds.filter(|second| second.worked_ns > 0) {
            let worked_ns = second.worked_ns as f64;
            let mut covered = 0.0;
            for (part, _, gpu) in self.gpus.of(second.index) {
                covered += part;
                others.add(gpu.others, part * worked_ns);
                throttled.add(gpu.throttled, part * worked_ns);
                if most.is_none_or(|most| most.others < gpu.others) {
                    most = Some(*gpu);
                }
            }
            cover.add(second, worked_ns, covered);
        }
        match (cover.lacking(), most) {
            (None, Some(most)) => {
                let others = others.known();
                evidence.gpu = Some(Gpu {
                    others,
                    most_others: others.and(most.most_others),
                    other_pid: most.other_pid,
                    throttled: throttled.known(),
                });
            }
            (lacking, _) => evidence.lacking.gpu = lacking,
        }
    }
}

impl<T> Told<T> {
    fn add(&mut self, from_ns: u64, at_ns: u64, value: Option<T>) {
        // Also without a value: what was read long ago says nothing of now.
        let is_old = |(from_ns, until_ns, _): &mut (u64, u64, T)| {
            let kept_ns = KEPT_NS.max(LONG * (*until_ns - *from_ns));
            *until_ns + kept_ns < at_ns
        };
        while self.0.pop_front_if(is_old).is_some() {}
        let Some(value) = value else {
            return;
        };
        if self.0.len() >= READINGS {
            self.0.pop_front();
        }
        self.0.push_back((from_ns.min(at_ns), at_ns, value));
    }

    /// Returns the values that tell of this second, each with the part of the second that it tells of, and the share of
    /// its own time that this is.
    fn of(&self, second: u64) -> impl Iterator<Item = (f64, f64, &T)> {
        let (start_ns, end_ns) = (second * SECOND_NS, (second + 1) * SECOND_NS);
        let first = self.0.partition_point(|(_, at_ns, _)| *at_ns <= start_ns);
        let later = self.0.range(first..);
        later
            .take_while(move |(from_ns, ..)| *from_ns < end_ns)
            .map(move |(from_ns, at_ns, value)| {
                let part_ns = end_ns.min(*at_ns).saturating_sub(start_ns.max(*from_ns)) as f64;
                let span_ns = (at_ns - from_ns).max(1) as f64;
                (part_ns / SECOND_NS as f64, part_ns / span_ns, value)
            })
    }
}

/// How much of the requests' time readings tell of.
#[derive(Debug, Default)]
struct Cover {
    all_ns: f64,
    covered_ns: f64,
    /// Requests that ended in seconds without readings.
    lacking: u64,
}

impl Cover {
    /// Adds a second in which `ns` of requests' time passed.
    fn add(&mut self, second: &Second, ns: f64, covered: f64) {
        self.all_ns += ns;
        self.covered_ns += ns * covered;
        if covered < COVERED {
            self.lacking += second.ended;
        }
    }

    /// Returns how many requests lack readings, if those took most of the time.
    fn lacking(&self) -> Option<u64> {
        (self.covered_ns < COVERED * self.all_ns).then_some(self.lacking)
    }
}

/// A mean of values that may be unknown.
#[derive(Debug, Default)]
struct Mean {
    sum: f64,
    known: f64,
    all: f64,
}

impl Mean {
    fn add(&mut self, value: Option<f64>, weight: f64) {
        self.all += weight;
        if let Some(value) = value {
            self.sum += value * weight;
            self.known += weight;
        }
    }

    /// Returns the mean, if the values of most of the weight are known.
    fn known(&self) -> Option<f64> {
        let is_known = self.known > 0.0 && self.known >= COVERED * self.all;
        is_known.then(|| self.sum / self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::evidence::Lacking;

    const S: u64 = SECOND_NS;

    fn reading(from_s: u64, at_s: u64) -> Reading {
        Reading {
            from_ns: from_s * S,
            at_ns: at_s * S,
            ..Reading::default()
        }
    }

    fn gpu(from_s: u64, at_s: u64, others: Option<f64>, other_pid: u32) -> Reading {
        Reading {
            gpu: Some(Gpu {
                others,
                most_others: others,
                other_pid: Some(other_pid),
                throttled: others,
            }),
            ..reading(from_s, at_s)
        }
    }

    /// Seconds in which one request ended, with so many ms of waiting for a CPU and of work.
    fn seconds(of: &[(u64, u64, u64)]) -> Vec<Second> {
        let of = of.iter();
        of.map(|(index, starved_ms, worked_ms)| Second {
            index: *index,
            ended: 1,
            starved_ns: starved_ms * S / 1_000,
            worked_ns: worked_ms * S / 1_000,
        })
        .collect()
    }

    fn evidence(readings: &Readings, of: &[(u64, u64, u64)]) -> Evidence {
        let mut evidence = Evidence::default();
        readings.tell(seconds(of).iter(), &mut evidence);
        evidence
    }

    #[test]
    fn limit_explains_only_the_waits_of_its_own_time() {
        let mut readings = Readings::default();
        for (from_s, throttled_s) in [(10, 2), (11, 2), (12, 0), (13, 0)] {
            readings.add(&Reading {
                throttled_ns: Some(throttled_s * S),
                ..reading(from_s, from_s + 1)
            });
        }
        let by_limit = |of: &[(u64, u64, u64)]| evidence(&readings, of).by_limit;
        assert_eq!(by_limit(&[(10, 800, 9), (11, 900, 9)]), Some(1.0));
        assert_eq!(by_limit(&[(12, 800, 9), (13, 900, 9)]), Some(0.0));
        assert_eq!(by_limit(&[(11, 300, 9), (12, 300, 9)]), Some(0.5));
        // No request waited while the limit stopped the server.
        assert_eq!(by_limit(&[(11, 0, 900), (12, 300, 9)]), Some(0.0));
        assert_eq!(by_limit(&[(11, 0, 900)]), Some(0.0));
    }

    #[test]
    fn own_share_of_the_cpus_is_that_of_the_time_in_which_requests_starved() {
        let mut readings = Readings::default();
        for (from_s, own_cpu) in [(10, Some(0.2)), (11, Some(0.9)), (12, None), (13, None)] {
            readings.add(&Reading {
                own_cpu,
                ..reading(from_s, from_s + 1)
            });
        }
        let own_cpu = |of: &[(u64, u64, u64)]| {
            let evidence = evidence(&readings, of);
            let pct = evidence.own_cpu.map(|share| (share * 100.0).round());
            (pct, evidence.lacking.own_cpu)
        };
        assert_eq!(own_cpu(&[(10, 300, 9), (11, 0, 900)]), (Some(20.0), None));
        assert_eq!(own_cpu(&[(10, 100, 9), (11, 600, 9)]), (Some(80.0), None));
        assert_eq!(own_cpu(&[(11, 100, 9), (12, 600, 9)]), (None, Some(1)));
        assert_eq!(own_cpu(&[(11, 0, 9)]), (None, None));
    }

    #[test]
    fn requests_that_took_most_of_the_time_after_the_last_reading_lack_evidence() {
        let mut readings = Readings::default();
        readings.add(&Reading {
            throttled_ns: Some(S),
            own_cpu: Some(0.1),
            ..gpu(10, 14, Some(0.1), 7)
        });
        let quick = [(10, 10, 100), (11, 10, 100), (12, 10, 100), (13, 10, 100)];
        let known = evidence(&readings, &quick);
        assert_eq!(known.lacking, Lacking::default());
        assert!(known.by_limit.is_some() && known.gpu.is_some());
        let slow = [&quick[..], &[(14, 500, 200), (15, 500, 300)]].concat();
        let lacking = evidence(&readings, &slow);
        assert_eq!((lacking.by_limit, lacking.gpu), (None, None));
        let two = Lacking {
            limit: Some(2),
            own_cpu: Some(2),
            gpu: Some(2),
        };
        assert_eq!(lacking.lacking, two);
        // The next reading tells of them.
        readings.add(&Reading {
            throttled_ns: Some(0),
            own_cpu: Some(0.1),
            ..gpu(14, 16, Some(0.8), 8)
        });
        let told = evidence(&readings, &slow);
        assert_eq!(told.lacking, Lacking::default());
        let gpu = told.gpu.unwrap();
        assert!((gpu.others.unwrap() - 44.0 / 90.0).abs() < 1e-9, "{gpu:?}");
        assert_eq!((gpu.most_others, gpu.other_pid), (Some(0.8), Some(8)));
    }

    #[test]
    fn shares_of_a_gpu_are_weighted_by_the_work_of_their_time() {
        let mut readings = Readings::default();
        readings.add(&gpu(0, 5, Some(0.9), 8));
        readings.add(&gpu(5, 10, Some(0.1), 9));
        readings.add(&gpu(10, 15, None, 9));
        let others = |of: &[(u64, u64, u64)]| {
            let gpu = evidence(&readings, of).gpu.unwrap();
            (
                gpu.others.map(|share| (share * 100.0).round()),
                gpu.other_pid,
            )
        };
        // It was idle while others used the GPU.
        assert_eq!(others(&[(3, 0, 0), (6, 0, 500)]), (Some(10.0), Some(9)));
        assert_eq!(others(&[(3, 0, 100), (6, 0, 300)]), (Some(30.0), Some(8)));
        // Unknown shares hide the mean if they are most of it.
        assert_eq!(others(&[(3, 0, 300), (12, 0, 100)]).0, Some(90.0));
        assert_eq!(others(&[(3, 0, 100), (12, 0, 300)]).0, None);
    }

    #[test]
    fn server_without_a_gpu_lacks_nothing_of_it() {
        let mut readings = Readings::default();
        readings.add(&Reading {
            throttled_ns: Some(0),
            ..reading(10, 11)
        });
        let told = evidence(&readings, &[(10, 1, 100)]);
        assert_eq!((told.gpu, told.lacking), (None, Lacking::default()));
        readings.add(&gpu(10, 11, Some(0.0), 7));
        // It used one a while ago.
        let later = 11 + KEPT_NS / S;
        let told = evidence(&readings, &[(later, 0, 100)]);
        assert_eq!((told.gpu, told.lacking.gpu), (None, Some(1)));
        readings.add(&Reading {
            throttled_ns: Some(0),
            ..reading(later, later + 1)
        });
        let told = evidence(&readings, &[(later, 0, 100)]);
        assert_eq!((told.gpu, told.lacking), (None, Lacking::default()));
    }

    #[test]
    fn readings_are_bounded() {
        let mut readings = Readings::default();
        for at_s in 0..10_000 {
            readings.add(&gpu(at_s, at_s + 1, None, 1));
            assert!(readings.gpus.0.len() as u64 <= KEPT_NS / S + 1);
        }
        for _ in 0..2 * READINGS {
            readings.add(&gpu(10_000, 10_000, None, 1));
            assert!(readings.gpus.0.len() <= READINGS);
        }
    }
}
