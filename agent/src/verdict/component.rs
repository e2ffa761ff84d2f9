//! Splits the duration of one request into components that add up to it.
//!
//! Does not depend on: windows, evidence.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

/// A part of a request's duration. Together the parts are the whole, without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// First byte readable to connection accepted, on the first request of a connection.
    Accept,
    /// From there to first byte read.
    Queue,
    /// First byte read to last byte read.
    Receive,
    /// The serving thread, of server or worker, waited for a CPU between last read and first write.
    Starved,
    /// The request waited inside the server for a worker process.
    InnerQueue,
    /// A worker process handled it.
    Worker,
    /// What is left between last read and first write: the server's own work.
    Rest,
    /// First byte written to last byte written.
    Stream,
}

impl Component {
    /// Every component, in the order of a request's life.
    pub const ALL: [Self; 8] = [
        Self::Accept,
        Self::Queue,
        Self::Receive,
        Self::Starved,
        Self::InnerQueue,
        Self::Worker,
        Self::Rest,
        Self::Stream,
    ];

    /// Returns its name in output and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Queue => "queue",
            Self::Receive => "receive",
            Self::Starved => "starved",
            Self::InnerQueue => "inner_queue",
            Self::Worker => "worker",
            Self::Rest => "handler",
            Self::Stream => "stream",
        }
    }
}

/// A duration or a sum of durations per component, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Components([u64; Component::ALL.len()]);

impl Components {
    /// Returns the sum of all components, ns.
    pub fn total_ns(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds those of another request.
    pub fn add(&mut self, other: &Self) {
        for (sum, part) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(part);
        }
    }
}

impl Index<Component> for Components {
    type Output = u64;

    fn index(&self, component: Component) -> &u64 {
        &self.0[component as usize]
    }
}

impl IndexMut<Component> for Components {
    fn index_mut(&mut self, component: Component) -> &mut u64 {
        &mut self.0[component as usize]
    }
}

/// What is known about one request. Durations in ns; `None` if unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// First byte readable to first byte read.
    pub queue_ns: Option<u64>,
    /// How much of it passed before the connection was accepted; 0 on later requests of a connection. `None` if the moment of
    /// acceptance is unknown: then the whole wait counts as queue.
    pub accept_ns: Option<u64>,
    /// First byte read to last byte read.
    pub receive_ns: Option<u64>,
    /// How much of the receive time the last byte had not arrived yet; `None` if its arrival is unknown.
    pub sending_ns: Option<u64>,
    /// Last byte read to first byte written.
    pub handler_ns: Option<u64>,
    /// How much of the handler's time its thread waited for a CPU; `None` if not one thread did both.
    pub starved_ns: Option<u64>,
    /// How much of it the request waited for a worker process; `None` if there is none.
    pub inner_queue_ns: Option<u64>,
    /// How much of it a worker process took; `None` if there is none.
    pub worker_ns: Option<u64>,
    /// How much of the worker's time its thread waited for a CPU; `None` if there is no worker, or not one thread did both.
    pub worker_starved_ns: Option<u64>,
    /// First byte written to last byte written.
    pub stream_ns: Option<u64>,
    /// How much of the stream's time unsent bytes waited for the client; `None` if that is not observed.
    pub undrained_ns: Option<u64>,
}

/// The first stage of a request that is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Missing {
    /// Its queue time.
    Queue,
    /// Its receive time.
    Receive,
    /// Its handler time.
    Handler,
    /// Its stream time.
    Stream,
}

impl Missing {
    /// Every one, in the order of a request's life.
    pub const ALL: [Self; 4] = [Self::Queue, Self::Receive, Self::Handler, Self::Stream];

    /// Returns what is unknown, as a noun.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Queue => "queue time",
            Self::Receive => "receive time",
            Self::Handler => "handler time",
            Self::Stream => "stream time",
        }
    }
}

impl Parts {
    /// Returns whether the wait for a CPU is known where the work is done: in the worker, if there is one.
    pub const fn is_starved_known(&self) -> bool {
        match self.worker_ns {
            Some(_) => self.worker_starved_ns.is_some(),
            None => self.starved_ns.is_some(),
        }
    }

    /// Splits the duration into its components.
    pub fn components(&self) -> Result<Components, Missing> {
        let queue_ns = self.queue_ns.ok_or(Missing::Queue)?;
        let receive_ns = self.receive_ns.ok_or(Missing::Receive)?;
        let handler_ns = self.handler_ns.ok_or(Missing::Handler)?;
        let stream_ns = self.stream_ns.ok_or(Missing::Stream)?;
        let mut components = Components::default();
        let accept_ns = self.accept_ns.unwrap_or(0).min(queue_ns);
        components[Component::Accept] = accept_ns;
        components[Component::Queue] = queue_ns - accept_ns;
        components[Component::Receive] = receive_ns;
        components[Component::Stream] = stream_ns;
        let mut left_ns = handler_ns;
        // Clocks of two threads or processes meet here: no part may exceed what is left of the whole.
        for (component, part_ns) in [
            (Component::InnerQueue, self.inner_queue_ns),
            (Component::Worker, self.worker_ns),
            (Component::Starved, self.starved_ns),
        ] {
            let part_ns = part_ns.unwrap_or(0).min(left_ns);
            components[component] = part_ns;
            left_ns -= part_ns;
        }
        let worker_ns = components[Component::Worker];
        let worker_starved_ns = self.worker_starved_ns.unwrap_or(0).min(worker_ns);
        components[Component::Worker] -= worker_starved_ns;
        components[Component::Starved] += worker_starved_ns;
        components[Component::Rest] = left_ns;
        Ok(components)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            queue_ns: Some(50),
            accept_ns: Some(20),
            receive_ns: Some(7),
            sending_ns: None,
            handler_ns: Some(1_000),
            starved_ns: Some(100),
            inner_queue_ns: Some(300),
            worker_ns: Some(400),
            worker_starved_ns: Some(40),
            stream_ns: Some(5),
            undrained_ns: None,
        }
    }

    #[test]
    fn components_add_up_to_the_duration() {
        let components = parts().components().unwrap();
        let named = Component::ALL.map(|component| components[component]);
        assert_eq!(named, [20, 30, 7, 140, 300, 360, 200, 5]);
        assert_eq!(components.total_ns(), 50 + 7 + 1_000 + 5);
    }

    #[test]
    fn parts_never_exceed_the_whole() {
        let components = Parts {
            accept_ns: Some(90),
            starved_ns: Some(900),
            ..parts()
        }
        .components()
        .unwrap();
        assert_eq!(
            (components[Component::Accept], components[Component::Queue]),
            (50, 0)
        );
        assert_eq!(
            (components[Component::Starved], components[Component::Rest]),
            (340, 0)
        );
        assert_eq!(components.total_ns(), 50 + 7 + 1_000 + 5);
    }

    #[test]
    fn unknown_stage_is_named() {
        for (parts, missing) in [
            (
                Parts {
                    queue_ns: None,
                    ..parts()
                },
                Missing::Queue,
            ),
            (
                Parts {
                    receive_ns: None,
                    ..parts()
                },
                Missing::Receive,
            ),
            (
                Parts {
                    handler_ns: None,
                    ..parts()
                },
                Missing::Handler,
            ),
            (
                Parts {
                    stream_ns: None,
                    ..parts()
                },
                Missing::Stream,
            ),
            (Parts::default(), Missing::Queue),
        ] {
            assert_eq!(parts.components(), Err(missing));
        }
    }
}
