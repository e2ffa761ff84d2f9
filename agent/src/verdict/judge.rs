//! Concludes from one window of a model, and the window before it, why its requests are slow.
//!
//! First which component: the one that explains most of what the mean duration grew by, else the wait that takes the
//! largest share of it. Then why, by the evidence for that component.
//! Does not depend on: wording, how anything is measured.

use crate::verdict::{
    component::Component,
    evidence::{Engine, Evidence, Gpu},
    window::Window,
};

/// Share of requests whose stages must be known, and of those the figure that decides between two causes.
const KNOWN: f64 = 0.9;
/// Share of requests answered with 500 and above from which the model fails.
const FAILING: f64 = 0.01;
/// A component below this mean never stands out, ns.
const NOTICEABLE_NS: f64 = 1e6;
/// Requests that the window before must have to be compared with.
const COMPARABLE: u64 = 10;
/// Growth of the mean duration from which the window is compared with the one before.
const GROWN: f64 = 1.5;
/// Share of that growth that one component must explain.
const EXPLAINS: f64 = 0.5;
/// Busy share from which readers or workers are the limit.
const BUSY: f64 = 0.8;
/// Share of the time that a GPU must lose to throttling, and by how much it must have risen.
const GPU_THROTTLED: f64 = 0.05;
/// Busy share of a GPU that other processes must take, and by how much it must have risen.
const GPU_OTHERS: (f64, f64) = (0.2, 0.1);
/// Part of the starved time that the CPU limit must account for.
const BY_LIMIT: f64 = 0.25;
/// Share of the busy time of its CPUs from which a server starves itself.
const OWN_CPU: f64 = 0.5;

/// Share of its KV cache in use from which it is full.
const KV_FULL: f64 = 0.95;
/// Mean number of requests from which an engine's queue is a queue.
const LEAST_WAITING: f64 = 1.0;
/// What [`Cause::CannotSay`] lacks if it is unknown whether the client was slow to receive.
const UNDRAINED: &str = "time in which the client had bytes to receive";

/// What [`Cause::CannotSay`] lacks if it is unknown whether a CPU limit stops the server.
pub const CPU_LIMIT: &str = "CPU limit of its control group";

/// What [`Cause::CannotSay`] lacks if it is unknown who took the CPUs.
const OWN_TIME: &str = "CPU time that the server took itself";

/// Why the requests of a model are slow.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// No request ended in the window.
    Idle,
    /// No component stands out.
    Fine,
    /// Connections wait to be accepted.
    WaitsToBeAccepted,
    /// The readers are busy with earlier requests.
    WaitsToBeRead {
        /// Threads that read requests.
        readers: u32,
        /// Their busy share, 0 to 1.
        busy: f64,
    },
    /// The readers are not busy with requests, and read late.
    SlowToRead {
        /// Whether the moments of acceptance are unknown, so that the server may as well accept late.
        or_accept: bool,
    },
    /// The client sends the request slowly.
    SlowSender,
    /// Other processes take the CPU.
    CpuTaken,
    /// The server itself keeps the CPUs busy: more of its threads are ready than there are CPUs.
    CpuOwn {
        /// Share of their busy time that it took, 0 to 1.
        share: f64,
    },
    /// The CPU limit of its control group stops the server.
    CpuLimit,
    /// Each worker process has a request.
    WorkersBusy {
        /// Worker processes.
        workers: u32,
    },
    /// Requests wait inside the server although workers are free.
    InnerQueue {
        /// Worker processes.
        workers: u32,
        /// Their busy share, 0 to 1.
        busy: f64,
    },
    /// Another process uses the GPU.
    GpuShared {
        /// The process that uses most of it.
        pid: Option<u32>,
        /// Busy share of all others, 0 to 1.
        others: f64,
    },
    /// The GPU is throttled.
    GpuThrottled,
    /// The engine has no KV cache left for further requests, by its own word.
    KvCacheFull {
        /// Requests that it stopped to free some; `None` if it does not say.
        preemptions: Option<u64>,
    },
    /// Requests wait inside the engine, by its own word.
    EngineQueue {
        /// Requests that wait, mean.
        waiting: f64,
        /// Requests that it works on, mean; `None` if it does not say.
        running: Option<f64>,
    },
    /// The server's own work takes longer than before.
    ServerWork,
    /// The server produces a streamed response slowly.
    ProducesSlowly,
    /// The client receives the response slowly.
    SlowReceiver,
    /// The evidence is missing.
    CannotSay {
        /// What is unknown, as a noun.
        lacks: &'static str,
        /// Requests for which it is unknown; `None` if it is a figure of the server.
        requests: Option<u64>,
    },
}

impl Cause {
    /// Returns its name in output and labels.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Fine => "fine",
            Self::WaitsToBeAccepted => "accept",
            Self::WaitsToBeRead { .. } => "readers_busy",
            Self::SlowToRead { .. } => "slow_to_read",
            Self::SlowSender => "slow_sender",
            Self::CpuTaken => "cpu",
            Self::CpuOwn { .. } => "cpu_own",
            Self::CpuLimit => "cpu_limit",
            Self::WorkersBusy { .. } => "workers_busy",
            Self::InnerQueue { .. } => "inner_queue",
            Self::GpuShared { .. } => "gpu_shared",
            Self::GpuThrottled => "gpu_throttled",
            Self::KvCacheFull { .. } => "kv_cache_full",
            Self::EngineQueue { .. } => "engine_queue",
            Self::ServerWork => "server",
            Self::ProducesSlowly => "produces_slowly",
            Self::SlowReceiver => "slow_receiver",
            Self::CannotSay { .. } => "unknown",
        }
    }
}

/// The component that stands out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Focus {
    /// Which one.
    pub component: Component,
    /// Its mean, ns.
    pub mean_ns: f64,
    /// Its share of the mean duration, 0 to 1.
    pub share: f64,
    /// Its mean in the window before, ns, if it explains the growth since then.
    pub before_ns: Option<f64>,
}

/// What one window says about a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Why its requests are slow.
    pub cause: Cause,
    /// The component that stands out; `None` if none does, or too little is known.
    pub focus: Option<Focus>,
    /// Requests answered with 500 and above, by status code; empty if they are fewer than one in a hundred.
    pub fails: Vec<(u16, u64)>,
    /// Requests that ended.
    pub requests: u64,
    /// Those of which each stage is known.
    pub complete: u64,
    /// What the server says of itself; `None` unless it was asked.
    pub engine: Option<Engine>,
}

/// Concludes from the window `now` and the window `before` it, each with the evidence of its time.
pub fn judge(now: (&Window, &Evidence), before: Option<(&Window, &Evidence)>) -> Verdict {
    let (window, evidence) = now;
    let (focus, cause) = match cannot_split(window) {
        Some(cause) => (None, cause),
        None => {
            let focus = focus(window, before.map(|(window, _)| window));
            let earlier = before.map(|(_, evidence)| evidence);
            let cause = focus.map_or(Cause::Fine, |focus| {
                cause_of(&focus, window, evidence, earlier)
            });
            (focus, cause)
        }
    };
    let failed = window.failed();
    let failures: u64 = failed.iter().map(|(_, requests)| requests).sum();
    let is_failing = failures > 0 && failures as f64 >= FAILING * window.requests as f64;
    Verdict {
        cause,
        focus,
        fails: if is_failing { failed } else { Vec::new() },
        requests: window.requests,
        complete: window.complete,
        engine: evidence.engine,
    }
}

/// Returns why the window's requests cannot be split into components.
fn cannot_split(window: &Window) -> Option<Cause> {
    if window.requests == 0 {
        return Some(Cause::Idle);
    }
    if is_known(window.complete, window.requests) {
        return None;
    }
    let (missing, requests) = window.most_missing()?;
    Some(Cause::CannotSay {
        lacks: missing.noun(),
        requests: Some(requests),
    })
}

/// Whether a figure is known for enough of `requests`.
fn is_known(known: u64, requests: u64) -> bool {
    known as f64 >= KNOWN * requests as f64
}

/// Finds the component that stands out.
fn focus(now: &Window, before: Option<&Window>) -> Option<Focus> {
    let mean = |window: &Window, component| window.sums[component] as f64 / window.complete as f64;
    let whole_ns = now.sums.total_ns() as f64 / now.complete as f64;
    let focus_on = |component, before_ns| {
        let mean_ns = mean(now, component);
        Focus {
            component,
            mean_ns,
            share: mean_ns / whole_ns,
            before_ns,
        }
    };
    let grown = before
        .filter(|before| before.complete >= COMPARABLE)
        .and_then(|before| {
            let before_ns = before.sums.total_ns() as f64 / before.complete as f64;
            let growth_ns = whole_ns - before_ns;
            if whole_ns < GROWN * before_ns || growth_ns < NOTICEABLE_NS {
                return None;
            }
            let growths = Component::ALL.map(|component| {
                let grown_ns = mean(now, component) - mean(before, component);
                (component, grown_ns)
            });
            let (component, grown_ns) = growths.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
            let explains = grown_ns >= EXPLAINS * growth_ns;
            explains.then(|| focus_on(component, Some(mean(before, component))))
        });
    grown.or_else(|| {
        let waits = Component::ALL.into_iter().filter_map(|component| {
            let focus = focus_on(component, None);
            let stands_out = focus.share >= noticeable_share(component)?;
            (stands_out && focus.mean_ns >= NOTICEABLE_NS).then_some(focus)
        });
        waits.max_by(|a, b| a.share.total_cmp(&b.share))
    })
}

/// Share of the duration from which a component stands out without a comparison; `None` for the work itself, of which a
/// large share is no fault.
const fn noticeable_share(component: Component) -> Option<f64> {
    match component {
        Component::Accept
        | Component::Queue
        | Component::Receive
        | Component::Starved
        | Component::InnerQueue => Some(0.3),
        Component::Stream => Some(0.5),
        Component::Worker | Component::Rest => None,
    }
}

/// Explains the component that stands out.
fn cause_of(
    focus: &Focus,
    window: &Window,
    evidence: &Evidence,
    earlier: Option<&Evidence>,
) -> Cause {
    match focus.component {
        Component::Accept => Cause::WaitsToBeAccepted,
        Component::Queue => late_read(window, evidence),
        Component::Receive => {
            let (known, sending_ns) = (window.sending_known, window.sending_ns);
            match half_of(known, sending_ns, focus.component, window) {
                Ok(true) => Cause::SlowSender,
                Ok(false) => late_read(window, evidence),
                Err(requests) => lacks("arrival of the last byte", requests),
            }
        }
        Component::Starved => no_cpu(evidence),
        Component::InnerQueue => match evidence.workers {
            Some(workers) if workers.busy >= BUSY => Cause::WorkersBusy {
                workers: workers.processes,
            },
            Some(workers) => Cause::InnerQueue {
                workers: workers.processes,
                busy: workers.busy,
            },
            None => lacks("busy share of the workers", None),
        },
        Component::Worker | Component::Rest => slow_work(window, evidence, earlier),
        Component::Stream => {
            let (known, undrained_ns) = (window.undrained_known, window.undrained_ns);
            match half_of(known, undrained_ns, focus.component, window) {
                Ok(true) => Cause::SlowReceiver,
                Ok(false) => outside(evidence, earlier).unwrap_or(Cause::ProducesSlowly),
                Err(requests) => lacks(UNDRAINED, requests),
            }
        }
    }
}

const fn lacks(lacks: &'static str, requests: Option<u64>) -> Cause {
    Cause::CannotSay { lacks, requests }
}

/// Returns whether `part_ns` is at least half of a component, or of how many requests the part is unknown.
fn half_of(
    known: u64,
    part_ns: u64,
    component: Component,
    window: &Window,
) -> Result<bool, Option<u64>> {
    if !is_known(known, window.complete) {
        return Err(Some(window.complete - known));
    }
    Ok(part_ns.saturating_mul(2) >= window.sums[component])
}

/// Explains why the server reads late.
fn late_read(window: &Window, evidence: &Evidence) -> Cause {
    let Some(readers) = evidence.readers else {
        return lacks("number of readers", None);
    };
    match readers.busy {
        Some(busy) if busy >= BUSY => {
            // Readers that are busy because they get no CPU are not too few.
            let worked_ns =
                window.sums[Component::Rest].saturating_add(window.sums[Component::Worker]);
            if window.sums[Component::Starved] > worked_ns {
                return no_cpu(evidence);
            }
            Cause::WaitsToBeRead {
                readers: readers.threads,
                busy,
            }
        }
        _ => Cause::SlowToRead {
            or_accept: window.accept_unknown.saturating_mul(2) >= window.complete,
        },
    }
}

/// Explains why threads of the server wait for a CPU.
pub(super) const fn no_cpu(evidence: &Evidence) -> Cause {
    match (evidence.by_limit, evidence.own_cpu) {
        (Some(by_limit), _) if by_limit >= BY_LIMIT => Cause::CpuLimit,
        (None, _) => lacks(CPU_LIMIT, evidence.lacking.limit),
        (Some(_), Some(share)) if share >= OWN_CPU => Cause::CpuOwn { share },
        (Some(_), Some(_)) => Cause::CpuTaken,
        (Some(_), None) => lacks(OWN_TIME, evidence.lacking.own_cpu),
    }
}

/// Explains why the work takes longer than before.
fn slow_work(window: &Window, evidence: &Evidence, earlier: Option<&Evidence>) -> Cause {
    if let Some(cause) = outside(evidence, earlier) {
        return cause;
    }
    if !is_known(window.starved_known, window.complete) {
        return lacks("starved time", Some(window.complete - window.starved_known));
    }
    Cause::ServerWork
}

/// Returns what slowed the server down from outside, as far as it is known: its GPU, or the queue of its engine.
fn outside(evidence: &Evidence, earlier: Option<&Evidence>) -> Option<Cause> {
    let before = earlier.and_then(|evidence| evidence.gpu);
    let slowed = evidence
        .gpu
        .and_then(|now| slowed_by(&now, before.as_ref()));
    slowed
        .or_else(|| slow_engine(evidence))
        .or_else(|| unclear_gpu(evidence, before.as_ref()))
}

/// Returns what slowed the GPUs of a server down: throttling, or other processes, that take more of them than `before`.
pub(super) fn slowed_by(now: &Gpu, before: Option<&Gpu>) -> Option<Cause> {
    let throttled_before = before.and_then(|gpu| gpu.throttled).unwrap_or(0.0);
    let is_throttled = now.throttled.is_some_and(|throttled| {
        throttled >= GPU_THROTTLED && throttled >= throttled_before + GPU_THROTTLED
    });
    if is_throttled {
        return Some(Cause::GpuThrottled);
    }
    let others = now.others?;
    let others_before = before?.others?;
    let (taken, risen) = GPU_OTHERS;
    (others >= taken && others >= others_before + risen).then_some(Cause::GpuShared {
        pid: now.other_pid,
        others,
    })
}

/// Returns what is unknown of the GPUs of a server that works longer: they may be why, or not.
pub(super) fn unclear_gpu(evidence: &Evidence, before: Option<&Gpu>) -> Option<Cause> {
    let Some(now) = evidence.gpu else {
        let is_used = before.is_some() || evidence.lacking.gpu.is_some();
        return is_used.then_some(lacks("use of its GPU", evidence.lacking.gpu));
    };
    let (taken, risen) = GPU_OTHERS;
    let Some(most) = now.most_others else {
        return Some(lacks("use of its GPU by others", None));
    };
    if most >= taken {
        match before.and_then(|before| before.others) {
            None => return Some(lacks("earlier use of its GPU by others", None)),
            Some(before) if most >= before + risen => {
                return Some(lacks("how long others used its GPU", None));
            }
            Some(_) => {}
        }
    }
    let throttled_before = before.and_then(|before| before.throttled);
    let is_unclear = match now.throttled {
        None => true,
        Some(throttled) => throttled > 0.0 && throttled_before.is_none_or(|before| before == 0.0),
    };
    is_unclear.then_some(lacks("how long its GPU was throttled", None))
}

/// Returns what the engine says that its requests wait for, unless the kernel shows other requests than it does.
fn slow_engine(evidence: &Evidence) -> Option<Cause> {
    let engine = evidence.engine.filter(|engine| !engine.differs())?;
    let waiting = engine.waiting.unwrap_or(0.0);
    let is_full = engine.kv_cache.is_some_and(|share| share >= KV_FULL);
    if engine.preemptions.unwrap_or(0) > 0 || is_full && waiting > 0.0 {
        return Some(Cause::KvCacheFull {
            preemptions: engine.preemptions,
        });
    }
    (waiting >= LEAST_WAITING).then_some(Cause::EngineQueue {
        waiting,
        running: engine.running,
    })
}

#[cfg(test)]
mod tests;
