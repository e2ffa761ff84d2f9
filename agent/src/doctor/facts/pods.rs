//! Finds out how many containers of pods run here, and how many of them kubelet's log folders name.
//!
//! Does not depend on: the findings.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::Serialize;

use crate::discovery::{
    containers::{
        cgroup::{self, ContainerRef},
        pods::PodLogs,
    },
    procfs,
};

/// What the labels `namespace`, `pod` and `container` need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pods {
    /// Folders whose names name pods and containers.
    pub folders: Vec<LogFolder>,
    /// Containers of pods in which a process runs.
    pub containers: usize,
    /// Those of them whose names are not all known.
    pub unnamed: usize,
}

/// A folder of kubelet's logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogFolder {
    /// Its path, as this process sees it.
    pub path: PathBuf,
    /// Why its names cannot be read; `None` if they can.
    pub refusal: Option<String>,
}

/// Reads the cgroups of all processes, and the folders below `root`, where the root of the host is.
pub(crate) fn collect(root: &Path) -> Pods {
    let processes = procfs::all().unwrap_or_default();
    let cgroups = processes
        .into_iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
    of_cgroups(cgroups, root)
}

fn of_cgroups(cgroups: impl Iterator<Item = String>, root: &Path) -> Pods {
    let containers: BTreeSet<(String, String)> = cgroups
        .filter_map(|text| match cgroup::parse(&text)? {
            ContainerRef {
                pod_uid: Some(uid),
                id: Some(id),
            } => Some((uid, id)),
            _ => None,
        })
        .collect();
    let mut logs = PodLogs::new(root);
    let now = Instant::now();
    let unnamed = containers.iter().filter(|(uid, id)| {
        let names = logs.find(uid, Some(id), now);
        names.is_none_or(|names| names.name.is_empty())
    });
    Pods {
        unnamed: unnamed.count(),
        containers: containers.len(),
        folders: logs.folders().map(folder).to_vec(),
    }
}

fn folder(path: &Path) -> LogFolder {
    LogFolder {
        path: path.to_owned(),
        refusal: fs::read_dir(path).err().map(|err| err.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6d3c1f2a-0b7e-4c55-9a61-2f0d8e7b4c19";
    const IDS: [&str; 2] = [
        "3f4b1ce7a0f6d2b95c8e71204ad6fb3c9e58d17a64b20c3fe91d85a7b6c40e12",
        "90c1e55d7f3a42be8d6170fa2b9ce4835d06f7b1a2c3e4958677d8a9b0c1d2e3",
    ];

    /// Two containers of a pod with a process each, one of them with two, and a container of no pod.
    fn found(root: &Path) -> Pods {
        let [first, second] = IDS.map(|id| format!("0::/kubepods/pod{UID}/{id}\n"));
        let docker = format!("0::/docker/{}\n", IDS[0]);
        of_cgroups(
            [first.clone(), second, docker, first, String::new()].into_iter(),
            root,
        )
    }

    #[test]
    fn without_the_folders_no_container_is_named() {
        let root = tempfile::tempdir().unwrap();
        let pods = found(root.path());
        assert_eq!((pods.containers, pods.unnamed), (2, 2));
        let paths: Vec<&Path> = pods.folders.iter().map(|folder| &*folder.path).collect();
        let log = root.path().join("var/log");
        assert_eq!(paths, [log.join("pods"), log.join("containers")]);
        assert!(pods.folders.iter().all(|folder| folder.refusal.is_some()));
    }

    #[test]
    fn a_container_of_several_needs_its_own_log() {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("var/log");
        for name in ["server", "proxy"] {
            let folder = log.join(format!("pods/llm_vllm-0_{UID}/{name}"));
            fs::create_dir_all(folder).unwrap();
        }
        assert_eq!(found(root.path()).unnamed, 2);
        fs::create_dir(log.join("containers")).unwrap();
        let file = format!("containers/vllm-0_llm_server-{}.log", IDS[0]);
        fs::write(log.join(file), "").unwrap();
        let pods = found(root.path());
        assert_eq!((pods.containers, pods.unnamed), (2, 1));
        assert!(pods.folders.iter().all(|folder| folder.refusal.is_none()));
    }
}
