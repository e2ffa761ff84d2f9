//! Finds out whether one request was slow for its model, and which component made it so.
//!
//! A request is slow if it took at least twice the median of its model's latest requests. The component with the largest
//! excess over its own median is the reason, if it explains half of the excess.
//! Does not depend on: windows, wording.

use crate::verdict::{
    component::{Component, Components, Parts},
    evidence::Evidence,
    judge::{Cause, no_cpu, slowed_by, unclear_gpu},
};

/// Latest requests that the medians are taken from.
const KEPT: usize = 64;
/// Requests after which the medians are computed for the first time.
const FIRST: usize = 16;
/// A request is slow from this many medians.
const FACTOR: u64 = 2;
/// A shorter excess over the median is not slow, ns.
const NOTICEABLE_NS: u64 = 1_000_000;

/// Why one request was slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Because {
    /// Its connection waited to be accepted.
    Accept,
    /// It waited to be read.
    Queue,
    /// The client sent or received it slowly.
    Client,
    /// Other processes took the CPU.
    Cpu,
    /// The server itself kept its CPUs busy.
    CpuOwn,
    /// The CPU limit of the server's control group.
    CpuLimit,
    /// It waited inside the server for a worker.
    InnerQueue,
    /// The server worked longer, while other processes used more of its GPU than before.
    GpuShared,
    /// The server worked longer, while its GPU was throttled.
    GpuThrottled,
    /// The server worked longer.
    Server,
    /// The server produced the response slowly.
    Stream,
    /// The evidence is missing, or no component explains it.
    Unknown,
}

impl Because {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Accept,
        Self::Queue,
        Self::Client,
        Self::Cpu,
        Self::CpuOwn,
        Self::CpuLimit,
        Self::InnerQueue,
        Self::GpuShared,
        Self::GpuThrottled,
        Self::Server,
        Self::Stream,
        Self::Unknown,
    ];

    /// Returns its value of the label `because`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Queue => "queue",
            Self::Client => "client",
            Self::Cpu => "cpu",
            Self::CpuOwn => "cpu_own",
            Self::CpuLimit => "cpu_limit",
            Self::InnerQueue => "inner_queue",
            Self::GpuShared => "gpu_shared",
            Self::GpuThrottled => "gpu_throttled",
            Self::Server => "server",
            Self::Stream => "stream",
            Self::Unknown => "unknown",
        }
    }
}

/// The latest requests of one model, and their medians.
#[derive(Debug, Default)]
pub struct Typical {
    latest: Vec<Components>,
    next: usize,
    medians: Option<Medians>,
}

#[derive(Debug, Clone, Copy)]
struct Medians {
    total_ns: u64,
    components: Components,
}

impl Typical {
    /// Returns why a request was slow; `None` if it was not, or if there are not yet enough requests to compare it with. Adds it to those that later ones are compared with.
    ///
    /// `components` are those of `parts`. `evidence`, of now and of the time before, is looked up only if the request was
    /// slow.
    pub fn because(
        &mut self,
        parts: &Parts,
        components: Components,
        evidence: impl FnOnce() -> (Evidence, Evidence),
    ) -> Option<Because> {
        let because = self
            .medians
            .as_ref()
            .and_then(|medians| slow(parts, &components, medians, evidence));
        self.note(components);
        because
    }

    fn note(&mut self, components: Components) {
        if self.latest.len() < KEPT {
            self.latest.push(components);
        } else {
            self.latest[self.next] = components;
        }
        self.next = (self.next + 1) % KEPT;
        // Anew with each full set, because medians cost more than all else of a request.
        if self.next == 0 || (self.medians.is_none() && self.latest.len() == FIRST) {
            self.medians = Some(Medians {
                total_ns: self.median(Components::total_ns),
                components: {
                    let mut medians = Components::default();
                    for component in Component::ALL {
                        medians[component] = self.median(|components| components[component]);
                    }
                    medians
                },
            });
        }
    }

    fn median(&self, of: impl Fn(&Components) -> u64) -> u64 {
        let mut values: Vec<u64> = self.latest.iter().map(of).collect();
        let middle = values.len() / 2;
        *values.select_nth_unstable(middle).1
    }
}

fn slow(
    parts: &Parts,
    components: &Components,
    medians: &Medians,
    evidence: impl FnOnce() -> (Evidence, Evidence),
) -> Option<Because> {
    let total_ns = components.total_ns();
    let excess_ns = total_ns.saturating_sub(medians.total_ns);
    if total_ns < medians.total_ns.saturating_mul(FACTOR) || excess_ns < NOTICEABLE_NS {
        return None;
    }
    let excesses = Component::ALL.map(|component| {
        let over_ns = components[component].saturating_sub(medians.components[component]);
        (component, over_ns)
    });
    let (component, over_ns) = excesses.into_iter().max_by_key(|(_, over_ns)| *over_ns)?;
    if over_ns.saturating_mul(2) < excess_ns {
        return Some(Because::Unknown);
    }
    let is_most = |part_ns: Option<u64>| {
        part_ns.map(|part_ns| part_ns.saturating_mul(2) >= components[component])
    };
    Some(match component {
        Component::Accept => Because::Accept,
        Component::Queue => Because::Queue,
        Component::Receive => match is_most(parts.sending_ns) {
            Some(true) => Because::Client,
            Some(false) => Because::Queue,
            None => Because::Unknown,
        },
        Component::Starved => match no_cpu(&evidence().0) {
            Cause::CpuLimit => Because::CpuLimit,
            Cause::CpuOwn { .. } => Because::CpuOwn,
            Cause::CpuTaken => Because::Cpu,
            _ => Because::Unknown,
        },
        Component::InnerQueue => Because::InnerQueue,
        Component::Worker | Component::Rest => {
            let (now, before) = evidence();
            let before = before.gpu.as_ref();
            match now.gpu.and_then(|gpu| slowed_by(&gpu, before)) {
                Some(Cause::GpuThrottled) => Because::GpuThrottled,
                Some(_) => Because::GpuShared,
                None if unclear_gpu(&now, before).is_some() => Because::Unknown,
                None if parts.is_starved_known() => Because::Server,
                None => Because::Unknown,
            }
        }
        Component::Stream => match is_most(parts.undrained_ns) {
            Some(true) => Because::Client,
            Some(false) => Because::Stream,
            None => Because::Unknown,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::evidence::{Gpu, Lacking};

    const MS: u64 = 1_000_000;

    fn usual() -> Parts {
        Parts {
            queue_ns: Some(MS),
            accept_ns: Some(0),
            receive_ns: Some(MS),
            sending_ns: Some(0),
            handler_ns: Some(10 * MS),
            starved_ns: Some(0),
            stream_ns: Some(MS),
            undrained_ns: Some(0),
            ..Parts::default()
        }
    }

    fn evidence() -> Evidence {
        Evidence {
            by_limit: Some(0.0),
            own_cpu: Some(0.1),
            ..Evidence::default()
        }
    }

    fn typical() -> Typical {
        let mut typical = Typical::default();
        for _ in 0..FIRST {
            assert_eq!(because(&mut typical, &usual(), evidence()), None);
        }
        typical
    }

    fn because(typical: &mut Typical, parts: &Parts, evidence: Evidence) -> Option<Because> {
        let before = Evidence {
            gpu: evidence.gpu.map(|gpu| Gpu {
                others: Some(0.1),
                throttled: Some(0.01),
                ..gpu
            }),
            ..Evidence::default()
        };
        typical.because(parts, parts.components().ok()?, || (evidence, before))
    }

    #[test]
    fn component_with_the_excess_is_the_reason() {
        let limited = Evidence {
            by_limit: Some(0.6),
            ..evidence()
        };
        let unknown_limit = Evidence::default();
        let gpu = |others, throttled| Evidence {
            gpu: Some(Gpu {
                others: Some(others),
                most_others: Some(others),
                other_pid: None,
                throttled: Some(throttled),
            }),
            ..evidence()
        };
        let usual = usual();
        let long = Some(50 * MS);
        for (parts, evidence, expected) in [
            (
                Parts {
                    queue_ns: long,
                    ..usual
                },
                evidence(),
                Because::Queue,
            ),
            (
                Parts {
                    queue_ns: long,
                    accept_ns: Some(45 * MS),
                    ..usual
                },
                evidence(),
                Because::Accept,
            ),
            (
                Parts {
                    receive_ns: long,
                    sending_ns: Some(45 * MS),
                    ..usual
                },
                evidence(),
                Because::Client,
            ),
            (
                Parts {
                    receive_ns: long,
                    sending_ns: Some(MS),
                    ..usual
                },
                evidence(),
                Because::Queue,
            ),
            (
                Parts {
                    receive_ns: long,
                    sending_ns: None,
                    ..usual
                },
                evidence(),
                Because::Unknown,
            ),
            (
                Parts {
                    handler_ns: long,
                    ..usual
                },
                evidence(),
                Because::Server,
            ),
            (
                Parts {
                    handler_ns: long,
                    starved_ns: None,
                    ..usual
                },
                evidence(),
                Because::Unknown,
            ),
            (
                Parts {
                    handler_ns: long,
                    starved_ns: None,
                    ..usual
                },
                gpu(0.5, 0.0),
                Because::GpuShared,
            ),
            (
                Parts {
                    handler_ns: long,
                    ..usual
                },
                gpu(0.5, 0.6),
                Because::GpuThrottled,
            ),
            (
                Parts {
                    handler_ns: long,
                    ..usual
                },
                gpu(0.15, 0.02),
                Because::Server,
            ),
            (
                Parts {
                    handler_ns: long,
                    starved_ns: Some(40 * MS),
                    ..usual
                },
                evidence(),
                Because::Cpu,
            ),
            (
                Parts {
                    handler_ns: long,
                    starved_ns: Some(40 * MS),
                    ..usual
                },
                limited,
                Because::CpuLimit,
            ),
            (
                Parts {
                    handler_ns: long,
                    starved_ns: Some(40 * MS),
                    ..usual
                },
                Evidence {
                    own_cpu: Some(0.9),
                    ..evidence()
                },
                Because::CpuOwn,
            ),
            (
                Parts {
                    handler_ns: long,
                    starved_ns: Some(40 * MS),
                    ..usual
                },
                unknown_limit,
                Because::Unknown,
            ),
            (
                Parts {
                    handler_ns: long,
                    ..usual
                },
                Evidence {
                    lacking: Lacking {
                        gpu: Some(1),
                        ..Lacking::default()
                    },
                    ..evidence()
                },
                Because::Unknown,
            ),
            (
                Parts {
                    handler_ns: long,
                    inner_queue_ns: Some(40 * MS),
                    ..usual
                },
                evidence(),
                Because::InnerQueue,
            ),
            (
                Parts {
                    stream_ns: long,
                    undrained_ns: Some(40 * MS),
                    ..usual
                },
                evidence(),
                Because::Client,
            ),
            (
                Parts {
                    stream_ns: long,
                    undrained_ns: Some(MS),
                    ..usual
                },
                evidence(),
                Because::Stream,
            ),
            (
                Parts {
                    stream_ns: long,
                    undrained_ns: None,
                    ..usual
                },
                evidence(),
                Because::Unknown,
            ),
        ] {
            assert_eq!(
                because(&mut typical(), &parts, evidence),
                Some(expected),
                "{parts:?}"
            );
        }
    }

    #[test]
    fn excess_without_a_main_component_is_unknown() {
        let spread = Parts {
            queue_ns: Some(12 * MS),
            receive_ns: Some(12 * MS),
            handler_ns: Some(22 * MS),
            ..usual()
        };
        assert_eq!(
            because(&mut typical(), &spread, evidence()),
            Some(Because::Unknown)
        );
    }

    #[test]
    fn usual_and_incomplete_requests_are_not_slow() {
        let mut typical = typical();
        let longer = Parts {
            handler_ns: Some(20 * MS),
            ..usual()
        };
        assert_eq!(because(&mut typical, &longer, evidence()), None);
        let incomplete = Parts {
            queue_ns: None,
            handler_ns: Some(90 * MS),
            ..usual()
        };
        assert_eq!(because(&mut typical, &incomplete, evidence()), None);
    }

    #[test]
    fn medians_follow_the_latest_requests() {
        let mut typical = typical();
        let slower = Parts {
            handler_ns: Some(40 * MS),
            ..usual()
        };
        assert_eq!(
            because(&mut typical, &slower, evidence()),
            Some(Because::Server)
        );
        for _ in 0..2 * KEPT {
            because(&mut typical, &slower, evidence());
        }
        assert_eq!(because(&mut typical, &slower, evidence()), None);
    }
}
