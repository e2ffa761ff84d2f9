//! Names the container and the pod of a process: from its cgroups, and from names of files on the host.
//!
//! Asks no API, and needs no token.
//! Does not depend on: servers.

pub mod cgroup;
mod engines;
pub mod pods;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use tracing::warn;

use crate::{
    discovery::containers::{cgroup::ContainerRef, pods::PodLogs},
    identity::Container,
};

/// Containers whose names are remembered; beyond it, all are looked up again.
const KEPT: usize = 4_096;
/// Characters of an id, as engines print it.
const SHORT_ID_CHARS: usize = 12;
/// Longest name to use, bytes.
const MAX_NAME_BYTES: usize = 253;

/// What is known of the containers of this host.
#[derive(Debug)]
pub struct Containers {
    root: PathBuf,
    pods: PodLogs,
    /// Those without a pod, by id.
    engine_names: HashMap<String, Container>,
    /// Whether it was logged that pods have no names.
    is_warned: bool,
}

/// The container of one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Home {
    /// What its cgroups said; `None` if it is in no container.
    found: Option<ContainerRef>,
    /// Its names, as far as they are known.
    pub container: Container,
    /// Whether a later look may find more.
    is_partial: bool,
}

impl Containers {
    /// Looks for names below `root`, where the root of the host is.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            pods: PodLogs::new(root),
            engine_names: HashMap::new(),
            is_warned: false,
        }
    }

    /// Returns the container of a process, which was in `before`; `None` if the process has ended.
    pub fn of(&mut self, pid: u32, before: Option<&Home>, now: Instant) -> Option<Home> {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let found = cgroup::parse(&cgroups);
        if let Some(before) = before.filter(|before| before.found == found && !before.is_partial) {
            return Some(before.clone());
        }
        let was_partial = before.is_some_and(|before| before.is_partial);
        Some(self.name(found, pid, was_partial, now))
    }

    fn name(
        &mut self,
        found: Option<ContainerRef>,
        pid: u32,
        was_partial: bool,
        now: Instant,
    ) -> Home {
        let (container, is_partial) = match &found {
            None => (Container::default(), false),
            Some(ContainerRef {
                pod_uid: Some(uid),
                id,
            }) => {
                let names = self.pods.find(uid, id.as_deref(), now);
                // A pod may be a moment older than the names of its logs.
                if names.is_none() && (was_partial || self.pods.refused.is_some()) {
                    self.warn();
                }
                let lacks_name = |names: &Container| names.name.is_empty() && id.is_some();
                let is_partial = names.as_ref().is_none_or(lacks_name);
                (names.unwrap_or_default(), is_partial)
            }
            Some(ContainerRef { pod_uid: None, id }) => {
                let id = id.as_deref().unwrap_or_default();
                (self.of_engine(id, pid), false)
            }
        };
        Home {
            found,
            container: cut(container),
            is_partial,
        }
    }

    fn of_engine(&mut self, id: &str, pid: u32) -> Container {
        if let Some(known) = self.engine_names.get(id) {
            return known.clone();
        }
        let name = engines::name(&self.root, id, pid);
        let container = Container {
            name: match &name {
                Some(name) => name.as_str().into(),
                None => id.get(..SHORT_ID_CHARS).unwrap_or(id).into(),
            },
            ..Container::default()
        };
        if self.engine_names.len() >= KEPT {
            self.engine_names.clear();
        }
        self.engine_names.insert(id.to_owned(), container.clone());
        container
    }

    /// Logs once that a pod has no name, and why.
    fn warn(&mut self) {
        if std::mem::replace(&mut self.is_warned, true) {
            return;
        }
        let [folder, _] = self.pods.folders();
        let folder = folder.display();
        match &self.pods.refused {
            Some(err) => warn!(
                %err,
                "labels namespace, pod and container stay empty: {folder} is not readable; mount the host's /var/log/pods and \
                 /var/log/containers there, read-only, or give --host-root"
            ),
            None => warn!(
                "labels namespace, pod and container of a pod stay empty: {folder} does not name it"
            ),
        }
    }
}

/// Drops names that are too long for a label.
fn cut(mut container: Container) -> Container {
    for name in [
        &mut container.namespace,
        &mut container.pod,
        &mut container.name,
    ] {
        if name.len() > MAX_NAME_BYTES {
            *name = "".into();
        }
    }
    container
}
