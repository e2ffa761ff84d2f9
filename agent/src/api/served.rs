//! Spells who served requests, and where that runs.
//!
//! Does not depend on: what is told of the requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::{Identity, REPLICA_LABELS, Replica};

/// Which requests figures are about.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Served {
    /// Model.
    pub model: String,
    /// Version of the model.
    pub version: String,
    /// Server.
    pub server: String,
}

impl Served {
    /// Returns whose requests have this identity.
    pub fn of(identity: &Identity) -> Self {
        Self {
            model: identity.model.to_string(),
            version: identity.version.to_string(),
            server: identity.server.to_string(),
        }
    }
}

/// Where a server runs: values of the labels that tell replicas apart, by their names, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Returns where a replica runs.
    pub fn of(replica: &Replica) -> Self {
        Self::new(replica.labels())
    }

    /// Describes it by the values of [`REPLICA_LABELS`], in their order; an empty one is not known.
    pub fn new(values: [&str; REPLICA_LABELS.len()]) -> Self {
        let labels = REPLICA_LABELS.into_iter().zip(values);
        let known = labels.filter(|(_, value)| !value.is_empty());
        Self(
            known
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// Returns the value of a label; empty if it is not known.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns those that are known: their names, and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the values of those that are known.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }
}
