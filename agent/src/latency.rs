//! What is known of one finished request: who served it, and how long each stage took.
//!
//! Plain values. Nothing here knows of sockets, records or metrics.

use std::sync::Arc;

/// Who answered a request, as the metrics label it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Model name: from the path, else from configuration, else the process's name.
    pub model: Arc<str>,
    /// Version the client asked for in the path, else `default` (facts of TorchServe's own label).
    pub version: Arc<str>,
    /// The server's kind or name: `torchserve`, a configured name, or the process's name.
    pub server: Arc<str>,
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A prediction: counts in the request families.
    Inference,
    /// Health, metrics, management: counts in `Requests2XX` and its like, and apart from inference.
    Admin,
}

/// Durations of the stages of one request, in nanoseconds of CLOCK_MONOTONIC.
///
/// `queue`, `receive`, `handler` and `stream` follow each other without a gap, so they add up to the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    /// First byte readable to first byte read. `None`: the socket was not watched when the byte came.
    pub queue_ns: Option<u64>,
    /// First byte read to last byte read.
    pub receive_ns: u64,
    /// Last request byte read to first response byte written. `None`: the kernel could only bound it.
    pub handler_ns: Option<u64>,
    /// First response byte written to last. `None`: the end of the answer cannot be seen.
    pub stream_ns: Option<u64>,
}

impl Stages {
    /// First byte readable to last byte written, in nanoseconds; `None` if a stage is unknown.
    pub fn total_ns(&self) -> Option<u64> {
        Some(self.queue_ns? + self.receive_ns + self.handler_ns? + self.stream_ns?)
    }
}

/// One finished request, ready to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Who answered.
    pub identity: Identity,
    /// What it was for.
    pub purpose: Purpose,
    /// HTTP status code of the final answer, 100 to 999.
    pub status: u16,
    /// How long each stage took.
    pub stages: Stages,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_the_sum_of_the_stages() {
        let stages = Stages {
            queue_ns: Some(1),
            receive_ns: 20,
            handler_ns: Some(300),
            stream_ns: Some(4000),
        };
        assert_eq!(stages.total_ns(), Some(4321));
    }

    #[test]
    fn total_is_unknown_when_a_stage_is() {
        let stages = Stages {
            queue_ns: None,
            receive_ns: 1,
            handler_ns: Some(1),
            stream_ns: Some(1),
        };
        assert_eq!(stages.total_ns(), None);
    }
}
