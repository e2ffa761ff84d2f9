//! Tells apart servers of one name on one host: by the port of their listener, and by their container.
//!
//! Each of the four labels may be switched off; its value is then empty.
//! Does not depend on: how a container is found.

use std::{cmp::Ordering, sync::Arc, time::Duration};

/// How long what is known of a container is kept after it ended.
pub const KEPT_AFTER_END: Duration = Duration::from_secs(600);

/// Names of the labels, in the order of [`Replica::labels`].
pub const REPLICA_LABELS: [&str; 4] = ["port", "namespace", "pod", "container"];

/// Which of [`REPLICA_LABELS`] are used, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownLabels([bool; REPLICA_LABELS.len()]);

impl ShownLabels {
    /// All of them.
    pub const ALL: Self = Self([true; REPLICA_LABELS.len()]);

    /// Switches a label off; returns whether there is a label of this name.
    pub fn hide(&mut self, label: &str) -> bool {
        let index = REPLICA_LABELS.iter().position(|name| *name == label);
        index.is_some_and(|index| {
            self.0[index] = false;
            true
        })
    }

    /// Those that are used here or in `other`.
    pub fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] || other.0[index]))
    }

    /// Whether a label is used; those of other names always are.
    pub fn shows(self, label: &str) -> bool {
        let index = REPLICA_LABELS.iter().position(|name| *name == label);
        index.is_none_or(|index| self.0[index])
    }

    /// Whether a label that depends on the container is used.
    pub fn shows_container(self) -> bool {
        self.0[1..].iter().any(|shown| *shown)
    }
}

/// The container that a process runs in. All is empty if it runs in none, or in one that is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Namespace of its pod; empty if it belongs to none.
    pub namespace: Arc<str>,
    /// Its pod.
    pub pod: Arc<str>,
    /// Its own name, else its id.
    pub name: Arc<str>,
}

/// Where a server runs: values of [`REPLICA_LABELS`]. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Replica(Arc<[Box<str>; REPLICA_LABELS.len()]>);

impl Replica {
    /// A server that listens on `port` (`None`: a unix socket), as far as its labels are used.
    pub fn new(port: Option<u16>, container: &Container, shown: ShownLabels) -> Self {
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        let values: [&str; REPLICA_LABELS.len()] =
            [&port, &container.namespace, &container.pod, &container.name];
        let shown = |index: usize| if shown.0[index] { values[index] } else { "" };
        Self::of_labels(std::array::from_fn(shown))
    }

    /// One with these values of the labels, in the order of [`REPLICA_LABELS`].
    pub fn of_labels(values: [&str; REPLICA_LABELS.len()]) -> Self {
        Self(Arc::new(values.map(Into::into)))
    }

    /// One that stands for all beyond a limit: each label that is not empty is `value`.
    #[must_use]
    pub fn all_as(&self, value: &str) -> Self {
        let named = |label: &str| if label.is_empty() { "" } else { value };
        Self(Arc::new(std::array::from_fn(|index| {
            named(&self.0[index]).into()
        })))
    }

    /// Values of the labels, in the order of [`REPLICA_LABELS`].
    pub fn labels(&self) -> [&str; REPLICA_LABELS.len()] {
        self.0.each_ref().map(|value| &**value)
    }

    /// Its container alone: what several listeners of a process share.
    #[must_use]
    pub fn without_port(&self) -> Self {
        let mut values = (*self.0).clone();
        values[0] = "".into();
        Self(Arc::new(values))
    }

    /// Values of the labels of its container.
    pub fn container_labels(&self) -> [&str; REPLICA_LABELS.len() - 1] {
        let [_, namespace, pod, container] = self.labels();
        [namespace, pod, container]
    }

    /// Whether it runs in a container: one that has ended does not come back under the same name.
    pub fn is_contained(&self) -> bool {
        self.0[1..].iter().any(|value| !value.is_empty())
    }
}

impl Ord for Replica {
    fn cmp(&self, other: &Self) -> Ordering {
        // Most requests compare a replica with itself.
        match Arc::ptr_eq(&self.0, &other.0) {
            true => Ordering::Equal,
            false => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for Replica {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_is_switched_off_is_empty() {
        let container = Container {
            namespace: "llm".into(),
            pod: "vllm-0".into(),
            name: "server".into(),
        };
        let replica = Replica::new(Some(8000), &container, ShownLabels::ALL);
        assert_eq!(replica.labels(), ["8000", "llm", "vllm-0", "server"]);
        assert!(replica.is_contained());
        for (index, label) in REPLICA_LABELS.into_iter().enumerate() {
            let mut shown = ShownLabels::ALL;
            assert!(shown.hide(label) && !shown.shows(label));
            let mut expected = replica.labels();
            expected[index] = "";
            let hidden = Replica::new(Some(8000), &container, shown);
            assert_eq!(hidden.labels(), expected);
            assert_ne!(hidden, replica);
        }
        let mut shown = ShownLabels::ALL;
        assert!(!shown.hide("server") && shown.shows("server"));
        assert_eq!(shown, ShownLabels::ALL);
    }

    #[test]
    fn a_unix_socket_has_no_port() {
        let replica = Replica::new(None, &Container::default(), ShownLabels::ALL);
        assert_eq!(replica, Replica::default());
        assert!(!replica.is_contained());
    }

    #[test]
    fn beyond_the_limit_only_known_labels_have_the_value() {
        let replica = Replica::new(Some(1), &Container::default(), ShownLabels::ALL);
        assert_eq!(replica.all_as("other").labels(), ["other", "", "", ""]);
    }
}
