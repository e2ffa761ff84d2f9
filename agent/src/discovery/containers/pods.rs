//! Finds the names of pods and their containers in the names of kubelet's log folders.
//!
//! `/var/log/pods/NAMESPACE_POD_UID/CONTAINER` has all but the container's id, which is in
//! `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`. No log is opened.
//! Does not depend on: cgroups.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::identity::Container;

/// Shortest time between two looks at the folders.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Most names to keep of each folder.
const NAME_CAP: usize = 16_384;

/// The names that the folders had when they were looked at.
#[derive(Debug)]
pub struct PodLogs {
    pods: PathBuf,
    containers: PathBuf,
    by_uid: HashMap<String, Pod>,
    by_id: HashMap<String, Container>,
    looked_at: Option<Instant>,
    /// Why the folder of pods was not read, if so.
    pub(crate) refused: Option<io::Error>,
}

#[derive(Debug)]
struct Pod {
    namespace: String,
    name: String,
    folder: PathBuf,
}

impl PodLogs {
    /// Looks below `root`, where the root of the host is.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            pods: root.join("var/log/pods"),
            containers: root.join("var/log/containers"),
            by_uid: HashMap::new(),
            by_id: HashMap::new(),
            looked_at: None,
            refused: None,
        }
    }

    /// Folders of the logs of pods, and of containers.
    pub(crate) fn folders(&self) -> [&Path; 2] {
        [&self.pods, &self.containers]
    }

    /// Returns the names of a container and its pod; looks at the folders again if they were unknown. `None` if they still
    /// are; the container's own name is empty if only that is unknown.
    pub(crate) fn find(&mut self, uid: &str, id: Option<&str>, now: Instant) -> Option<Container> {
        let is_known = |container: &Container| !container.name.is_empty();
        let found = self.known(uid, id);
        if found.as_ref().is_some_and(is_known) || !self.look(now) {
            return found;
        }
        self.known(uid, id)
    }

    fn known(&self, uid: &str, id: Option<&str>) -> Option<Container> {
        if let Some(container) = id.and_then(|id| self.by_id.get(id)) {
            return Some(container.clone());
        }
        let pod = self.by_uid.get(uid)?;
        Some(Container {
            namespace: pod.namespace.as_str().into(),
            pod: pod.name.as_str().into(),
            name: id
                .and_then(|_| only_folder(&pod.folder))
                .unwrap_or_default()
                .into(),
        })
    }

    /// Looks at the folders, unless that was just done; returns whether it did.
    fn look(&mut self, now: Instant) -> bool {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= LOOK_INTERVAL;
        if !self.looked_at.is_none_or(is_due) {
            return false;
        }
        self.looked_at = Some(now);
        self.by_uid.clear();
        self.by_id.clear();
        match names(&self.pods) {
            Ok(names) => {
                self.refused = None;
                for name in names {
                    self.by_uid.extend(pod_of(&self.pods, &name));
                }
            }
            Err(err) => self.refused = Some(err),
        }
        for name in names(&self.containers).unwrap_or_default() {
            self.by_id.extend(container_of(&name));
        }
        true
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.take(NAME_CAP);
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

/// `NAMESPACE_POD_UID`: none of the three has an underscore.
fn pod_of(folder: &Path, name: &str) -> Option<(String, Pod)> {
    let [namespace, pod, uid] = three_parts(name)?;
    let pod = Pod {
        namespace: namespace.to_owned(),
        name: pod.to_owned(),
        folder: folder.join(name),
    };
    Some((uid.to_owned(), pod))
}

/// `POD_NAMESPACE_CONTAINER-ID.log`.
fn container_of(name: &str) -> Option<(String, Container)> {
    let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let [pod, namespace, container] = three_parts(names)?;
    let container = Container {
        namespace: namespace.into(),
        pod: pod.into(),
        name: container.into(),
    };
    Some((id.to_owned(), container))
}

fn three_parts(name: &str) -> Option<[&str; 3]> {
    let mut parts = name.split('_');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    let is_whole = parts.next().is_none() && three.iter().all(|part| !part.is_empty());
    is_whole.then_some(three)
}

/// The only folder in `folder`, which is the container that a pod of one container has.
fn only_folder(folder: &Path) -> Option<String> {
    let mut found = names(folder).ok()?;
    found.retain(|name| folder.join(name).is_dir());
    match found.len() {
        1 => found.pop(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6d3c1f2a-0b7e-4c55-9a61-2f0d8e7b4c19";

    fn container(namespace: &str, pod: &str, name: &str) -> Container {
        Container {
            namespace: namespace.into(),
            pod: pod.into(),
            name: name.into(),
        }
    }

    /// A host with these folders and files.
    fn host(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let path = root.path().join("var/log").join(path);
            match path.extension() {
                None => fs::create_dir_all(path).unwrap(),
                Some(_) => {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, "").unwrap();
                }
            }
        }
        root
    }

    #[test]
    fn all_names_come_from_the_containers_own_log() {
        let root = host(&[
            &format!("pods/llm_vllm-0_{UID}/server"),
            &format!("pods/llm_vllm-0_{UID}/proxy"),
            "containers/vllm-0_llm_server-0a1b.log",
            "containers/vllm-0_llm_proxy-2c3d.log",
        ]);
        let mut logs = PodLogs::new(root.path());
        let now = Instant::now();
        for (id, name) in [("0a1b", "server"), ("2c3d", "proxy"), ("4e5f", "")] {
            let found = logs.find(UID, Some(id), now);
            assert_eq!(found, Some(container("llm", "vllm-0", name)), "{id}");
        }
        assert_eq!(
            logs.find(UID, None, now),
            Some(container("llm", "vllm-0", ""))
        );
        assert_eq!(logs.find("other", Some("4e5f"), now), None);
    }

    #[test]
    fn the_only_container_of_a_pod_needs_no_log_of_its_own() {
        let root = host(&[
            &format!("pods/a_b_{UID}/c"),
            &format!("pods/a_b_{UID}/x.log"),
        ]);
        let found = PodLogs::new(root.path()).find(UID, Some("0a1b"), Instant::now());
        assert_eq!(found, Some(container("a", "b", "c")));
    }

    #[test]
    fn a_pod_that_is_new_is_found_a_second_later() {
        let root = host(&["pods", "containers"]);
        let mut logs = PodLogs::new(root.path());
        let now = Instant::now();
        assert_eq!(logs.find(UID, Some("0a1b"), now), None);
        let folder = root.path().join(format!("var/log/pods/a_b_{UID}/c"));
        fs::create_dir_all(folder).unwrap();
        assert_eq!(
            logs.find(UID, Some("0a1b"), now),
            None,
            "looked at once a second"
        );
        let found = logs.find(UID, Some("0a1b"), now + LOOK_INTERVAL);
        assert_eq!(found, Some(container("a", "b", "c")));
        assert!(logs.refused.is_none());
    }

    #[test]
    fn folders_of_others_are_no_pods() {
        for name in ["", "a", "a_b", "a_b_c_d", "__", "a__c"] {
            assert!(pod_of(Path::new("/"), name).is_none(), "{name}");
        }
        for name in [
            "a_b_c-1",
            "a_b-1.log",
            "a_b_c.log",
            "a_b_c_d-1.log",
            "-.log",
        ] {
            assert!(container_of(name).is_none(), "{name}");
        }
        let dashes = container_of("web-0_team-a_side-car-0a1b.log").unwrap();
        let expected = container("team-a", "web-0", "side-car");
        assert_eq!(dashes, ("0a1b".to_owned(), expected));
    }

    #[test]
    fn without_the_folder_the_reason_is_known() {
        let root = host(&[]);
        let mut logs = PodLogs::new(root.path());
        assert_eq!(logs.find(UID, Some("0a1b"), Instant::now()), None);
        assert_eq!(logs.refused.unwrap().kind(), io::ErrorKind::NotFound);
    }
}
