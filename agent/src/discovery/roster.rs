//! Shares the watched processes, and what each has served, with the threads that read GPUs and the scheduler.
//!
//! The event loop publishes about once a second; collectors look up who a process belongs to.
//! Does not depend on: GPUs, metrics.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::identity::{Identity, Instance, Replica, ShownLabels};

/// Most processes that are known only by the requests they served.
const MAX_SERVING: usize = 4_096;
/// Most models to remember of one process; all further ones are one model.
const MAX_MODELS: usize = 32;
/// Name of that model.
const OTHER: &str = "other";
/// Longest chain of parents to follow.
const MAX_PARENTS: usize = 16;

/// A watched process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Label `server`.
    pub server: Arc<str>,
    /// Where it runs, without a port: it may have several listeners.
    pub replica: Replica,
    /// Label `model` of requests that name none.
    pub model: Arc<str>,
    /// Whether it has loaded exactly that model, and serves no other.
    pub is_loaded: bool,
    /// Server of the catalogue that it was recognised as; `None` if by something else.
    pub recognised: Option<Arc<str>>,
}

impl Member {
    /// Its server, and where that runs.
    fn instance(&self) -> Instance {
        Instance {
            server: self.server.clone(),
            replica: self.replica.clone(),
        }
    }
}

/// Processes of a server that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// Its name in the catalogue.
    pub name: Arc<str>,
    /// Its processes.
    pub pids: BTreeSet<u32>,
}

/// Time that a process spent on requests of each model, ns.
pub type ServedTimes = HashMap<u32, BTreeMap<Identity, u64>>;

/// The watched processes of this host.
#[derive(Debug, Default)]
pub struct Roster(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Labels of containers to use.
    shown: ShownLabels,
    members: HashMap<u32, Member>,
    /// Served since a collector took it.
    served: ServedTimes,
    /// Every model that a process has served.
    models: HashMap<u32, BTreeSet<Identity>>,
    /// Whether the ids of records and of procfs are those of different namespaces.
    is_blind: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            shown: ShownLabels::ALL,
            members: HashMap::new(),
            served: ServedTimes::new(),
            models: HashMap::new(),
            is_blind: false,
        }
    }
}

impl Roster {
    /// Has collectors use only these labels of containers.
    pub fn show_labels(&self, shown: ShownLabels) {
        self.state().shown = shown;
    }

    /// Replaces the watched processes, and adds what was served since the last call.
    pub fn publish(&self, members: HashMap<u32, Member>, served: ServedTimes) {
        let mut state = self.state();
        let state = &mut *state;
        for (pid, times) in served {
            if state.models.len() >= MAX_SERVING && !state.models.contains_key(&pid) {
                continue;
            }
            let models = state.models.entry(pid).or_default();
            let sums = state.served.entry(pid).or_default();
            for (identity, ns) in times {
                let is_kept = models.len() < MAX_MODELS || models.contains(&identity);
                let identity = if is_kept { identity } else { other(&identity) };
                models.insert(identity.clone());
                *sums.entry(identity).or_default() += ns;
            }
        }
        state.members = members;
    }

    /// Records that processes cannot be told apart: procfs is that of another pid namespace.
    pub fn set_blind(&self) {
        self.state().is_blind = true;
    }

    /// Returns the processes that are watched, or have served requests on a watched port.
    ///
    /// Forgets those for which `exists` is false.
    pub fn servers(&self, exists: impl Fn(u32) -> bool) -> HashMap<u32, Instance> {
        let mut state = self.state();
        state.models.retain(|pid, _| exists(*pid));
        let State {
            members, models, ..
        } = &*state;
        let served = models.iter().filter_map(|(pid, models)| {
            let identity = models.first()?;
            Some((*pid, identity.processes()))
        });
        let watched = members
            .iter()
            .map(|(pid, member)| (*pid, member.instance()));
        served.chain(watched).collect()
    }

    /// Returns the processes that were recognised as one of the servers `names` of the catalogue, by server and container.
    pub fn recognised(&self, names: &[&str]) -> BTreeMap<Instance, Recognised> {
        let mut found: BTreeMap<Instance, Recognised> = BTreeMap::new();
        for (pid, member) in &self.state().members {
            if let Some(name) = &member.recognised
                && names.contains(&&**name)
            {
                let of_server = found.entry(member.instance());
                let of_server = of_server.or_insert_with(|| Recognised {
                    name: name.clone(),
                    pids: BTreeSet::new(),
                });
                of_server.pids.insert(*pid);
            }
        }
        found
    }

    /// Takes what was served since the last call; `parent_of` returns the parent of a process.
    pub fn take<P: Fn(u32) -> Option<u32>>(&self, parent_of: P) -> Users<P> {
        let mut state = self.state();
        Users {
            members: state.members.clone(),
            served: std::mem::take(&mut state.served),
            models: state.models.clone(),
            is_blind: state.is_blind,
            shown: state.shown,
            parent_of,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The model that stands for those that are not remembered.
pub fn other(identity: &Identity) -> Identity {
    Identity {
        model: OTHER.into(),
        version: OTHER.into(),
        server: identity.server.clone(),
        replica: identity.replica.clone(),
    }
}

/// The watched processes, and what each served since the reading before.
#[derive(Debug)]
pub struct Users<P> {
    members: HashMap<u32, Member>,
    served: ServedTimes,
    models: HashMap<u32, BTreeSet<Identity>>,
    is_blind: bool,
    shown: ShownLabels,
    parent_of: P,
}

/// Who a process belongs to.
#[derive(Debug, Clone, PartialEq)]
pub enum Owner {
    /// No watched server.
    Other,
    /// A server, whose requests of these models took these times; any unit.
    Models(Arc<str>, Vec<(Arc<str>, f64)>),
    /// A server with several models, none of which had a request that ended; without a name if processes cannot be
    /// told apart.
    Unknown(Arc<str>),
}

impl<P> Users<P> {
    /// The labels to use of the container of a process; `None` if none is used, or procfs is that of another pid namespace.
    pub fn shown(&self) -> Option<ShownLabels> {
        let is_used = !self.is_blind && self.shown.shows_container();
        is_used.then_some(self.shown)
    }
}

impl<P: Fn(u32) -> Option<u32>> Users<P> {
    /// Returns who `pid` belongs to: it may be watched itself, or be started by a process that is.
    pub fn owner(&self, pid: u32) -> Owner {
        if self.is_blind {
            return Owner::Unknown("".into());
        }
        let line = self.line_of(pid);
        let member = line.iter().find_map(|pid| self.members.get(pid));
        if let Some(member) = member.filter(|member| member.is_loaded) {
            let models = vec![(member.model.clone(), 1.0)];
            return Owner::Models(member.server.clone(), models);
        }
        let serving = self.serving(pid, &line);
        let server = match (member, serving.first()) {
            (Some(member), _) => member.server.clone(),
            (None, Some(pid)) => match self.models[pid].first() {
                Some(identity) => identity.server.clone(),
                None => return Owner::Other,
            },
            (None, None) => return Owner::Other,
        };
        let mut times: BTreeMap<Arc<str>, f64> = BTreeMap::new();
        let served = serving.iter().filter_map(|pid| self.served.get(pid));
        for (identity, ns) in served.flatten() {
            *times.entry(identity.model.clone()).or_default() += *ns as f64;
        }
        times.retain(|_, time| *time > 0.0);
        if !times.is_empty() {
            return Owner::Models(server, times.into_iter().collect());
        }
        let known = serving.iter().flat_map(|pid| &self.models[pid]);
        let known: BTreeSet<Arc<str>> = known.map(|identity| identity.model.clone()).collect();
        let mut known = known.into_iter();
        match (known.next(), known.next(), member) {
            (Some(model), None, _) => Owner::Models(server, vec![(model, 1.0)]),
            (None, _, Some(member)) => Owner::Models(server, vec![(member.model.clone(), 1.0)]),
            _ => Owner::Unknown(server),
        }
    }

    /// The process that served requests for `pid`: itself, else the nearest parent, else those that it started.
    fn serving(&self, pid: u32, line: &[u32]) -> Vec<u32> {
        let serves = |pid: &&u32| self.models.contains_key(pid);
        if let Some(nearest) = line.iter().find(serves) {
            return vec![*nearest];
        }
        let started = |other: &&u32| self.line_of(**other).contains(&pid);
        self.models.keys().filter(started).copied().collect()
    }

    /// The process and its parents, without the first process of the host.
    fn line_of(&self, pid: u32) -> Vec<u32> {
        let parents = std::iter::successors(Some(pid), |pid| (self.parent_of)(*pid));
        parents
            .take(MAX_PARENTS)
            .take_while(|pid| *pid > 1)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(server: &str, model: &str) -> Identity {
        Identity {
            model: model.into(),
            version: "default".into(),
            server: server.into(),
            replica: Replica::default(),
        }
    }

    fn member(server: &str, model: &str, is_loaded: bool) -> Member {
        Member {
            server: server.into(),
            replica: Replica::default(),
            model: model.into(),
            is_loaded,
            recognised: (server == "s").then(|| "vllm".into()),
        }
    }

    /// 10 is the API server and started 11, the engine; 20 is a frontend and started the workers 21 and 22.
    fn parent_of(pid: u32) -> Option<u32> {
        match pid {
            11 => Some(10),
            21 | 22 => Some(20),
            10 | 20 | 30 => Some(1),
            _ => None,
        }
    }

    fn roster() -> Roster {
        let members = [
            (10, member("vllm", "cmdline", false)),
            (11, member("vllm", "cmdline", false)),
            (20, member("torchserve", "java", false)),
            (21, member("torchserve", "a", true)),
            (22, member("torchserve", "b", true)),
        ];
        let roster = Roster::default();
        roster.publish(HashMap::from(members), ServedTimes::new());
        roster
    }

    fn served(roster: &Roster, pid: u32, server: &str, times: &[(&str, u64)]) {
        let times = times
            .iter()
            .map(|(model, ns)| (identity(server, model), *ns));
        let members = roster.state().members.clone();
        roster.publish(members, HashMap::from([(pid, times.collect())]));
    }

    fn models(server: &str, models: &[(&str, f64)]) -> Owner {
        let models = models
            .iter()
            .map(|(model, time)| (Arc::from(*model), *time));
        Owner::Models(server.into(), models.collect())
    }

    #[test]
    fn an_engine_works_for_the_models_that_its_parent_serves() {
        let roster = roster();
        assert_eq!(
            roster.take(parent_of).owner(11),
            models("vllm", &[("cmdline", 1.0)])
        );
        served(&roster, 10, "vllm", &[("x", 30)]);
        served(&roster, 10, "vllm", &[("x", 30), ("y", 20)]);
        let users = roster.take(parent_of);
        assert_eq!(users.owner(11), models("vllm", &[("x", 60.0), ("y", 20.0)]));
        let users = roster.take(parent_of);
        assert_eq!(
            users.owner(11),
            Owner::Unknown("vllm".into()),
            "two models, and no request"
        );
    }

    #[test]
    fn the_only_model_of_a_process_has_all_of_it_between_requests() {
        let roster = roster();
        served(&roster, 10, "vllm", &[("x", 30)]);
        roster.take(parent_of);
        assert_eq!(
            roster.take(parent_of).owner(10),
            models("vllm", &[("x", 1.0)])
        );
    }

    #[test]
    fn a_worker_works_for_its_own_model() {
        let roster = roster();
        served(&roster, 20, "torchserve", &[("a", 5), ("b", 5)]);
        let users = roster.take(parent_of);
        assert_eq!(users.owner(21), models("torchserve", &[("a", 1.0)]));
        assert_eq!(users.owner(22), models("torchserve", &[("b", 1.0)]));
    }

    #[test]
    fn a_server_on_a_watched_port_is_known_by_its_requests() {
        let roster = roster();
        assert_eq!(roster.take(parent_of).owner(30), Owner::Other);
        served(&roster, 30, "python", &[("m", 5)]);
        assert_eq!(
            roster.take(parent_of).owner(30),
            models("python", &[("m", 5.0)])
        );
        assert_eq!(&*roster.servers(|_| true)[&30].server, "python");
        assert!(!roster.servers(|pid| pid != 30).contains_key(&30));
        assert_eq!(roster.take(parent_of).owner(30), Owner::Other);
    }

    #[test]
    fn in_another_pid_namespace_nobody_is_known() {
        let roster = roster();
        roster.set_blind();
        assert_eq!(roster.take(parent_of).owner(10), Owner::Unknown("".into()));
    }

    #[test]
    fn a_launcher_uses_the_gpu_for_the_models_that_its_children_serve() {
        let roster = Roster::default();
        served(&roster, 21, "s", &[("m", 5)]);
        assert_eq!(roster.take(parent_of).owner(20), models("s", &[("m", 5.0)]));
    }

    #[test]
    fn memory_is_bounded_whatever_clients_name() {
        let roster = roster();
        for index in 0..1_000 {
            served(&roster, 10, "vllm", &[(&format!("model-{index}"), 1)]);
        }
        let Owner::Models(_, models) = roster.take(parent_of).owner(10) else {
            panic!("no models");
        };
        assert_eq!(models.len(), MAX_MODELS + 1);
        let named = models.iter().find(|(model, _)| &**model == OTHER);
        let others = (1_000 - MAX_MODELS) as f64;
        assert_eq!(
            named.map(|(_, time)| *time),
            Some(others),
            "nobody's time is lost"
        );
    }
}
