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
    /// The process that took most of it, in the agent's PID namespace.
    pub other_pid: Option<u32>,
    /// Time lost to throttling, ns; `None` if the driver does not report it.
    pub throttled_ns: Option<u64>,
}

/// What is known about a server in one window; `None` if unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    /// The threads that read requests.
    pub readers: Option<Readers>,
    /// The worker processes.
    pub workers: Option<Workers>,
    /// Time in which the CPU limit of its control group stopped the server, ns; 0 if it has no limit.
    pub throttled_ns: Option<u64>,
    /// The GPUs; `None` also if it uses none.
    pub gpu: Option<Gpu>,
}
