//! Finds the name of a container that belongs to no pod, where its engine shows it.
//!
//! Docker has a file for each container, which root alone may read; Podman names it on the command line of `conmon`.
//! Does not depend on: cgroups.

use std::{fs::File, io::Read as _, path::Path};

use serde::Deserialize;

use crate::discovery::procfs;

/// Where Docker keeps its containers, below the root of the host.
const DOCKER: [&str; 2] = [
    "var/lib/docker/containers",
    "var/snap/docker/common/var-lib-docker/containers",
];
/// Most bytes to read of a container's file.
const FILE_CAP: u64 = 1 << 20;
/// Most processes between a container's first process and one that is looked up.
const MAX_PARENTS: usize = 16;

#[derive(Debug, Deserialize)]
struct DockerContainer {
    #[serde(rename = "Name")]
    name: String,
}

/// Returns the name of the container `id`, which `pid` runs in; `None` if its engine does not show it.
pub(super) fn name(root: &Path, id: &str, pid: u32) -> Option<String> {
    let docker = DOCKER.iter().find_map(|folder| {
        let file = root.join(folder).join(id).join("config.v2.json");
        docker_name(File::open(file).ok()?)
    });
    docker.or_else(|| podman_name(id, pid))
}

fn docker_name(file: File) -> Option<String> {
    let mut text = Vec::new();
    file.take(FILE_CAP).read_to_end(&mut text).ok()?;
    let container: DockerContainer = serde_json::from_slice(&text).ok()?;
    let name = container.name.trim_start_matches('/');
    (!name.is_empty()).then(|| name.to_owned())
}

/// The container's first process is a child of `conmon -c ID … -n NAME`.
fn podman_name(id: &str, pid: u32) -> Option<String> {
    let parents = std::iter::successors(Some(pid), |&pid| procfs::parent_of(pid));
    let parents = parents.take(MAX_PARENTS).take_while(|&pid| pid > 1);
    let mut lines = parents.filter_map(procfs::arguments);
    lines.find_map(|arguments| conmon_name(id, &arguments))
}

fn conmon_name(id: &str, arguments: &[String]) -> Option<String> {
    let program = arguments.first()?;
    if Path::new(program).file_name()? != "conmon" {
        return None;
    }
    let value = |option: &str| {
        let mut pairs = arguments.windows(2);
        pairs.find_map(|pair| (pair[0] == option).then_some(&pair[1]))
    };
    let is_its = value("-c").or(value("--cid")).is_some_and(|cid| cid == id);
    let name = value("-n").or(value("--name"));
    name.filter(|_| is_its).cloned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "3f4b1ce7a0f6d2b95c8e71204ad6fb3c9e58d17a64b20c3fe91d85a7b6c40e12";

    #[test]
    fn docker_names_a_container_in_its_file() {
        let root = tempfile::tempdir().unwrap();
        let own_pid = std::process::id();
        assert_eq!(name(root.path(), ID, own_pid), None);
        for folder in DOCKER {
            let folder = root.path().join(folder).join(ID);
            fs::create_dir_all(&folder).unwrap();
            for (text, expected) in [
                (r#"{"ID":"x","Name":"/web-1","State":{}}"#, Some("web-1")),
                (r#"{"Name":"/"}"#, None),
                (r#"{"Name":"#, None),
                ("", None),
            ] {
                fs::write(folder.join("config.v2.json"), text).unwrap();
                let found = name(root.path(), ID, own_pid);
                assert_eq!(found.as_deref(), expected, "{text}");
            }
            fs::remove_dir_all(&folder).unwrap();
        }
    }

    #[test]
    fn podman_names_a_container_on_the_command_line_of_its_monitor() {
        let line = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let given = format!(
            "/usr/bin/conmon --api-version 1 -c {ID} -u {ID} -r /usr/bin/crun -n web --exit-dir /run"
        );
        assert_eq!(conmon_name(ID, &line(&given)).as_deref(), Some("web"));
        assert_eq!(conmon_name("other", &line(&given)), None);
        for text in [
            format!("conmon -c {ID}"),
            format!("conmon -c {ID} -n"),
            format!("/usr/bin/python3 -c {ID} -n web"),
            String::new(),
        ] {
            assert_eq!(conmon_name(ID, &line(&text)), None, "{text}");
        }
    }
}
