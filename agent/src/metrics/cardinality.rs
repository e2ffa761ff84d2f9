//! Limits the label values that a client can choose, so that memory and exposition stay small.
//!
//! The first values are kept; beyond a limit the value is [`OTHER`].
//! Does not depend on: what is counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::identity::Identity;

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
/// Distinct combinations of model, version and server.
const MAX_IDENTITIES: usize = 1000;
/// Length of one value, bytes.
const MAX_VALUE_BYTES: usize = 256;

/// The label values in use, and how often a value was replaced by [`OTHER`].
#[derive(Debug)]
pub(crate) struct Cardinality {
    other: Arc<str>,
    models: BTreeMap<Arc<str>, Model>,
    unproven_models: usize,
    servers: BTreeSet<Arc<str>>,
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
            identities: BTreeSet::new(),
            overflows: ["model", "version", "server", "identity", "code"]
                .map(|label| (label, 0))
                .into(),
        }
    }

    /// Returns the labels to count a request under.
    ///
    /// `proven`: the response shows that the server knows the model.
    pub(crate) fn admit(&mut self, identity: &Identity, proven: bool) -> Identity {
        let server = self.admit_server(&identity.server);
        let (model, version) = self.admit_model(&identity.model, &identity.version, proven);
        let admitted = Identity {
            model,
            version,
            server,
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
        }
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
    use super::*;

    fn identity(model: &str, version: &str, server: &str) -> Identity {
        Identity {
            model: model.into(),
            version: version.into(),
            server: server.into(),
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
    fn an_oversize_name_is_other() {
        let mut cardinality = Cardinality::new();
        let name = "x".repeat(MAX_VALUE_BYTES + 1);
        let past = cardinality.admit(&identity(&name, "1", "s"), true);
        assert_eq!(past, identity(OTHER, OTHER, "s"));
    }
}
