//! Plays servers of which it is known why they are slow, in random mixes: the verdict never names another cause.
//!
//! Each run has one fault or two, requests that the fault spares, and evidence that may be hidden. Requests wait for
//! threads and workers one after the other, as those of a real server do.
//! Does not depend on: how anything is measured.

use std::{cmp::Reverse, collections::BinaryHeap};

use fastrand::Rng;

use crate::{
    history::{
        models::{Models, tests::identity},
        occupancy::Occupied,
        readings::Reading,
        sample::Sample,
        span::WINDOW_NS,
    },
    verdict::{component::Parts, evidence::Gpu},
};

/// Runs of the test.
const RUNS: u64 = 200;
const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;
/// Where the windows begin that are compared with, and those that are judged, and where these end.
const QUIET_NS: u64 = 100 * S;
const SLOW_NS: u64 = QUIET_NS + 12 * WINDOW_NS;
const END_NS: u64 = SLOW_NS + 6 * WINDOW_NS - S;
/// Thread of the first connection; the others follow.
const THREADS: u32 = 100;
/// First worker process.
const WORKERS: u32 = 500;

/// What makes a server slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    OneReader,
    BlockedLoop,
    SlowSender,
    Hogs,
    OwnThreads,
    Limit,
    BusyWorkers,
    BatchDelay,
    SlowProducer,
    SlowReceiver,
    LongerWork,
    SharedGpu,
    ThrottledGpu,
}

impl Fault {
    const ALL: [Self; 13] = [
        Self::OneReader,
        Self::BlockedLoop,
        Self::SlowSender,
        Self::Hogs,
        Self::OwnThreads,
        Self::Limit,
        Self::BusyWorkers,
        Self::BatchDelay,
        Self::SlowProducer,
        Self::SlowReceiver,
        Self::LongerWork,
        Self::SharedGpu,
        Self::ThrottledGpu,
    ];

    /// The cause that the verdict names.
    const fn cause(self) -> &'static str {
        match self {
            Self::OneReader => "readers_busy",
            Self::BlockedLoop => "slow_to_read",
            Self::SlowSender => "slow_sender",
            Self::Hogs => "cpu",
            Self::OwnThreads => "cpu_own",
            Self::Limit => "cpu_limit",
            Self::BusyWorkers => "workers_busy",
            Self::BatchDelay => "inner_queue",
            Self::SlowProducer => "produces_slowly",
            Self::SlowReceiver => "slow_receiver",
            Self::LongerWork => "server",
            Self::SharedGpu => "gpu_shared",
            Self::ThrottledGpu => "gpu_throttled",
        }
    }

    /// Whether only a comparison with the time before shows it.
    const fn is_growth(self) -> bool {
        matches!(
            self,
            Self::LongerWork | Self::SharedGpu | Self::ThrottledGpu
        )
    }

    /// Removes what tells of it.
    fn hide(self, parts: &mut Parts) {
        match self {
            Self::OneReader | Self::BlockedLoop => parts.queue_ns = None,
            Self::SlowSender => parts.sending_ns = None,
            Self::SlowProducer | Self::SlowReceiver => parts.undrained_ns = None,
            Self::LongerWork => parts.starved_ns = None,
            // Those of readings.
            _ => {}
        }
    }
}

fn is_one_of(numbers: &mut Rng, number: u64) -> bool {
    numbers.u64(0..number) == 0
}

/// A server and its load.
#[derive(Debug)]
struct Plan {
    faults: Vec<Fault>,
    /// How long the fault takes of each request that it does not spare.
    fault_ns: u64,
    work_ns: u64,
    clients: u64,
    /// Pause of a client between two requests.
    pause_ns: u64,
    /// One request in so many is spared.
    spares: u64,
    has_before: bool,
    is_hidden: bool,
}

impl Plan {
    fn draw(numbers: &mut Rng) -> Self {
        let mut faults = vec![numbers.choice(Fault::ALL).unwrap()];
        if is_one_of(numbers, 4) {
            faults.push(numbers.choice(Fault::ALL).unwrap());
        }
        let fault_ns = numbers.u64(1..120) * MS;
        let is_blocked = faults.contains(&Fault::BlockedLoop);
        Self {
            work_ns: match is_blocked {
                true => 100 * US,
                false => numbers.u64(500..30_000) * US,
            },
            fault_ns,
            clients: match faults.contains(&Fault::OneReader) {
                true => numbers.u64(3..9),
                false => numbers.u64(1..5),
            },
            pause_ns: match faults[0] {
                Fault::OneReader | Fault::BusyWorkers => 0,
                _ => numbers.u64(0..200) * MS,
            },
            spares: numbers.u64(2..9),
            has_before: is_one_of(numbers, 2) || faults.iter().any(|fault| fault.is_growth()),
            is_hidden: is_one_of(numbers, 5),
            faults,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

/// Threads or workers that take one request after the other.
struct Pool {
    first: u32,
    free_ns: Vec<u64>,
}

impl Pool {
    fn of(first: u32, number: u64) -> Self {
        Self {
            first,
            free_ns: vec![0; number as usize],
        }
    }

    /// Returns the member that is free first, and when it can begin with what is there since `at_ns`.
    fn next(&self, at_ns: u64) -> (usize, u64) {
        let free = self.free_ns.iter().enumerate();
        let (member, free_ns) = free.min_by_key(|(_, free_ns)| **free_ns).unwrap();
        (member, at_ns.max(*free_ns))
    }

    fn occupied(&mut self, member: usize, from_ns: u64, to_ns: u64) -> Occupied {
        self.free_ns[member] = to_ns;
        Occupied {
            id: self.first + member as u32,
            from_ns,
            to_ns,
            handed_over: false,
        }
    }
}

/// Has clients request from `from_ns` to `to_ns`; without `faults` the server is well.
fn load(
    models: &mut Models,
    plan: &Plan,
    numbers: &mut Rng,
    (from_ns, to_ns, ails): (u64, u64, bool),
) {
    let has = |fault| ails && plan.has(fault);
    let threads = match has(Fault::OneReader) {
        true => 1,
        false => plan.clients,
    };
    let mut readers = Pool::of(THREADS, threads);
    let has_workers = plan.has(Fault::BusyWorkers) || plan.has(Fault::BatchDelay);
    let mut workers = Pool::of(
        WORKERS,
        match has(Fault::BusyWorkers) {
            true => 1,
            false => 2 * plan.clients,
        },
    );
    let mut samples = Vec::new();
    let mut arrivals: BinaryHeap<_> = (0..plan.clients)
        .map(|client| Reverse((from_ns + client * MS, client)))
        .collect();
    while let Some(Reverse((arrival_ns, client))) = arrivals.pop() {
        if arrival_ns >= to_ns {
            continue;
        }
        let is_spared = is_one_of(numbers, plan.spares);
        let mut taken = |fault| match has(fault) && !is_spared {
            true => numbers.u64(plan.fault_ns * 8 / 10..plan.fault_ns * 12 / 10),
            false => 0,
        };
        let blocked_ns = taken(Fault::BlockedLoop);
        let sending_ns = taken(Fault::SlowSender);
        let starved_ns = taken(Fault::Hogs) + taken(Fault::OwnThreads) + taken(Fault::Limit);
        let batch_ns = taken(Fault::BatchDelay);
        let longer_ns =
            taken(Fault::LongerWork) + taken(Fault::SharedGpu) + taken(Fault::ThrottledGpu);
        let (produced_ns, undrained_ns) = (taken(Fault::SlowProducer), taken(Fault::SlowReceiver));
        let (member, free_ns) = readers.next(arrival_ns);
        let read_ns = free_ns + blocked_ns + numbers.u64(20..200) * US;
        let last_read_ns = read_ns + sending_ns + numbers.u64(1..50) * US;
        let work_ns = numbers.u64(plan.work_ns * 8 / 10..plan.work_ns * 12 / 10) + longer_ns;
        let mut parts = Parts {
            queue_ns: Some(read_ns - arrival_ns),
            accept_ns: Some(0),
            receive_ns: Some(last_read_ns - read_ns),
            sending_ns: Some(sending_ns),
            starved_ns: Some(starved_ns),
            undrained_ns: Some(undrained_ns),
            ..Parts::default()
        };
        let mut written_ns = last_read_ns + starved_ns + work_ns;
        let mut worker = None;
        if has_workers {
            let (process, begins_ns) = workers.next(last_read_ns + batch_ns);
            written_ns = begins_ns + starved_ns + work_ns + 100 * US;
            worker = Some(workers.occupied(process, begins_ns, written_ns - 100 * US));
            parts.inner_queue_ns = Some(begins_ns - last_read_ns);
            parts.worker_ns = Some(starved_ns + work_ns);
            parts.worker_starved_ns = Some(starved_ns);
            parts.starved_ns = Some(0);
        }
        parts.handler_ns = Some(written_ns - last_read_ns);
        let stream_ns = produced_ns + undrained_ns + numbers.u64(10..300) * US;
        parts.stream_ns = Some(stream_ns);
        let end_ns = written_ns + stream_ns;
        if plan.is_hidden {
            for fault in &plan.faults {
                fault.hide(&mut parts);
            }
        }
        samples.push(Sample {
            at_ns: end_ns,
            parts,
            status: 200,
            is_first: false,
            reader: Some(readers.occupied(member, read_ns, end_ns)),
            worker,
        });
        arrivals.push(Reverse((end_ns + plan.pause_ns + 100 * US, client)));
    }
    samples.sort_by_key(|sample| sample.at_ns);
    for sample in samples {
        models.add(&identity(), &sample);
    }
}

/// Adds what collectors read each second.
fn read(models: &mut Models, plan: &Plan, (from_ns, to_ns, ails): (u64, u64, bool)) {
    let has = |fault| ails && plan.has(fault);
    let uses_gpu = plan.has(Fault::SharedGpu) || plan.has(Fault::ThrottledGpu);
    let share = |fault, yes, no| if has(fault) { yes } else { no };
    let others = share(Fault::SharedGpu, 0.6, 0.02);
    for from_ns in (from_ns..to_ns).step_by(S as usize) {
        let reading = Reading {
            from_ns,
            at_ns: from_ns + S,
            throttled_ns: Some(if has(Fault::Limit) { 7 * S / 10 } else { 0 }),
            own_cpu: Some(share(Fault::OwnThreads, 0.9, 0.1)),
            gpu: uses_gpu.then_some(Gpu {
                others: Some(others),
                most_others: Some(others),
                other_pid: Some(7),
                throttled: Some(share(Fault::ThrottledGpu, 0.3, 0.0)),
            }),
            engine: None,
        };
        // What was read before says that there is a GPU.
        if !plan.is_hidden || !ails {
            models.read(&identity().instance(), reading);
        }
    }
}

/// Plays a plan; returns the cause that the verdict names, and the share of the mean duration that the faults took.
fn play(plan: &Plan, numbers: &mut Rng) -> (&'static str, String) {
    let mut models = Models::default();
    // The last requests of one span end before the next one begins.
    let spans = [(QUIET_NS, SLOW_NS - S, false), (SLOW_NS, END_NS, true)];
    for span in spans.into_iter().skip(usize::from(!plan.has_before)) {
        load(&mut models, plan, numbers, span);
        read(&mut models, plan, span);
    }
    let judged = models.judged(&identity(), END_NS).unwrap();
    (judged.verdict.cause.name(), format!("{judged:?}"))
}

#[test]
fn random_mixes_never_get_a_wrong_verdict() {
    let mut numbers = Rng::with_seed(14);
    let mut named = [0; Fault::ALL.len()];
    for run in 0..RUNS {
        let plan = Plan::draw(&mut numbers);
        let (cause, judged) = play(&plan, &mut numbers);
        let is_right = plan.faults.iter().any(|fault| fault.cause() == cause);
        let is_right = is_right || matches!(cause, "fine" | "unknown");
        assert!(is_right, "{run}: {cause} of {plan:?}: {judged}");
        for (fault, named) in Fault::ALL.iter().zip(&mut named) {
            *named += u32::from(fault.cause() == cause);
        }
    }
    // It names each, and does not just say nothing.
    assert!(named.iter().all(|runs| *runs > 0), "{named:?}");
    assert!(named.iter().sum::<u32>() > RUNS as u32 / 2, "{named:?}");
}
