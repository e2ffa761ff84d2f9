//! Says whose the processes on the GPUs are, who used their energy, and what that tells of servers.
//!
//! Does not depend on: NVML, how processes are watched.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock::monotonic_ns,
    collectors::gpu::{
        busy::Busy,
        device::{self, DeviceReading, Memory},
        energy::{self, Ledger, Part, Share, Users},
        evidence::Before,
        processes::Processes,
    },
    discovery::{
        containers::{Containers, Home},
        procfs,
        roster::{Owner, Roster},
    },
    history::{History, readings},
    identity::{Replica, ShownLabels},
    metrics::{Metrics, Reading, families},
};

/// Most GPUs to keep energy of: more than a host has, as UUIDs change only with MIG.
const MAX_LEDGERS: usize = 256;

/// The energy of every GPU so far, by UUID.
#[derive(Debug)]
pub(super) struct Shares {
    ledgers: BTreeMap<String, Ledger>,
    /// Longest time between two readings whose energy can be split.
    max_gap: Duration,
    before: Before,
    /// When the GPUs were read before, ns.
    before_ns: u64,
    homes: Homes,
}

impl Shares {
    /// Starts without any energy; `host_root` is where the root of the host is.
    pub(super) fn new(max_gap: Duration, host_root: &Path) -> Self {
        Self {
            ledgers: BTreeMap::new(),
            max_gap,
            before: Before::default(),
            before_ns: monotonic_ns(),
            homes: Homes {
                containers: Containers::new(host_root),
                by_pid: BTreeMap::new(),
            },
        }
    }

    /// Adds readings of every GPU; returns all their series. What they tell of servers is evidence in `history`.
    pub(super) fn add(
        &mut self,
        readings: Vec<DeviceReading>,
        memories: &BTreeMap<String, Memory<'_>>,
        roster: &Roster,
        history: &History,
        metrics: &Metrics,
    ) -> Vec<Reading> {
        let users = roster.take(procfs::parent_of);
        // Each process is looked up once, however many GPUs it uses.
        let mut owners: BTreeMap<u32, Owner> = BTreeMap::new();
        let mut owner = |pid: u32| {
            let owner = owners.entry(pid).or_insert_with(|| users.owner(pid));
            owner.clone()
        };
        let whole = readings.iter().map(|reading| &reading.whole);
        let instances = readings.iter().flat_map(|reading| &reading.instances);
        let pids = whole
            .chain(instances)
            .flat_map(|part| part.processes.by_pid.keys());
        let replicas = self
            .homes
            .find(pids.copied(), users.shown(), Instant::now());
        let (from_ns, at_ns) = (self.before_ns, monotonic_ns());
        self.before_ns = at_ns;
        let span_ns = at_ns.saturating_sub(from_ns);
        let told = self.before.tell(&readings, span_ns, &mut owner, &replicas);
        for (server, gpu) in told {
            let reading = readings::Reading {
                from_ns,
                at_ns,
                gpu: Some(gpu),
                ..readings::Reading::default()
            };
            history.models().read(&server, reading);
        }
        let mut all = Vec::new();
        for mut reading in readings {
            let idle_mw = memories
                .get(&reading.uuid)
                .and_then(|memory| memory.idle_mw);
            self.add_energy(&mut reading, idle_mw, &mut owner);
            let parts = std::iter::once(reading.whole).chain(reading.instances);
            for mut part in parts {
                push_processes(&mut part, &mut owner, &replicas);
                all.extend(part.series.finish(metrics));
            }
        }
        all
    }

    fn add_energy(
        &mut self,
        reading: &mut DeviceReading,
        idle_mw: Option<u32>,
        owner: &mut impl FnMut(u32) -> Owner,
    ) {
        let Some(energy_mj) = reading.energy_mj else {
            return;
        };
        if self.ledgers.len() >= MAX_LEDGERS && !self.ledgers.contains_key(&reading.uuid) {
            return;
        }
        let ledger = self.ledgers.entry(reading.uuid.clone()).or_default();
        let users = users_of(&reading.whole.processes, reading.busy, owner);
        ledger.add(
            energy_mj,
            Instant::now(),
            self.max_gap,
            |delta_mj, interval| energy::split(delta_mj, interval, idle_mw, &users),
        );
        let series = &mut reading.whole.series;
        series.push(&families::GPU_ENERGY, &[], ledger.total_j());
        series.push(&families::GPU_COUNTER_RESETS, &[], ledger.resets());
        for (part, joules) in ledger.parts_j() {
            series.push(&families::GPU_ENERGY_SHARES, &part.labels(), joules);
        }
    }
}

/// Returns who used a GPU, and for how long.
fn users_of(processes: &Processes, busy: Busy, mut owner: impl FnMut(u32) -> Owner) -> Users {
    if !processes.is_timed {
        return Users::Unknown;
    }
    let mut shares: Vec<Share> = Vec::new();
    for (pid, used) in &processes.by_pid {
        let Some(sm_pct) = used.sm_pct.filter(|pct| *pct > 0.0) else {
            continue;
        };
        match owner(*pid) {
            Owner::Other => shares.push((Part::Other, sm_pct)),
            Owner::Unknown(_) => shares.push((Part::Unattributed, sm_pct)),
            Owner::Models(server, models) => {
                let whole: f64 = models.iter().map(|(_, time)| time).sum();
                shares.extend(models.into_iter().map(|(model, time)| {
                    let server = Arc::clone(&server);
                    (Part::Model { server, model }, sm_pct * time / whole)
                }));
            }
        }
    }
    match busy {
        _ if !shares.is_empty() => Users::Known(shares),
        Busy::Known(0) => Users::None,
        // It worked for someone whom NVML does not report.
        _ => Users::Unknown,
    }
}

/// The containers of the processes.
#[derive(Debug)]
struct Homes {
    containers: Containers,
    by_pid: BTreeMap<u32, Home>,
}

impl Homes {
    /// Returns where each of these processes runs, and forgets all others; `shown` of `None`: nowhere.
    fn find(
        &mut self,
        pids: impl Iterator<Item = u32>,
        shown: Option<ShownLabels>,
        now: Instant,
    ) -> BTreeMap<u32, Replica> {
        let before = std::mem::take(&mut self.by_pid);
        let Some(shown) = shown else {
            return BTreeMap::new();
        };
        for pid in pids {
            if !self.by_pid.contains_key(&pid)
                && let Some(home) = self.containers.of(pid, before.get(&pid), now)
            {
                self.by_pid.insert(pid, home);
            }
        }
        let replica = |home: &Home| Replica::new(None, &home.container, shown);
        let replicas = self.by_pid.iter().map(|(pid, home)| (*pid, replica(home)));
        replicas.collect()
    }
}

/// Adds the series of each process.
fn push_processes(
    part: &mut device::Part,
    mut owner: impl FnMut(u32) -> Owner,
    replicas: &BTreeMap<u32, Replica>,
) {
    for (pid, used) in part.processes.largest(&mut part.series) {
        let (server, model) = match owner(pid) {
            Owner::Other => ("".into(), "".into()),
            Owner::Unknown(server) => (server, "".into()),
            Owner::Models(server, models) => match &models[..] {
                [(model, _)] => (server, model.clone()),
                _ => (server, Arc::from("")),
            },
        };
        let replica = replicas.get(&pid).cloned().unwrap_or_default();
        let pid = pid.to_string();
        let labels = [&[&*pid, &*server, &*model][..], &replica.container_labels()].concat();
        let series = &mut part.series;
        let ratio = |pct: Option<f64>| pct.map(|pct| pct / 100.0);
        series.push_some(&families::GPU_PROCESS_BUSY, &labels, ratio(used.sm_pct));
        series.push_some(
            &families::GPU_PROCESS_MEMORY_BUSY,
            &labels,
            ratio(used.memory_pct),
        );
        series.push_some(&families::GPU_PROCESS_MEMORY, &labels, used.memory_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        collectors::gpu::{processes::ProcessUse, series::Series},
        identity::Container,
        metrics::{Format, Selection},
    };

    fn processes(times: &[(u32, Option<f64>)]) -> Processes {
        let used = times.iter().map(|(pid, sm_pct)| {
            let used = ProcessUse {
                sm_pct: *sm_pct,
                ..ProcessUse::default()
            };
            (*pid, used)
        });
        Processes {
            by_pid: used.collect(),
            is_timed: true,
        }
    }

    fn owner(pid: u32) -> Owner {
        match pid {
            1 => Owner::Models("s".into(), vec![("a".into(), 3.0), ("b".into(), 1.0)]),
            2 => Owner::Unknown("s".into()),
            _ => Owner::Other,
        }
    }

    fn model(model: &str) -> Part {
        Part::Model {
            server: "s".into(),
            model: model.into(),
        }
    }

    #[test]
    fn the_time_of_a_process_is_divided_between_its_models() {
        let processes = processes(&[(1, Some(40.0)), (2, Some(5.0)), (3, Some(20.0)), (4, None)]);
        assert_eq!(
            users_of(&processes, Busy::Known(60), owner),
            Users::Known(vec![
                (model("a"), 30.0),
                (model("b"), 10.0),
                (Part::Unattributed, 5.0),
                (Part::Other, 20.0),
            ])
        );
    }

    #[test]
    fn a_process_has_the_labels_of_its_container() {
        let container = Container {
            namespace: "llm".into(),
            pod: "vllm-0".into(),
            name: "server".into(),
        };
        let replica = Replica::new(Some(8000), &container, ShownLabels::ALL);
        let mut part = device::Part {
            series: Series::new(0, "GPU-a", None),
            processes: processes(&[(2, Some(50.0)), (3, Some(25.0))]),
        };
        push_processes(&mut part, owner, &BTreeMap::from([(2, replica)]));
        let metrics = Metrics::new("vm");
        let readings = part.series.finish(&metrics);
        metrics.set_readings("gpu", readings, Instant::now() + Duration::from_secs(60));
        let family = "inferprobe_gpu_process_sm_ratio";
        let text = metrics.encode(&Selection::named([family]), Format::Text);
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let device = format!(r#"{family}{{device="0",uuid="GPU-a",mig="""#);
        let expected = [
            format!(
                r#"{device},pid="2",server="s",model="",namespace="llm",pod="vllm-0",container="server"}} 0.5"#
            ),
            format!(
                r#"{device},pid="3",server="",model="",namespace="",pod="",container=""}} 0.25"#
            ),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_gpu_is_idle_only_if_everything_says_so() {
        let none = processes(&[(1, None), (3, Some(0.0))]);
        for (busy, expected) in [
            (Busy::Known(0), Users::None),
            (Busy::Known(7), Users::Unknown),
            (Busy::FalseZero, Users::Unknown),
            (Busy::Absent, Users::Unknown),
        ] {
            assert_eq!(users_of(&none, busy, owner), expected, "{busy:?}");
        }
        let untimed = Processes::default();
        assert_eq!(users_of(&untimed, Busy::Known(0), owner), Users::Unknown);
    }
}
