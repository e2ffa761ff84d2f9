//! Checks which capabilities the agent needs, keeps and misses, and which processes it finds from a pid namespace.

use std::{fs, process::Command};

use inferprobe_tests::{
    accuracy::{hold_in_one_of_five, ten_thousand_requests},
    agent::{
        Agent,
        launcher::{Launcher, agent_binary},
        request_log::Logged,
        run::run_to_end_by,
    },
    client::{Connection, request},
    process::{OWN_PROCFS, child_of},
    require_kernel::require_kernel,
    server::{Place, Server, server_binary},
    tracefs::Tracefs,
    unprivileged::Unprivileged,
};
use rustix::system::uname;

const DAC_READ_SEARCH: u32 = 2;
const SYS_PTRACE: u32 = 19;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// The documented capabilities.
const DOCUMENTED: [u32; 3] = [BPF, PERFMON, SYS_PTRACE];
/// Exit code of an environment that does not allow the run.
const ENVIRONMENT: i32 = 1;

fn mask(capabilities: &[u32]) -> u64 {
    capabilities.iter().fold(0, |mask, one| mask | 1 << one)
}

/// Returns the mask after `key` in the status of a thread.
fn field(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    u64::from_str_radix(value.unwrap().trim(), 16).unwrap()
}

/// Returns what a thread of the agent may keep besides `kept`: maps need CAP_BPF before Linux 5.19.
fn for_maps() -> u64 {
    let release = uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    if version < (5, 19) { mask(&[BPF]) } else { 0 }
}

/// Asserts that every thread has only `kept` and cannot gain more. Returns the bounding sets.
fn assert_every_thread_keeps(agent: &Agent, kept: u64) -> Vec<u64> {
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let statuses: Vec<String> = threads
        .map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap())
        .collect();
    // The main thread, the event loop, and the collectors of host, disk and GPUs.
    assert!(statuses.len() >= 5, "{statuses:?}");
    for status in &statuses {
        let own = [
            field(status, "CapInh:"),
            field(status, "CapAmb:"),
            field(status, "CapPrm:") & !for_maps(),
            field(status, "CapEff:") & !for_maps(),
            field(status, "NoNewPrivs:"),
        ];
        assert_eq!(own, [0, 0, kept, kept, 1], "{status}");
    }
    statuses
        .iter()
        .map(|status| field(status, "CapBnd:") & !for_maps())
        .collect()
}

fn predict(place: &Place, model: &str) {
    let mut client = Connection::open(place).unwrap();
    let question = request("POST", &format!("/predictions/{model}"), &[], b"{}");
    assert_eq!(client.exchange(&question).unwrap().1.status, 200);
}

/// Returns the only row of `model`.
fn row(agent: &Agent, model: &str) -> Logged {
    let rows = agent.rows(1, |row| row.model == model);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.into_iter().next().unwrap()
}

/// Returns a command that runs `program` as the first process of a pid namespace, with its own procfs if `own_procfs`.
fn in_pid_namespace(program: &std::path::Path, own_procfs: bool) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]);
    if own_procfs {
        command.args(OWN_PROCFS);
    }
    command.arg(program);
    command
}

#[test]
fn user_with_three_capabilities_measures_as_root_does() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let nobody = Unprivileged::with(&DOCUMENTED);
    hold_in_one_of_five(|| ten_thousand_requests(|args| Agent::start_by(nobody.command(), args)));
}

#[test]
fn missing_capability_for_the_probes_is_an_error() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    for (granted, parts) in [
        (
            &[PERFMON, SYS_PTRACE],
            ["missing capability CAP_BPF,", "--no-probes"],
        ),
        (
            &[BPF, SYS_PTRACE],
            ["missing capability CAP_PERFMON,", "--no-probes"],
        ),
    ] {
        assert_refused(Unprivileged::with(granted).command(), &[], &parts);
    }
}

#[test]
fn closed_tracefs_is_refused_with_the_missing_capability() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    for (tracefs, folder) in [
        (Tracefs::Own, "/sys/kernel/tracing"),
        (Tracefs::InDebugfs, "/sys/kernel/debug/tracing"),
    ] {
        let nobody = Unprivileged::with(&DOCUMENTED);
        let launcher = Launcher::from(nobody.command()).with_tracefs(tracefs);
        let missing = "--accept-wait: missing capability CAP_DAC_READ_SEARCH, ";
        assert_refused(launcher, &["--accept-wait"], &[missing, folder]);
    }
}

/// Asserts that the agent ends, and that its last line contains all of `parts`.
fn assert_refused(launcher: impl Into<Launcher>, args: &[&str], parts: &[&str]) {
    let args = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
    let ended = run_to_end_by(launcher, &args);
    assert_eq!(ended.code, Some(ENVIRONMENT), "{ended:?}");
    let last = ended.stderr.trim_end().lines().last().unwrap();
    for part in parts {
        assert!(last.contains(part), "{last:?} lacks {part:?}");
    }
}

#[test]
fn missing_optional_capability_is_a_warning() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let args = ["--watch-port", &server.port().to_string()];
    for (granted, is_missing) in [(&DOCUMENTED[..2], true), (&DOCUMENTED, false)] {
        let nobody = Unprivileged::with(granted);
        let agent = Agent::start_by(nobody.command(), &args);
        let errors = agent.errors();
        let warning = "missing capability CAP_SYS_PTRACE: ";
        assert_eq!(errors.contains(warning), is_missing, "{errors}");
        predict(&server.place, "measured-all-the-same");
        row(&agent, "measured-all-the-same");
        agent.stop();
    }
}

#[test]
fn threads_of_root_keep_only_what_procfs_needs() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let agent = Agent::start(&["--watch-exe", "reference-server"]);
    let kept = mask(&[SYS_PTRACE, DAC_READ_SEARCH]);
    let bounding = assert_every_thread_keeps(&agent, kept);
    assert!(bounding.iter().all(|set| *set == kept), "{bounding:?}");
    let said = "capabilities dropped kept=CAP_DAC_READ_SEARCH CAP_SYS_PTRACE";
    assert!(agent.errors().contains(said), "{}", agent.errors());
    agent.stop();
}

#[test]
fn dropped_capabilities_are_not_needed_for_discovery() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let nobody = Unprivileged::with(&DOCUMENTED);
    let agent = Agent::start_by(nobody.command(), &["--watch-exe", "reference-server"]);
    assert_every_thread_keeps(&agent, mask(&[SYS_PTRACE]));
    let server = Server::start(&[]);
    agent.await_watch(server.pid());
    predict(&server.place, "found-without-root");
    let row = row(&agent, "found-without-root");
    assert_eq!(row.pid, server.pid());
    assert!(row.arrival_ns.is_some(), "{row:?}");
    agent.stop();
}

#[test]
fn agent_without_probes_keeps_no_capability() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let agent = Agent::start(&["--no-probes"]);
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    for thread in threads {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for key in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:", "CapBnd:"] {
            assert_eq!(field(&status, key), 0, "{key} {status}");
        }
    }
    agent.stop();
}

#[test]
fn server_in_a_pid_namespace_has_the_process_id_of_the_host() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let launcher = || in_pid_namespace(&server_binary(), true);
    let early = Server::start_by(launcher(), &[]);
    let agent = Agent::start(&["--watch-exe", "^[^ ]*/reference-server"]);
    let late = Server::start_by(launcher(), &[]);
    let late_pid = child_of(late.pid());
    agent.await_watch(late_pid);
    for (server, pid, model) in [
        (&early, child_of(early.pid()), "there-before"),
        (&late, late_pid, "started-later"),
    ] {
        predict(&server.place, model);
        let row = row(&agent, model);
        assert_eq!((row.pid, &*row.server), (pid, "reference-serve"));
    }
    agent.stop();
}

#[test]
fn agent_in_its_own_pid_namespace_watches_only_ports() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let launcher = || in_pid_namespace(&agent_binary(), true);
    let ended = run_to_end_by(launcher(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(ended.code, Some(ENVIRONMENT), "{ended:?}");
    let last = ended.stderr.trim_end().lines().last().unwrap();
    for part in [
        "PID namespace",
        "--pid=host",
        "hostPID: true",
        "--watch-port",
    ] {
        assert!(last.contains(part), "{last:?} lacks {part:?}");
    }

    let server = Server::start(&[]);
    let agent = Agent::start_by(launcher(), &["--watch-port", &server.port().to_string()]);
    assert!(
        agent.errors().contains("hostPID: true"),
        "{}",
        agent.errors()
    );
    predict(&server.place, "by-port");
    let row = row(&agent, "by-port");
    assert_eq!((row.pid, &*row.server), (server.pid(), "unknown"));
    // `unshare` does not forward signals.
    agent.kill();
}

#[test]
fn agent_in_a_pid_namespace_with_the_hosts_procfs_finds_processes() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let launcher = in_pid_namespace(&agent_binary(), false);
    let agent = Agent::start_by(launcher, &["--watch-exe", "^[^ ]*/reference-server"]);
    predict(&server.place, "by-name");
    let row = row(&agent, "by-name");
    assert_eq!((row.pid, &*row.server), (server.pid(), "reference-serve"));
    agent.kill();
}
