//! Tells apart servers of one model by port and by container: real processes in cgroups as engines make them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    process::binary,
    require_kernel::require_kernel,
    server::Server,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

const UID: &str = "6d3c1f2a-0b7e-4c55-9a61-2f0d8e7b4c19";
const OTHER_UID: &str = "11c8a6d0-93e4-4f0b-b7d2-c05a9e13f764";
const REQUESTS: &str = "inferprobe_requests_total";

/// Runs its arguments in the cgroup that is its first one.
const ENTER: &str = r#"echo $$ > "$0/cgroup.procs"; exec "$@""#;

/// A hierarchy of cgroups of its own mount; removed when dropped.
struct Hierarchy {
    folder: TempDir,
    made: Vec<PathBuf>,
}

impl Hierarchy {
    /// Mounts that of version 2, which the whole host has in common.
    fn unified() -> Self {
        Self::mounted("cgroup2", None)
    }

    /// Mounts one of version 1 without a controller.
    fn named(name: &str) -> Self {
        Self::mounted("cgroup", Some(format!("none,name={name}")))
    }

    fn mounted(kind: &str, options: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = options.map(|options| std::ffi::CString::new(options).unwrap());
        let mounted = mount(
            kind,
            folder.path(),
            kind,
            MountFlags::empty(),
            options.as_deref(),
        );
        mounted.unwrap_or_else(|err| panic!("{kind} {options:?}: {err}"));
        Self {
            folder,
            made: Vec::new(),
        }
    }

    /// Starts a server in the cgroup at `path`, which is made.
    fn start(&mut self, path: &str) -> Server {
        let mut folder = self.folder.path().to_owned();
        for part in path.split('/') {
            folder.push(part);
            if !folder.exists() {
                fs::create_dir(&folder).unwrap();
                self.made.push(folder.clone());
            }
        }
        let mut launcher = Command::new("sh");
        launcher.args(["-c", ENTER]).arg(folder);
        launcher.arg(binary("reference-server", None));
        Server::start_by(launcher, &[])
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        // A process that was killed leaves its cgroup a moment later.
        for folder in self.made.iter().rev() {
            for _ in 0..200 {
                if fs::remove_dir(folder).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

/// An id as engines make them, which begins with `start`.
fn id(start: &str) -> String {
    format!("{start:0<64}")
}

fn make(root: &Path, folder: &str) {
    fs::create_dir_all(root.join(folder)).unwrap();
}

/// Names a container as kubelet names its log.
fn name_container(root: &Path, name: &str, id: &str) {
    let folder = root.join("var/log/containers");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}-{id}.log")), "").unwrap();
}

fn ask(server: &Server, count: usize) {
    for _ in 0..count {
        let mut client = Connection::open(&server.place).unwrap();
        let bytes = request("POST", "/predictions/shared", &[], b"{}");
        assert_eq!(client.exchange(&bytes).unwrap().1.status, 200);
    }
}

#[test]
fn servers_of_one_model_are_told_apart_by_port_and_container() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let host = tempfile::tempdir().unwrap();
    let root = host.path();
    make(root, &format!("var/log/pods/llm_vllm-0_{UID}/server"));
    make(
        root,
        &format!("var/log/pods/shop_ranker-7c9_{OTHER_UID}/one"),
    );
    make(
        root,
        &format!("var/log/pods/shop_ranker-7c9_{OTHER_UID}/two"),
    );
    name_container(root, "ranker-7c9_shop_two", &id("2b"));
    let docker = format!("var/lib/docker/containers/{}", id("3c"));
    make(root, &docker);
    fs::write(
        root.join(docker).join("config.v2.json"),
        r#"{"Name":"/web"}"#,
    )
    .unwrap();

    let systemd = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    let pod = format!(
        "kubepods.slice/kubepods-burstable.slice/{systemd}/cri-containerd-{}.scope",
        id("1a")
    );
    let mut unified = Hierarchy::unified();
    let mut named = Hierarchy::named("inferprobe-test");
    let servers = [
        (unified.start(&pod), ["llm", "vllm-0", "server"]),
        (
            named.start(&format!("kubepods/besteffort/pod{OTHER_UID}/{}", id("2b"))),
            ["shop", "ranker-7c9", "two"],
        ),
        (
            unified.start(&format!(
                "kubepods.slice/kubepods-pod{}.slice/crio-{}.scope",
                OTHER_UID.replace('-', "_"),
                id("4d")
            )),
            ["shop", "ranker-7c9", ""],
        ),
        (
            named.start(&format!("docker/{}", id("3c"))),
            ["", "", "web"],
        ),
        (
            unified.start(&format!(
                "machine.slice/libpod-{}.scope/container",
                id("5e")
            )),
            ["", "", &id("5e")[..12]],
        ),
        (Server::start(&[]), ["", "", ""]),
        (Server::start(&[]), ["", "", ""]),
    ];
    let root_option = root.to_str().unwrap();
    let agent = Agent::start(&[
        "--watch-exe",
        "reference-server",
        "--host-root",
        root_option,
    ]);
    for (index, (server, _)) in servers.iter().enumerate() {
        ask(server, index + 1);
    }
    let total: usize = (1..=servers.len()).sum();
    let rows = agent.rows(total, |row| row.model == "shared");
    let page = agent.metrics();
    for (index, (server, [namespace, pod, container])) in servers.iter().enumerate() {
        let port = server.port().to_string();
        let labels = [
            ("model", "shared"),
            ("port", &port),
            ("namespace", namespace),
            ("pod", pod),
            ("container", container),
        ];
        let count = (index + 1) as f64;
        assert_eq!(page.sum(REQUESTS, &labels), count, "{labels:?}");
        let durations = "inferprobe_request_duration_seconds_count";
        assert_eq!(page.sum(durations, &labels), count, "{labels:?}");
        let of_server = rows
            .iter()
            .filter(|row| row.local_port == Some(server.port()));
        for row in of_server {
            let logged = [&row.namespace, &row.pod, &row.container];
            assert_eq!(logged, [namespace, pod, container], "{row:?}");
        }
    }
    let all = [("model", "shared")];
    assert_eq!(page.sum(REQUESTS, &all), total as f64);
    let theirs = [("model_name", "shared")];
    let theirs: Vec<_> = page
        .samples("ts_inference_requests_total", &theirs)
        .collect();
    assert_eq!(
        theirs.len(),
        1,
        "TorchServe's families tell no replicas apart"
    );
    assert_eq!(theirs[0].value, total as f64);

    // A container that is restarted has another id and the same name.
    let [(first, _), ..] = servers;
    drop(first);
    name_container(root, "vllm-0_llm_server", &id("6f"));
    let again = pod.replace(&id("1a"), &id("6f"));
    let again = unified.start(&again);
    agent.await_watch(again.pid());
    ask(&again, 2);
    let labels = [("pod", "vllm-0"), ("container", "server")];
    assert_eq!(agent.wait_sum(REQUESTS, &labels, 3.0), 3.0);
    agent.stop();
}

#[test]
fn without_the_names_of_pods_the_labels_are_empty_and_one_line_says_why() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let host = tempfile::tempdir().unwrap();
    let mut unified = Hierarchy::unified();
    let servers =
        ["1a", "2b"].map(|start| unified.start(&format!("kubepods/pod{UID}/{}", id(start))));
    let root = host.path().to_str().unwrap();
    let agent = Agent::start(&["--watch-exe", "reference-server", "--host-root", root]);
    for server in &servers {
        ask(server, 1);
        let port = server.port().to_string();
        let labels = [
            ("port", &*port),
            ("namespace", ""),
            ("pod", ""),
            ("container", ""),
        ];
        agent.wait_sum(REQUESTS, &labels, 1.0);
    }
    let errors = agent.errors();
    let lines = errors
        .lines()
        .filter(|line| line.contains("labels namespace, pod and container"));
    let lines: Vec<_> = lines.collect();
    assert!(
        lines.len() == 1 && lines[0].contains("var/log/pods"),
        "{lines:?}"
    );
    agent.stop();
}

#[test]
fn three_hundred_pods_have_few_series_and_whole_counts() {
    const PODS: usize = 300;
    const KEPT: usize = 256;
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let host = tempfile::tempdir().unwrap();
    let root = host.path();
    let mut unified = Hierarchy::unified();
    let uid = |number: usize| format!("{number:08x}-0b7e-4c55-9a61-2f0d8e7b4c19");
    let servers: Vec<Server> = (0..PODS)
        .map(|number| {
            let folder = format!("var/log/pods/many_pod-{number}_{}/server", uid(number));
            make(root, &folder);
            let id = id(&format!("{number:x}f"));
            unified.start(&format!("kubepods/pod{}/{id}", uid(number)))
        })
        .collect();
    let root = root.to_str().unwrap();
    let agent = Agent::start(&["--watch-exe", "reference-server", "--host-root", root]);
    for server in &servers {
        ask(server, 1);
    }
    let all = [("model", "shared")];
    let count = PODS as f64;
    assert_eq!(agent.wait_sum(REQUESTS, &all, count), count);
    let page = agent.metrics();
    // Other servers of this machine may be among those that are told apart.
    let series = page.samples(REQUESTS, &all).count();
    assert!((KEPT - 20..=KEPT + 1).contains(&series), "{series}");
    let other = [("model", "shared"), ("pod", "other"), ("port", "other")];
    let of_others = page.sum(REQUESTS, &other);
    assert_eq!(of_others, (PODS - (series - 1)) as f64);
    let named = [("namespace", "many"), ("container", "server")];
    assert_eq!(page.sum(REQUESTS, &named) + of_others, count);
    agent.stop();
}

#[test]
fn labels_that_are_left_out_are_not_printed_and_their_series_are_one() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let servers = [Server::start(&[]), Server::start(&[])];
    let args = [
        "--watch-exe",
        "reference-server",
        "--no-label",
        "port",
        "--no-label",
        "pod",
    ];
    let agent = Agent::start(&args);
    for server in &servers {
        ask(server, 1);
    }
    agent.wait_sum(REQUESTS, &[("model", "shared")], 2.0);
    let page = agent.metrics();
    let labels = [("model", "shared")];
    let series: Vec<_> = page.samples(REQUESTS, &labels).collect();
    assert!(series.len() == 1 && series[0].value == 2.0, "{series:?}");
    let names: Vec<_> = series[0].labels.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        names,
        [
            "model",
            "version",
            "server",
            "code",
            "namespace",
            "container"
        ]
    );
    agent.stop();
}
