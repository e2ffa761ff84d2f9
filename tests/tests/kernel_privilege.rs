//! Needs root: what the agent may do, what it says where it may not, and which processes it sees from where.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

use std::{fs, process::Command};

use inferprobe_tests::{
    accuracy::{hold_in_one_of_five, ten_thousand_requests},
    agent::{Agent, Logged, agent_binary, run_to_end_by},
    client::{Connection, request},
    gate,
    process::child_of,
    server::{Place, Server, server_binary},
    unprivileged::Unprivileged,
};
use rustix::system::uname;

const DAC_READ_SEARCH: u32 = 2;
const SYS_PTRACE: u32 = 19;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// What README asks for.
const DOCUMENTED: [u32; 3] = [BPF, PERFMON, SYS_PTRACE];
/// Exit code of an environment that does not allow the run.
const ENVIRONMENT: i32 = 1;

fn mask(capabilities: &[u32]) -> u64 {
    capabilities.iter().fold(0, |mask, one| mask | 1 << one)
}

/// The mask behind `key` in the status of a thread.
fn field(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    u64::from_str_radix(value.unwrap().trim(), 16).unwrap()
}

/// What a thread of the agent may keep beside `kept`: maps need CAP_BPF before Linux 5.19.
fn for_maps() -> u64 {
    let release = uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse::<u32>().unwrap());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    if version < (5, 19) { mask(&[BPF]) } else { 0 }
}

/// Every thread must hold `kept` and nothing else, nor get more; what is in its bounding set.
fn assert_every_thread_keeps(agent: &Agent, kept: u64) -> Vec<u64> {
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let statuses: Vec<String> = threads
        .map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap())
        .collect();
    // The main thread, the watcher, and the collectors of host, disk and GPUs.
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

/// The one row of `model`.
fn row(agent: &Agent, model: &str) -> Logged {
    let rows = agent.rows(1, |row| row.model == model);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.into_iter().next().unwrap()
}

/// `program` as the first process of a pid namespace; with a procfs of that namespace if `own_procfs`.
fn in_pid_namespace(program: &std::path::Path, own_procfs: bool) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]);
    if own_procfs {
        command.arg("--mount-proc");
    }
    command.arg(program);
    command
}

#[test]
fn nobody_with_three_capabilities_times_ten_thousand_requests_as_root_does() {
    let Some(_turn) = gate::kernel() else { return };
    let nobody = Unprivileged::with(&DOCUMENTED);
    hold_in_one_of_five(|| ten_thousand_requests(|args| Agent::start_by(nobody.command(), args)));
}

#[test]
fn a_missing_capability_that_the_probes_need_is_named() {
    let Some(_turn) = gate::kernel() else { return };
    for (granted, args, parts) in [
        (
            &[PERFMON, SYS_PTRACE][..],
            &[][..],
            ["missing capability CAP_BPF,", "--no-probes"],
        ),
        (
            &[BPF, SYS_PTRACE],
            &[],
            ["missing capability CAP_PERFMON,", "--no-probes"],
        ),
        (
            &DOCUMENTED,
            &["--accept-wait"],
            ["missing capability CAP_DAC_READ_SEARCH,", "--accept-wait"],
        ),
    ] {
        let args = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
        let ended = run_to_end_by(Unprivileged::with(granted).command(), &args);
        assert_eq!(ended.code, Some(ENVIRONMENT), "{ended:?}");
        let last = ended.stderr.trim_end().lines().last().unwrap();
        for part in parts {
            assert!(last.contains(part), "{last:?} lacks {part:?}");
        }
    }
}

#[test]
fn a_missing_capability_that_some_is_lost_without_is_warned_of() {
    let Some(_turn) = gate::kernel() else { return };
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
fn every_thread_of_root_keeps_what_procfs_needs_alone() {
    let Some(_turn) = gate::kernel() else { return };
    let agent = Agent::start(&["--watch-exe", "reference-server"]);
    let kept = mask(&[SYS_PTRACE, DAC_READ_SEARCH]);
    let bounding = assert_every_thread_keeps(&agent, kept);
    assert!(bounding.iter().all(|set| *set == kept), "{bounding:?}");
    let said = "capabilities given up kept=CAP_DAC_READ_SEARCH CAP_SYS_PTRACE";
    assert!(agent.errors().contains(said), "{}", agent.errors());
    agent.stop();
}

#[test]
fn what_is_given_up_is_not_needed_to_find_processes_and_listeners() {
    let Some(_turn) = gate::kernel() else { return };
    let nobody = Unprivileged::with(&DOCUMENTED);
    let agent = Agent::start_by(nobody.command(), &["--watch-exe", "reference-server"]);
    assert_every_thread_keeps(&agent, mask(&[SYS_PTRACE]));
    let server = Server::start(&[]);
    agent.await_watch(server.pid());
    predict(&server.place, "found-by-nobody");
    let row = row(&agent, "found-by-nobody");
    assert_eq!(row.pid, server.pid());
    assert!(row.arrival_ns.is_some(), "{row:?}");
    agent.stop();
}

#[test]
fn without_probes_nothing_is_kept() {
    let Some(_turn) = gate::kernel() else { return };
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
fn a_server_in_a_pid_namespace_has_the_process_id_that_the_host_sees() {
    let Some(_turn) = gate::kernel() else { return };
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
fn in_a_pid_namespace_of_its_own_the_agent_watches_ports_or_says_what_it_lacks() {
    let Some(_turn) = gate::kernel() else { return };
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
    // `unshare` does not hand signals on.
    agent.kill();
}

#[test]
fn in_a_pid_namespace_with_the_hosts_procfs_the_agent_sees_the_host() {
    let Some(_turn) = gate::kernel() else { return };
    let server = Server::start(&[]);
    let launcher = in_pid_namespace(&agent_binary(), false);
    let agent = Agent::start_by(launcher, &["--watch-exe", "^[^ ]*/reference-server"]);
    predict(&server.place, "by-name");
    let row = row(&agent, "by-name");
    assert_eq!((row.pid, &*row.server), (server.pid(), "reference-serve"));
    agent.kill();
}
