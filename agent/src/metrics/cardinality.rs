//! Limits the label values that a client can choose, so that memory and exposition stay small.
//!
//! The first values are kept; beyond a limit the value is [`OTHER`].
//! Does not depend on: what is counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Instant,
};

use crate::identity::{Identity, Instance, KEPT_AFTER_END, Replica};

/// Label value beyond a limit.
pub(crate) const OTHER: &str = "other";

/// Distinct models.
const MAX_MODELS: usize = 200;
/// Models known only from 4xx responses, which any client can cause with an invented name.
const MAX_UNPROVEN_MODELS: usize = 50;
/// Distinct versions of one model.
const MAX_VERSIONS: usize = 16;
/// Distinct servers.
const MAX_SERVERS: usize = 64;
/// Distinct combinations of model, version, server and replica.
const MAX_IDENTITIES: usize = 1000;
/// Distinct replicas.
const MAX_REPLICAS: usize = 256;
/// Replicas from which on those that have ended are forgotten early.
const MANY_REPLICAS: usize = 192;
/// Length of one value, bytes.
const MAX_VALUE_BYTES: usize = 256;

/// The label values in use, and how often a value was replaced by [`OTHER`].
#[derive(Debug)]
pub(crate) struct Cardinality {
    other: Arc<str>,
    models: BTreeMap<Arc<str>, Model>,
    unproven_models: usize,
    servers: BTreeSet<Arc<str>>,
    /// Each with the time since when it does not run; `None` if it runs.
    replicas: BTreeMap<Replica, Option<Instant>>,
    identities: BTreeSet<Identity>,
    overflows: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Model {
    versions: BTreeSet<Arc<str>>,
    proven: bool,
}

impl Cardinality {
    pub(crate) fn new() -> Self {
        Self {
            other: OTHER.into(),
            models: BTreeMap::new(),
            unproven_models: 0,
            servers: BTreeSet::new(),
            replicas: BTreeMap::new(),
            identities: BTreeSet::new(),
            overflows: ["model", "version", "server", "replica", "identity", "code"]
                .map(|label| (label, 0))
                .into(),
        }
    }

    /// Returns the labels to count a request under.
    ///
    /// `proven`: the response shows that the server knows the model.
    pub(crate) fn admit(&mut self, identity: &Identity, proven: bool) -> Identity {
        let Instance { server, replica } = self.admit_instance(&identity.instance());
        let (model, version) = self.admit_model(&identity.model, &identity.version, proven);
        let admitted = Identity {
            model,
            version,
            server,
            replica,
        };
        if self.identities.contains(&admitted) {
            return admitted;
        }
        if self.identities.len() < MAX_IDENTITIES {
            self.identities.insert(admitted.clone());
            return admitted;
        }
        self.overflow("identity");
        Identity {
            model: self.other.clone(),
            version: self.other.clone(),
            server: self.other.clone(),
            replica: identity.replica.all_as(OTHER),
        }
    }

    /// Returns the server to count under.
    pub(crate) fn admit_instance(&mut self, instance: &Instance) -> Instance {
        Instance {
            server: self.admit_server(&instance.server),
            replica: self.admit_replica(&instance.replica),
        }
    }

    fn admit_replica(&mut self, replica: &Replica) -> Replica {
        if self.replicas.contains_key(replica) {
            return replica.clone();
        }
        if self.replicas.len() < MAX_REPLICAS {
            self.replicas.insert(replica.clone(), None);
            return replica.clone();
        }
        self.overflow("replica");
        replica.all_as(OTHER)
    }

    /// Returns the replicas to forget at `now`, if only those in `running` run: containers that ended a while ago, and, if
    /// there are many, all that have ended, longest ago first.
    pub(crate) fn forget_replicas(
        &mut self,
        running: &HashSet<Replica>,
        now: Instant,
    ) -> HashSet<Replica> {
        let mut ended = Vec::new();
        for (replica, since) in &mut self.replicas {
            *since = match running.contains(replica) || *replica == Replica::default() {
                true => None,
                false => Some(since.unwrap_or(now)),
            };
            ended.extend(since.map(|since| (since, replica.clone())));
        }
        ended.sort();
        let mut excess = self.replicas.len().saturating_sub(MANY_REPLICAS);
        let mut forgotten = HashSet::new();
        for (since, replica) in ended {
            let is_old = now.saturating_duration_since(since) >= KEPT_AFTER_END;
            if replica.is_contained() && is_old || excess > 0 {
                excess = excess.saturating_sub(1);
                self.replicas.remove(&replica);
                forgotten.insert(replica);
            }
        }
        let identities = &mut self.identities;
        identities.retain(|identity| !forgotten.contains(&identity.replica));
        forgotten
    }

    /// Returns the label `server` to count under.
    pub(crate) fn admit_server(&mut self, server: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.servers.get(server) {
            return known.clone();
        }
        if self.servers.len() < MAX_SERVERS && fits(server) {
            self.servers.insert(server.clone());
            return server.clone();
        }
        self.overflow("server");
        self.other.clone()
    }

    fn admit_model(
        &mut self,
        name: &Arc<str>,
        version: &Arc<str>,
        proven: bool,
    ) -> (Arc<str>, Arc<str>) {
        if !self.models.contains_key(name) {
            let has_room = self.models.len() < MAX_MODELS
                && (proven || self.unproven_models < MAX_UNPROVEN_MODELS);
            if !has_room || !fits(name) {
                self.overflow("model");
                return (self.other.clone(), self.other.clone());
            }
            self.unproven_models += usize::from(!proven);
            let versions = BTreeSet::new();
            self.models.insert(name.clone(), Model { versions, proven });
        }
        let model = self
            .models
            .get_mut(name)
            .expect("present or inserted above");
        if proven && !model.proven {
            model.proven = true;
            self.unproven_models -= 1;
        }
        if model.versions.contains(version) {
            return (name.clone(), version.clone());
        }
        if model.versions.len() < MAX_VERSIONS && fits(version) {
            model.versions.insert(version.clone());
            return (name.clone(), version.clone());
        }
        self.overflow("version");
        (name.clone(), self.other.clone())
    }

    /// Counts a request whose value of `label` is beyond a limit.
    pub(crate) fn overflow(&mut self, label: &'static str) {
        *self.overflows.entry(label).or_default() += 1;
    }

    /// Returns the number of requests with a value beyond a limit, by label.
    pub(crate) fn overflows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.overflows.iter().map(|(label, count)| (*label, *count))
    }
}

fn fits(value: &str) -> bool {
    value.len() <= MAX_VALUE_BYTES
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::fixtures::pod;

    fn identity(model: &str, version: &str, server: &str) -> Identity {
        Identity {
            model: model.into(),
            version: version.into(),
            server: server.into(),
            replica: Replica::default(),
        }
    }

    fn in_pod(number: usize) -> Identity {
        Identity {
            replica: pod(number),
            ..identity("m", "1", "s")
        }
    }

    fn overflow_of(cardinality: &Cardinality, label: &str) -> u64 {
        let found = cardinality.overflows().find(|(name, _)| *name == label);
        found.unwrap().1
    }

    #[test]
    fn models_past_the_limit_are_other() {
        let mut cardinality = Cardinality::new();
        for index in 0..10_000 {
            let given = identity(&format!("m{index}"), "1", "s");
            let expected = if index < MAX_MODELS {
                given.clone()
            } else {
                identity(OTHER, OTHER, "s")
            };
            assert_eq!(cardinality.admit(&given, true), expected);
        }
        let known = identity("m7", "1", "s");
        assert_eq!(cardinality.admit(&known, true), known);
        assert_eq!(
            overflow_of(&cardinality, "model"),
            10_000 - MAX_MODELS as u64
        );
        assert_eq!(cardinality.models.len(), MAX_MODELS);
        assert_eq!(cardinality.identities.len(), MAX_MODELS + 1);
    }

    #[test]
    fn invented_names_leave_room_for_real_models() {
        let mut cardinality = Cardinality::new();
        for index in 0..10_000 {
            cardinality.admit(&identity(&format!("invented{index}"), "1", "s"), false);
        }
        assert_eq!(cardinality.models.len(), MAX_UNPROVEN_MODELS);
        let real = identity("real", "1", "s");
        assert_eq!(cardinality.admit(&real, true), real);
    }

    #[test]
    fn a_proven_model_frees_its_unproven_place() {
        let mut cardinality = Cardinality::new();
        for index in 0..MAX_UNPROVEN_MODELS {
            cardinality.admit(&identity(&format!("m{index}"), "1", "s"), false);
        }
        cardinality.admit(&identity("m0", "1", "s"), true);
        let next = identity("next", "1", "s");
        assert_eq!(cardinality.admit(&next, false), next);
    }

    #[test]
    fn versions_past_the_limit_are_other_only_for_that_model() {
        let mut cardinality = Cardinality::new();
        for index in 0..MAX_VERSIONS {
            cardinality.admit(&identity("a", &index.to_string(), "s"), true);
        }
        let past = cardinality.admit(&identity("a", "x", "s"), true);
        assert_eq!(past, identity("a", OTHER, "s"));
        let elsewhere = identity("b", "x", "s");
        assert_eq!(cardinality.admit(&elsewhere, true), elsewhere);
        assert_eq!(overflow_of(&cardinality, "version"), 1);
    }

    #[test]
    fn servers_past_the_limit_are_other() {
        let mut cardinality = Cardinality::new();
        for index in 0..MAX_SERVERS {
            cardinality.admit_server(&index.to_string().into());
        }
        assert_eq!(&*cardinality.admit_server(&"x".into()), OTHER);
        assert_eq!(&*cardinality.admit_server(&"0".into()), "0");
    }

    #[test]
    fn combinations_past_the_limit_are_other_altogether() {
        let mut cardinality = Cardinality::new();
        for model in 0..MAX_MODELS {
            for server in 0..8 {
                let given = identity(&model.to_string(), "1", &server.to_string());
                cardinality.admit(&given, true);
            }
        }
        assert_eq!(cardinality.identities.len(), MAX_IDENTITIES);
        let past = cardinality.admit(&identity("199", "1", "7"), true);
        assert_eq!(past, identity(OTHER, OTHER, OTHER));
    }

    #[test]
    fn replicas_past_the_limit_are_other_in_the_labels_that_they_have() {
        let mut cardinality = Cardinality::new();
        for number in 0..300 {
            let admitted = cardinality.admit(&in_pod(number), true);
            let expected = match number < MAX_REPLICAS {
                true => pod(number),
                false => pod(number).all_as(OTHER),
            };
            assert_eq!(admitted.replica, expected);
        }
        assert_eq!(
            overflow_of(&cardinality, "replica"),
            300 - MAX_REPLICAS as u64
        );
        assert_eq!(cardinality.identities.len(), MAX_REPLICAS + 1);
    }

    #[test]
    fn a_container_that_ended_is_forgotten_a_while_later() {
        let mut cardinality = Cardinality::new();
        cardinality.admit(&in_pod(0), true);
        cardinality.admit(&in_pod(1), true);
        cardinality.admit(&identity("m", "1", "s"), true);
        let start = Instant::now();
        let running = HashSet::from([pod(1)]);
        let late = start + KEPT_AFTER_END;
        let none = HashSet::new();
        assert_eq!(cardinality.forget_replicas(&running, start), none);
        let early = late - Duration::from_nanos(1);
        assert_eq!(cardinality.forget_replicas(&running, early), none);
        let first = HashSet::from([pod(0)]);
        assert_eq!(cardinality.forget_replicas(&running, late), first);
        assert_eq!(cardinality.identities.len(), 2);
        // One that was seen again counts from then on.
        assert_eq!(cardinality.forget_replicas(&none, late), none);
        assert_eq!(cardinality.forget_replicas(&running, late), none);
        let later = late + KEPT_AFTER_END;
        assert_eq!(cardinality.forget_replicas(&none, later), none);
    }

    #[test]
    fn if_there_are_many_replicas_those_that_ended_make_room() {
        let mut cardinality = Cardinality::new();
        let now = Instant::now();
        for number in 0..MAX_REPLICAS {
            cardinality.admit(&in_pod(number), true);
        }
        let running: HashSet<Replica> = (MAX_REPLICAS - 50..MAX_REPLICAS).map(pod).collect();
        let forgotten = cardinality.forget_replicas(&running, now);
        assert_eq!(forgotten.len(), MAX_REPLICAS - MANY_REPLICAS);
        assert!(forgotten.is_disjoint(&running));
        let next = in_pod(MAX_REPLICAS);
        assert_eq!(cardinality.admit(&next, true), next);
    }

    #[test]
    fn an_oversize_name_is_other() {
        let mut cardinality = Cardinality::new();
        let name = "x".repeat(MAX_VALUE_BYTES + 1);
        let past = cardinality.admit(&identity(&name, "1", "s"), true);
        assert_eq!(past, identity(OTHER, OTHER, "s"));
    }
}
