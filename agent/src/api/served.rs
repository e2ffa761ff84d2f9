//! Spells who served requests, and where that runs.
//!
//! Does not depend on: what is told of the requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap as _};

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

/// Where a server runs: values of the labels that tell replicas apart. Spelled as an object of those that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Replica);

impl Labels {
    /// Returns where a replica runs.
    pub fn of(replica: &Replica) -> Self {
        Self(replica.clone())
    }

    /// Describes it by the values of [`REPLICA_LABELS`], in their order; an empty one is not known.
    pub fn new(values: [&str; REPLICA_LABELS.len()]) -> Self {
        Self(Replica::of_labels(values))
    }

    /// Returns the value of a label; empty if it is not known.
    pub fn get(&self, name: &str) -> &str {
        let known = self.iter().find(|(known, _)| *known == name);
        known.map_or("", |(_, value)| value)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Returns those that are known: their names, and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = REPLICA_LABELS.into_iter().zip(self.0.labels());
        labels.filter(|(_, value)| !value.is_empty())
    }

    /// Returns the values of those that are known.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(_, value)| value)
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.iter().count()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let known: BTreeMap<String, String> = BTreeMap::deserialize(deserializer)?;
        let value = |name| known.get(name).map_or("", String::as_str);
        Ok(Self::new(REPLICA_LABELS.map(value)))
    }
}
