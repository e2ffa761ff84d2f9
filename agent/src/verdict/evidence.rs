//! Holds what is known in a window about the server beside its requests.
//!
//! Does not depend on: where it is read.

/// Threads that read the requests of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Readers {
    /// Distinct threads.
    pub threads: u32,
    /// Share of the window in which they had a request to handle, 0 to 1, mean of all; `None` if a thread read a request
    /// while an earlier one was unanswered: then a request in hand does not keep it from reading.
    pub busy: Option<f64>,
}

/// Worker processes of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workers {
    /// Processes that have the model loaded.
    pub processes: u32,
    /// Share of the window in which they handled requests, 0 to 1, mean of all.
    pub busy: f64,
}

/// GPUs that the server uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gpu {
    /// Busy share that other processes took, 0 to 1; `None` if the driver does not report it.
    pub others: Option<f64>,
    /// The largest such share of one reading; `None` if unknown.
    pub most_others: Option<f64>,
    /// The process that took most of it, in the agent's PID namespace.
    pub other_pid: Option<u32>,
    /// Share of the time lost to throttling, 0 to 1; `None` if the driver does not report it.
    pub throttled: Option<f64>,
}

/// What a server says of itself, in one reading or several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Engine {
    /// Readings.
    pub readings: u32,
    /// Requests that it works on, mean; `None` if it does not say.
    pub running: Option<f64>,
    /// Requests that it has read and that wait, mean; `None` if it does not say.
    pub waiting: Option<f64>,
    /// Largest share of its KV cache in use, 0 to 1; `None` if it has none, or does not say.
    pub kv_cache: Option<f64>,
    /// Requests that it stopped to free KV cache since the reading before; `None` if it does not say.
    pub preemptions: Option<u64>,
    /// Requests in flight as the kernel shows them, mean; `None` if unknown.
    pub in_flight: Option<f64>,
    /// Readings in which the two numbers of requests differed.
    pub differing: u32,
}

/// Readings that must be there before a difference counts.
const LEAST_READINGS: u32 = 3;

impl Engine {
    /// Adds later readings.
    pub fn add(&mut self, later: &Self) {
        let (first, second) = (f64::from(self.readings), f64::from(later.readings));
        let mean = |one: f64, other: f64| (one * first + other * second) / (first + second);
        let both = |one: Option<f64>, other: Option<f64>| {
            one.zip(other).map(|(one, other)| mean(one, other))
        };
        self.running = both(self.running, later.running);
        self.waiting = both(self.waiting, later.waiting);
        self.in_flight = both(self.in_flight, later.in_flight);
        let kv_cache = self.kv_cache.into_iter().chain(later.kv_cache);
        self.kv_cache = kv_cache.reduce(f64::max);
        let preemptions = self.preemptions.into_iter().chain(later.preemptions);
        self.preemptions = preemptions.reduce(u64::saturating_add);
        self.readings += later.readings;
        self.differing += later.differing;
    }

    /// Whether most readings differ from what the kernel shows, so that what it says explains nothing.
    pub fn differs(&self) -> bool {
        self.readings >= LEAST_READINGS && self.differing * 2 > self.readings
    }
}

/// Requests whose time no reading of a collector tells of; `None` if readings tell of most of the time, or if there are
/// none at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lacking {
    /// No reading of the CPU limit.
    pub limit: Option<u64>,
    /// No reading of the CPU time that the server took itself.
    pub own_cpu: Option<u64>,
    /// No reading of the GPUs, though the server used one.
    pub gpu: Option<u64>,
}

/// What is known about a server in one window; `None` if unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    /// The threads that read requests.
    pub readers: Option<Readers>,
    /// The worker processes.
    pub workers: Option<Workers>,
    /// Share of its starved time in which the CPU limit of its control group stopped the server, 0 to 1; 0 without a limit.
    pub by_limit: Option<f64>,
    /// Share of the busy time of its CPUs that the server took itself while requests starved, 0 to 1.
    pub own_cpu: Option<f64>,
    /// The GPUs; `None` also if it uses none.
    pub gpu: Option<Gpu>,
    /// Requests whose time no reading tells of.
    pub lacking: Lacking,
    /// What it says of itself; `None` unless it was asked.
    pub engine: Option<Engine>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(running: f64, kv_cache: Option<f64>, preemptions: Option<u64>) -> Engine {
        Engine {
            readings: 1,
            running: Some(running),
            waiting: Some(1.0),
            kv_cache,
            preemptions,
            in_flight: Some(running),
            differing: 0,
        }
    }

    #[test]
    fn readings_of_an_engine_add_up() {
        let mut engine = engine(4.0, Some(0.5), None);
        engine.add(&self::engine(6.0, Some(0.9), Some(3)));
        engine.add(&Engine {
            waiting: None,
            ..self::engine(8.0, Some(0.7), Some(4))
        });
        assert_eq!((engine.readings, engine.running), (3, Some(6.0)));
        assert_eq!((engine.waiting, engine.in_flight), (None, Some(6.0)));
        assert_eq!((engine.kv_cache, engine.preemptions), (Some(0.9), Some(7)));
    }

    #[test]
    fn an_engine_differs_if_most_of_enough_readings_do() {
        for (readings, differing, expected) in [(2, 2, false), (3, 2, true), (4, 2, false)] {
            let engine = Engine {
                readings,
                differing,
                ..engine(1.0, None, None)
            };
            assert_eq!(engine.differs(), expected, "{differing} of {readings}");
        }
    }
}
