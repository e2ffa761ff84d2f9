//! Says what the GPUs tell about the requests of each server: who else used them, and how long they were throttled.
//!
//! Does not depend on: NVML, verdicts.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    collectors::gpu::{busy::Busy, device::DeviceReading, limits::Throttled, processes::Processes},
    discovery::roster::Owner,
    identity::{Instance, Replica},
    verdict::evidence::Gpu,
};

/// Part of a GPU's utilization, percent, that NVML may leave without a process.
const UNEXPLAINED_PCT: f64 = 20.0;

/// The throttling of every GPU at the reading before, by UUID.
#[derive(Debug, Default)]
pub(super) struct Before(BTreeMap<String, Throttled>);

impl Before {
    /// Returns what the readings tell of each server in one container, since the readings `span_ns` before; `replicas`
    /// says where processes run.
    pub(super) fn tell(
        &mut self,
        readings: &[DeviceReading],
        span_ns: u64,
        mut owner: impl FnMut(u32) -> Owner,
        replicas: &BTreeMap<u32, Replica>,
    ) -> BTreeMap<Instance, Gpu> {
        let mut told: BTreeMap<Instance, Gpu> = BTreeMap::new();
        let mut now = BTreeMap::new();
        for reading in readings {
            let before = self.0.get(&reading.uuid);
            let throttled_ns = before.and_then(|before| reading.throttled.since(before));
            let throttled = throttled_ns.map(|ns| (ns as f64 / span_ns.max(1) as f64).min(1.0));
            now.insert(reading.uuid.clone(), reading.throttled);
            let on_instances = reading.instances.iter().map(|part| &part.processes);
            let processes = std::iter::once(&reading.whole.processes).chain(on_instances);
            let pids = processes.flat_map(|processes| processes.by_pid.keys().copied());
            let servers = pids.filter_map(|pid| {
                let server = Instance {
                    server: server_of(&owner(pid))?.clone(),
                    replica: replicas.get(&pid).cloned().unwrap_or_default(),
                };
                Some((pid, server))
            });
            let servers: BTreeMap<u32, Instance> = servers.collect();
            for server in servers.values() {
                let (others, other_pid) =
                    others(&reading.whole.processes, reading.busy, &servers, server);
                let gpu = Gpu {
                    others,
                    most_others: others,
                    other_pid,
                    throttled,
                };
                match told.get_mut(server) {
                    None => drop(told.insert(server.clone(), gpu)),
                    Some(worst) => *worst = worse(worst, &gpu),
                }
            }
        }
        self.0 = now;
        told
    }
}

/// The worse of two GPUs of a server, in each respect.
fn worse(one: &Gpu, other: &Gpu) -> Gpu {
    let more_shared = if one.others < other.others {
        other
    } else {
        one
    };
    Gpu {
        others: more_shared.others,
        most_others: more_shared.most_others,
        other_pid: more_shared.other_pid,
        throttled: match one.throttled < other.throttled {
            true => other.throttled,
            false => one.throttled,
        },
    }
}

fn server_of(owner: &Owner) -> Option<&Arc<str>> {
    match owner {
        Owner::Models(server, _) => Some(server),
        Owner::Unknown(server) if !server.is_empty() => Some(server),
        Owner::Unknown(_) | Owner::Other => None,
    }
}

/// Returns the busy share of processes that are not of `server`, and the one that uses most; `None` if NVML does not say
/// who ran kernels.
fn others(
    processes: &Processes,
    busy: Busy,
    servers: &BTreeMap<u32, Instance>,
    server: &Instance,
) -> (Option<f64>, Option<u32>) {
    let all_pct: f64 = processes
        .by_pid
        .values()
        .filter_map(|used| used.sm_pct)
        .sum();
    // Some drivers report 0 for each process that shares a GPU by time slices.
    let is_complete = match busy {
        Busy::Known(pct) => f64::from(pct) <= all_pct + UNEXPLAINED_PCT,
        Busy::FalseZero => false,
        Busy::Absent => true,
    };
    if !processes.is_timed || !is_complete {
        return (None, None);
    }
    let others = processes.by_pid.iter().filter_map(|(pid, used)| {
        let is_own = servers.get(pid) == Some(server);
        used.sm_pct.filter(|_| !is_own).map(|pct| (*pid, pct))
    });
    let (mut sum_pct, mut most) = (0.0, None);
    for (pid, pct) in others {
        sum_pct += pct;
        if most.is_none_or(|(_, most_pct)| pct > most_pct) {
            most = Some((pid, pct));
        }
    }
    let share: f64 = sum_pct / 100.0;
    (Some(share.min(1.0)), most.map(|(pid, _)| pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        collectors::gpu::{device::Part, processes::ProcessUse, series::Series},
        identity::{Container, ShownLabels},
        metrics::GpuSample,
    };

    /// A GPU with processes, each with its percent of the time, and its throttled time.
    fn device(uuid: &str, busy: Busy, used: &[(u32, f64)], throttled_ns: u64) -> DeviceReading {
        let used = used.iter().map(|(pid, pct)| {
            let used = ProcessUse {
                sm_pct: Some(*pct).filter(|pct| *pct > 0.0),
                ..ProcessUse::default()
            };
            (*pid, used)
        });
        DeviceReading {
            torchserve: GpuSample {
                index: 0,
                busy_pct: None,
                memory: None,
            },
            uuid: uuid.to_owned(),
            whole: Part {
                series: Series::new(0, uuid, None),
                processes: Processes {
                    by_pid: used.collect(),
                    is_timed: true,
                },
            },
            instances: Vec::new(),
            energy_mj: None,
            busy,
            counts_pcie: true,
            throttled: Throttled([Some(throttled_ns), None, Some(5), None, None]),
        }
    }

    /// Processes 1 and 2 are of server `a`, 3 is of `b`.
    fn owner(pid: u32) -> Owner {
        match pid {
            1 => Owner::Models("a".into(), vec![("m".into(), 1.0)]),
            2 => Owner::Unknown("a".into()),
            3 => Owner::Models("b".into(), vec![("m".into(), 1.0)]),
            _ => Owner::Other,
        }
    }

    fn instance(server: &str, pod: &str) -> Instance {
        Instance {
            server: server.into(),
            replica: in_pod(pod),
        }
    }

    fn in_pod(pod: &str) -> Replica {
        let container = Container {
            pod: pod.into(),
            ..Container::default()
        };
        Replica::new(None, &container, ShownLabels::ALL)
    }

    #[test]
    fn the_same_server_in_another_pod_is_another_one() {
        let used = [(1, 30.0), (2, 10.0)];
        let devices = [device("u", Busy::Known(40), &used, 0)];
        let replicas = BTreeMap::from([(1, in_pod("x")), (2, in_pod("y"))]);
        let told = Before::default().tell(&devices, 100, owner, &replicas);
        let others = |pod| told[&instance("a", pod)].others;
        assert_eq!((others("x"), others("y")), (Some(0.1), Some(0.3)));
    }

    #[test]
    fn others_are_all_processes_of_other_servers() {
        let used = [(1, 30.0), (2, 10.0), (3, 20.0), (9, 5.0)];
        let devices = [device("u", Busy::Known(65), &used, 0)];
        let told = Before::default().tell(&devices, 100, owner, &BTreeMap::new());
        let gpu = |others, other_pid| Gpu {
            others: Some(others),
            most_others: Some(others),
            other_pid: Some(other_pid),
            throttled: None,
        };
        assert_eq!(
            told,
            BTreeMap::from([
                (instance("a", ""), gpu(0.25, 3)),
                (instance("b", ""), gpu(0.45, 1)),
            ])
        );
    }

    #[test]
    fn throttled_time_is_that_since_the_reading_before_of_the_worst_gpu() {
        let mut before = Before::default();
        for (first_ns, second_ns, expected) in [
            (100, 50, None),
            (130, 90, Some(0.4)),
            (130, 90, Some(0.0)),
            (7, 91, Some(0.01)),
            (7, 991, Some(1.0)),
        ] {
            let devices = [
                device("u", Busy::Known(0), &[(1, 0.0)], first_ns),
                device("v", Busy::Known(0), &[(1, 0.0)], second_ns),
            ];
            let told = before.tell(&devices, 100, owner, &BTreeMap::new());
            assert_eq!(told[&instance("a", "")].throttled, expected);
        }
    }

    #[test]
    fn utilization_that_no_process_explains_hides_who_shares_the_gpu() {
        for (busy, expected) in [
            (Busy::Known(10), Some(0.0)),
            (Busy::Known(90), None),
            (Busy::FalseZero, None),
            (Busy::Absent, Some(0.0)),
        ] {
            let devices = [device("u", busy, &[(1, 0.0), (9, 0.0)], 0)];
            let told = Before::default().tell(&devices, 100, owner, &BTreeMap::new());
            assert_eq!(told[&instance("a", "")].others, expected, "{busy:?}");
        }
    }

    #[test]
    fn servers_without_a_process_on_the_gpu_have_no_evidence() {
        let devices = [device("u", Busy::Known(90), &[(9, 90.0)], 0)];
        assert_eq!(
            Before::default().tell(&devices, 100, owner, &BTreeMap::new()),
            BTreeMap::new()
        );
        let blind = |_| Owner::Unknown("".into());
        let devices = [device("u", Busy::Known(90), &[(9, 90.0)], 0)];
        assert_eq!(
            Before::default().tell(&devices, 100, blind, &BTreeMap::new()),
            BTreeMap::new()
        );
    }
}
