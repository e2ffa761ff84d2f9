//! Reads which container a process runs in from `/proc/PID/cgroup`: both versions of cgroups, and both drivers of the
//! engines.
//!
//! Engines name the cgroup of a container after its id, and kubelet that of a pod after the pod's uid.
//! Does not depend on: names of containers.

/// What engines write before an id, as in `cri-containerd-ID.scope`.
const PREFIXES: [&str; 7] = [
    "cri-containerd",
    "crio",
    "docker",
    "libpod",
    "libpod-payload",
    "nerdctl",
    "containerd",
];
/// Length of an id, characters.
const ID_CHARS: usize = 64;
/// Shortest id behind a prefix that is known.
const SHORT_ID_CHARS: usize = 12;

/// A container, as the cgroups of its processes name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerRef {
    /// Uid of its pod; `None` if it belongs to none.
    pub pod_uid: Option<String>,
    /// Its id; `None` if only the pod is known.
    pub id: Option<String>,
}

/// Returns the container of a process with these cgroups; `None` if they name none.
///
/// In a hybrid layout the engine may use any of the hierarchies: the one that tells most counts.
pub fn parse(cgroups: &str) -> Option<ContainerRef> {
    let paths = cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2));
    let found = paths.filter_map(in_path);
    found.max_by_key(|found| (found.pod_uid.is_some(), found.id.is_some()))
}

fn in_path(path: &str) -> Option<ContainerRef> {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    // `…slice:cri-containerd:ID` is what runc makes of a path for systemd without systemd.
    let parts: Vec<&str> = path.split(['/', ':']).collect();
    let is_kubelets = path.contains("kubepods");
    let uids = parts.iter().map(|part| pod_uid(part, is_kubelets));
    let pod = uids
        .enumerate()
        .filter_map(|(index, uid)| Some((index, uid?)))
        .next_back();
    let found = match pod {
        // A pod's container may itself be an engine's host: the pod's own is the outermost.
        Some((index, uid)) => ContainerRef {
            pod_uid: Some(uid),
            id: parts[index + 1..]
                .iter()
                .find_map(|part| container_id(part)),
        },
        None => ContainerRef {
            pod_uid: None,
            id: parts.iter().rev().find_map(|part| container_id(part)),
        },
    };
    (found != ContainerRef::default()).then_some(found)
}

/// The uid in `podUID`, `…-podUID.slice`: the driver for systemd writes `_` for `-`.
fn pod_uid(part: &str, is_kubelets: bool) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let whole = part.strip_prefix("pod");
    let last = || Some(part.rsplit_once("-pod")?.1);
    let uid = whole.or_else(last)?.replace('_', "-");
    let is_uid = uid.len() >= 32
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (is_uid || is_kubelets && !uid.is_empty()).then_some(uid)
}

fn container_id(part: &str) -> Option<String> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let (prefix, id) = part.rsplit_once('-').unwrap_or(("", part));
    let is_hex = id
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let shortest = match PREFIXES.contains(&prefix) {
        true => SHORT_ID_CHARS,
        false => ID_CHARS,
    };
    // conmon looks after a container, and is not in it.
    let is_id = is_hex && (shortest..=ID_CHARS).contains(&id.len()) && !prefix.ends_with("conmon");
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4b1ce7a0f6d2b95c8e71204ad6fb3c9e58d17a64b20c3fe91d85a7b6c40e12";
    const OUTER: &str = "90c1e55d7f3a42be8d6170fa2b9ce4835d06f7b1a2c3e4958677d8a9b0c1d2e3";
    const UID: &str = "6d3c1f2a-0b7e-4c55-9a61-2f0d8e7b4c19";
    /// Of a static pod: kubelet hashes its manifest.
    const STATIC_UID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

    fn found(pod_uid: Option<&str>, id: Option<&str>) -> Option<ContainerRef> {
        Some(ContainerRef {
            pod_uid: pod_uid.map(str::to_owned),
            id: id.map(str::to_owned),
        })
    }

    #[test]
    fn every_layout_of_a_pod_is_read() {
        let systemd_uid = UID.replace('-', "_");
        for path in [
            // Driver for systemd.
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd_uid}.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{systemd_uid}.slice/crio-{ID}.scope"),
            format!("/kubepods.slice/kubepods-pod{systemd_uid}.slice/crio-{ID}.scope/container"),
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{systemd_uid}.slice/docker-{ID}.scope"
            ),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{systemd_uid}.slice/cri-containerd-{ID}.scope/system.slice/a.service"
            ),
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod{systemd_uid}.slice:cri-containerd:{ID}"
            ),
            format!("/kubepods.slice/kubepods-pod{UID}.slice/cri-containerd-{ID}.scope"),
            format!(
                "/mine.slice/mine-kubepods.slice/mine-kubepods-pod{systemd_uid}.slice/cri-containerd-{ID}.scope"
            ),
            // Driver for cgroupfs.
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}/{ID}"),
            format!("/kubepods/besteffort/pod{UID}/crio-{ID}"),
            // An engine in the pod's container, and a node that is itself a container.
            format!("/kubepods/burstable/pod{UID}/{ID}/docker/{OUTER}"),
            format!("/docker/{OUTER}/kubelet/kubepods/pod{UID}/{ID}"),
            format!(
                "/system.slice/docker-{OUTER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{systemd_uid}.slice/cri-containerd-{ID}.scope"
            ),
            // Seen from another container of the node, with a cgroup namespace of its own.
            format!("/../../kubepods-burstable-pod{systemd_uid}.slice/cri-containerd-{ID}.scope"),
            format!("/../../pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}/{ID} (deleted)"),
        ] {
            let expected = found(Some(UID), Some(ID));
            for text in [
                format!("0::{path}\n"),
                format!("12:cpu,cpuacct:{path}\n1:name=systemd:/init.scope\n"),
                format!("4:cpuset:/\n3:memory:{path}\n0::/system.slice/containerd.service\n"),
                format!("1:name=systemd:{path}"),
            ] {
                assert_eq!(parse(&text), expected, "{text}");
            }
        }
    }

    #[test]
    fn a_static_pod_has_a_hash_for_a_uid() {
        for path in [
            format!("/kubepods/burstable/pod{STATIC_UID}/{ID}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC_UID}.slice/crio-{ID}.scope"
            ),
        ] {
            let text = format!("0::{path}\n");
            assert_eq!(parse(&text), found(Some(STATIC_UID), Some(ID)), "{text}");
        }
    }

    #[test]
    fn containers_without_a_pod_are_read() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/system.slice/docker-{ID}.scope/init.scope"),
            format!("/machine.slice/libpod-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/machine.slice/machine-libpod_pod_{OUTER}.slice/libpod-{ID}.scope/container"),
            format!("/libpod_parent/{OUTER}/libpod-{ID}"),
            format!("/libpod_parent/libpod-{ID}"),
            format!(
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
            ),
            format!("/system.slice/web.service/libpod-payload-{ID}"),
            format!("/system.slice/nerdctl-{ID}.scope"),
            format!("/default/{ID}"),
            format!("/ecs/b1c2/{ID}"),
            format!("/docker/{OUTER}/docker/{ID}"),
        ] {
            let text = format!("0::{path}\n");
            assert_eq!(parse(&text), found(None, Some(ID)), "{text}");
        }
    }

    #[test]
    fn what_belongs_to_no_container_is_none() {
        for path in [
            "/".to_owned(),
            "/user.slice/user-0.slice/session-3.scope".into(),
            "/system.slice/inferprobe.service".into(),
            "/system.slice/podman.service".into(),
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope".into(),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/system.slice/crio-conmon-{ID}.scope"),
            format!("/docker/{}", &ID[1..]),
            format!("/a/{}", ID.to_uppercase()),
            "/kubepods/burstable".into(),
            "/kubepods.slice/kubepods-besteffort.slice".into(),
        ] {
            assert_eq!(parse(&format!("0::{path}\n")), None, "{path}");
        }
        for text in ["", "\n", "0::", "0", "0:a", ":::"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_process_in_a_pod_and_in_none_of_its_containers_has_the_pod() {
        let text = format!("0::/kubepods/pod{UID}/crio-conmon-{ID}\n");
        assert_eq!(parse(&text), found(Some(UID), None));
    }

    #[test]
    fn the_hierarchy_that_tells_most_counts() {
        let text = format!(
            "5:memory:/docker/{OUTER}\n4:cpu:/kubepods/pod{UID}\n3:pids:/kubepods/pod{UID}/{ID}\n0::/\n"
        );
        assert_eq!(parse(&text), found(Some(UID), Some(ID)));
    }

    #[test]
    fn any_prefix_of_a_text_is_read_without_a_panic() {
        let text = format!("3:cpu:/kubepods/pod{UID}/{ID}\n0::/a:b/…-pod_.slice/c.scope");
        for (at, _) in text.char_indices() {
            parse(&text[..at]);
        }
    }
}
