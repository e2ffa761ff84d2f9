//! Tests which processes are watched and how they are labelled, with processes that the tests start.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use regex_lite::Regex;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::protocol::grpc::{ModelName, NamedBy};

use super::*;

/// A process that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(tag: &str) -> Self {
        let child = Command::new("sleep")
            .args(["600", tag])
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(target: Target, model: Option<&str>) -> Watch {
    Watch {
        target,
        model: model.map(Into::into),
        version: None,
        server: Some("srv".into()),
    }
}

fn registry(watches: Vec<Watch>) -> Registry {
    let catalogue = Catalogue::new(Vec::new()).unwrap();
    Registry::new(watches, Arc::new(catalogue), Some(std::process::id()))
}

fn exe(pattern: &str) -> Target {
    Target::Exe(Regex::new(pattern).unwrap())
}

const POST_CHAT: RequestInfo<'_> = RequestInfo {
    method: "POST",
    target: "/v1/chat/completions",
    is_grpc: false,
    is_upgraded: false,
    on_unix: false,
    named: None,
    user_agent: None,
};

/// The labels of a process `proc` with this command line and without a parent.
fn server_of(registry: &mut Registry, raw: &[u8]) -> Server {
    let reason = registry.reason_to_watch(u32::MAX, &CommandLine::parse(raw).unwrap());
    assert!(reason.is_some());
    registry.insert(u32::MAX, Process::new("proc".into(), reason));
    registry.server(u32::MAX, Some(8080))
}

#[test]
fn a_watched_port_labels_the_process_that_serves_it() {
    let mut registry = registry(vec![watch(Target::Port(80), Some("m"))]);
    let own = std::process::id();
    let server = registry.server(own, Some(80));
    assert_eq!(
        (&*server.name, &*server.model, &*server.version),
        ("srv", "m", "default")
    );
    let other = registry.server(own, Some(81));
    assert_eq!(other.name, other.model);
    assert_eq!(*other.name, *procfs::short_name(own));
}

#[test]
fn a_procfs_with_other_process_ids_is_not_read() {
    let catalogue = Catalogue::new(Vec::new()).unwrap();
    let watches = vec![watch(exe("."), None), watch(Target::Port(80), Some("m"))];
    let mut registry = Registry::new(watches, Arc::new(catalogue), None);
    assert!(registry.scan().unwrap().is_empty());
    let parent = std::os::unix::process::parent_id();
    assert!(!registry.inspect(parent));
    let by_port = registry.server(parent, Some(80));
    assert_eq!((&*by_port.name, &*by_port.model), ("srv", "m"));
    assert_eq!(&*registry.server(parent, Some(81)).name, procfs::UNKNOWN);
}

#[test]
fn a_process_is_found_by_its_command_line_and_labels_its_forks() {
    let sleeper = Sleeper::start("0.0001");
    let pid = sleeper.0.id();
    let mut registry = registry(vec![watch(exe("^sleep 600 0.0001$"), Some("m"))]);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !registry.inspect(pid) {
        assert!(
            Instant::now() < deadline,
            "the process never ran its program"
        );
        std::thread::yield_now();
    }
    assert!(registry.scan().unwrap().contains(&pid));
    registry.forked(pid, u32::MAX);
    assert_eq!(&*registry.server(u32::MAX, None).model, "m");
    assert!(registry.is_watched(u32::MAX));
}

#[test]
fn a_recognised_server_with_a_configured_watch_is_both() {
    let mut registry = registry(vec![watch(exe("ModelServer"), Some("m"))]);
    let server = server_of(
        &mut registry,
        b"/usr/bin/java\0-Xmx1g\0org.pytorch.serve.ModelServer\0",
    );
    assert_eq!((&*server.name, &*server.model), ("srv", "m"));
    assert!(server.is_frontend && server.model_source == ModelSource::Configuration);
    assert_eq!(&*server.entry.unwrap().name, "torchserve");
}

#[test]
fn a_recognised_server_is_labelled_by_its_command_line() {
    let mut registry = registry(vec![]);
    let server = server_of(&mut registry, b"vllm\0serve\0org/m\0");
    assert_eq!((&*server.name, &*server.model), ("vllm", "org/m"));
    assert!(!server.is_frontend && !server.is_internal);
    assert_eq!(server.model_source, ModelSource::CommandLine);
    let server = server_of(&mut registry, b"tritonserver\0");
    assert_eq!((&*server.name, &*server.model), ("triton", "proc"));
    assert_eq!(server.model_source, ModelSource::ProcessName);
    let server = server_of(&mut registry, b"ollama\0runner\0");
    assert!(server.is_internal);
    let route = registry.route(&server, POST_CHAT);
    assert_eq!(route.purpose, Purpose::Internal);
}

/// A process with the command line `line`, and a child that runs `child` in its shell; both end with it.
struct Family {
    parent: Child,
    child: u32,
    _folder: tempfile::TempDir,
}

impl Family {
    fn start(program: &str, script: &str, child: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("({child}) 2>/dev/null & echo $!; wait");
        fs::write(folder.path().join(script), text).unwrap();
        let mut parent = Command::new("bash")
            .arg0(program)
            .arg(script)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(parent.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        Self {
            parent,
            child: said.trim().parse().unwrap(),
            _folder: folder,
        }
    }

    /// The labels of the child, once its command line starts with `runs`.
    fn server(&self, registry: &mut Registry, runs: &str) -> Server {
        let deadline = Instant::now() + Duration::from_secs(5);
        let runs_it = || {
            let line = procfs::command_line(self.child);
            line.is_some_and(|line| line.command.starts_with(runs))
        };
        while !runs_it() {
            assert!(Instant::now() < deadline, "the child never ran {runs}");
            std::thread::yield_now();
        }
        registry.inspect(self.child);
        registry.server(self.child, None)
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.parent);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.parent.wait();
    }
}

const SPAWNED: &str =
    "exec -a python3 bash -c 'from multiprocessing.spawn import spawn_main; sleep 600; true'";

#[test]
fn a_spawned_child_has_its_parents_labels() {
    let family = Family::start("uvicorn", "main:app", SPAWNED);
    let server = family.server(&mut registry(vec![]), "-c from");
    assert_eq!((&*server.name, &*server.model), ("uvicorn", "main:app"));

    let mut watching = registry(vec![watch(exe("^uvicorn main:app$"), Some("m"))]);
    let server = family.server(&mut watching, "-c from");
    assert_eq!((&*server.name, &*server.model), ("srv", "m"));
}

#[test]
fn a_spawned_child_is_not_watched_unless_the_entry_says_so() {
    let family = Family::start("vllm", "serve", SPAWNED);
    let mut registry = registry(vec![]);
    let server = family.server(&mut registry, "-c from");
    assert!(server.entry.is_none() && !registry.is_watched(family.child));
}

#[test]
fn a_child_is_internal_if_the_entry_says_so() {
    let family = Family::start("ollama", "serve", "exec -a llama-server sleep 600");
    let server = family.server(&mut registry(vec![]), "llama-server");
    assert_eq!(&*server.name, "ollama");
    assert!(server.is_internal);
}

#[test]
fn a_parents_command_line_names_the_model_too() {
    let family = Family::start("uvicorn", "main:app", "exec -a uvicorn sleep 600");
    let server = family.server(&mut registry(vec![]), "uvicorn");
    assert_eq!((&*server.name, &*server.model), ("uvicorn", "main:app"));
}

#[test]
fn a_model_that_the_body_names_wins_over_a_configured_one() {
    let named = ModelName {
        by: NamedBy::Body,
        model: "from-body".into(),
        version: None,
    };
    let request = RequestInfo {
        named: Some(&named),
        ..POST_CHAT
    };
    for model in [None, Some("m")] {
        let mut registry = registry(vec![watch(exe("vllm"), model)]);
        let server = server_of(&mut registry, b"vllm\0serve\0org/m\0");
        let route = registry.route(&server, request);
        assert_eq!(route.model.as_deref(), Some("from-body"));
        assert_eq!(route.model_source, Some(ModelSource::RequestBody));
        let unnamed = registry.route(&server, POST_CHAT);
        assert!(unnamed.model.is_none() && unnamed.by_body);
    }
}

#[test]
fn an_ended_process_keeps_its_labels_for_a_while() {
    let mut registry = registry(vec![]);
    registry.insert(u32::MAX, Process::new("gone".into(), None));
    registry.exited(u32::MAX);
    assert_eq!(&*registry.server(u32::MAX, None).name, "gone");
    assert_eq!(&*registry.server(u32::MAX - 1, None).name, "unknown");
}

#[test]
fn a_process_without_events_is_found_by_a_scan() {
    let mut sleeper = Sleeper::start("1");
    let pid = sleeper.0.id();
    let mut registry = registry(vec![watch(exe("sleep"), None)]);
    assert!(registry.unwatched().unwrap().contains(&pid));
    assert!(registry.inspect(pid));
    assert!(!registry.unwatched().unwrap().contains(&pid));
    assert!(registry.gone().is_empty());
    sleeper.0.kill().unwrap();
    sleeper.0.wait().unwrap();
    assert_eq!(registry.gone(), [pid]);
    registry.exited(pid);
    assert!(registry.gone().is_empty());
}

#[test]
fn the_agent_never_watches_itself() {
    let mut registry = registry(vec![watch(exe("."), None)]);
    assert!(!registry.inspect(std::process::id()));
}
