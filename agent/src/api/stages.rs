//! Spells the parts of a request's duration, which add up to it.
//!
//! Does not depend on: how they are measured.

use serde::{Deserialize, Serialize};

use crate::verdict::component::{Component, Components};

/// A duration, or a sum of durations, of each part, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stages {
    /// First byte readable to connection accepted, on the first request of a connection.
    pub accept: u64,
    /// From there to first byte read.
    pub queue: u64,
    /// First byte read to last byte read.
    pub receive: u64,
    /// The serving thread was ready and waited for a CPU.
    pub starved: u64,
    /// Waited inside the server for a worker process.
    pub inner_queue: u64,
    /// A worker process handled it.
    pub worker: u64,
    /// What is left between last byte read and first byte written: the server's own work.
    pub handler: u64,
    /// First byte written to last byte written.
    pub stream: u64,
}

impl Stages {
    /// Returns each part with its name, in the order of a request's life.
    pub const fn named(&self) -> [(&'static str, u64); 8] {
        [
            (Component::Accept.name(), self.accept),
            (Component::Queue.name(), self.queue),
            (Component::Receive.name(), self.receive),
            (Component::Starved.name(), self.starved),
            (Component::InnerQueue.name(), self.inner_queue),
            (Component::Worker.name(), self.worker),
            (Component::Rest.name(), self.handler),
            (Component::Stream.name(), self.stream),
        ]
    }

    /// Adds those of others.
    pub fn add(&mut self, other: &Self) {
        for (sum, ns) in [
            (&mut self.accept, other.accept),
            (&mut self.queue, other.queue),
            (&mut self.receive, other.receive),
            (&mut self.starved, other.starved),
            (&mut self.inner_queue, other.inner_queue),
            (&mut self.worker, other.worker),
            (&mut self.handler, other.handler),
            (&mut self.stream, other.stream),
        ] {
            *sum = sum.saturating_add(ns);
        }
    }

    /// Returns the sum of all parts, ns.
    pub fn total_ns(&self) -> u64 {
        self.named()
            .iter()
            .fold(0, |sum, (_, ns)| sum.saturating_add(*ns))
    }
}

impl From<&Components> for Stages {
    fn from(components: &Components) -> Self {
        Self {
            accept: components[Component::Accept],
            queue: components[Component::Queue],
            receive: components[Component::Receive],
            starved: components[Component::Starved],
            inner_queue: components[Component::InnerQueue],
            worker: components[Component::Worker],
            handler: components[Component::Rest],
            stream: components[Component::Stream],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_has_its_own_key() {
        for component in Component::ALL {
            let mut components = Components::default();
            components[component] = 7;
            let stages = Stages::from(&components);
            let set: Vec<_> = stages
                .named()
                .into_iter()
                .filter(|(_, ns)| *ns > 0)
                .collect();
            assert_eq!(set, [(component.name(), 7)]);
            let json = serde_json::to_value(stages).unwrap();
            assert_eq!(json[component.name()], 7);
            assert_eq!(stages.total_ns(), 7);
            let mut twice = stages;
            twice.add(&stages);
            assert_eq!(serde_json::to_value(twice).unwrap()[component.name()], 14);
        }
    }
}
