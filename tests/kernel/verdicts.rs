//! Makes models slow, each for one reason, and checks that the agent says that reason and never another one.

mod mixes;

use std::{
    fs::File,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use inferprobe_tests::{
    agent::{
        Agent, free_port,
        launcher::{Launcher, agent_binary},
    },
    client::{Connection, await_listener, request},
    clock::wait_for,
    nvml::Nvml,
    process::binary,
    process_group::ProcessGroup,
    require_kernel::require_kernel,
    server::Server,
    server_cases::hosts::{self, Host, Kind},
    slowness::{Hogs, Quota, one_cpu, pin},
    tracefs::Tracefs,
};

/// Longest time until the evidence of a verdict is there: collectors read it every second.
const LIMIT: Duration = Duration::from_secs(20);
/// What the agent may say before that.
const EARLY: [&str; 3] = ["idle", "fine", "unknown"];
/// Time after which windows are no longer what a verdict is about, but what it compares with.
const COMPARED: Duration = Duration::from_secs(31);

/// Sends requests with `ask` until the verdict on a model is `expected`; any other one that is not early is wrong.
fn await_verdict(agent: &Agent, model: &str, expected: &str, mut ask: impl FnMut()) -> String {
    let start = Instant::now();
    loop {
        ask();
        let (cause, headline) = agent.verdict(model);
        println!("{model}: {headline}");
        if cause == expected {
            return headline;
        }
        assert!(
            EARLY.contains(&&*cause),
            "{model}: {headline} ({cause}), not {expected}"
        );
        assert!(
            start.elapsed() < LIMIT,
            "{model}: still {headline}, not {expected}"
        );
    }
}

/// Sends requests one after the other on one connection.
fn ask(port: u16, count: usize, target: &str) {
    let mut client = Connection::open_tcp(port).unwrap();
    for _ in 0..count {
        client
            .exchange(&request("POST", target, &[], b"{}"))
            .unwrap();
    }
}

/// Sends requests from several clients at once, each on a new connection.
fn crowd(port: u16, clients: usize, count: usize, target: &str) {
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                for _ in 0..count {
                    ask(port, 1, target);
                }
            });
        }
    });
}

/// Sends requests of which the second half follows later.
fn send_slowly(port: u16, count: usize, target: &str, pause: Duration) {
    let mut client = Connection::open_tcp(port).unwrap();
    for _ in 0..count {
        let bytes = request("POST", target, &[], &[b'x'; 200]);
        let (first, rest) = bytes.split_at(bytes.len() - 100);
        client.send(first).unwrap();
        thread::sleep(pause);
        client.send(rest).unwrap();
        client.receive(false).unwrap();
    }
}

/// A body that is larger than the buffers of a connection.
const LARGE: usize = 16 << 20;

/// Requests large bodies, by `target` and a query of its own, and receives them part by part, with pauses.
fn receive_slowly(port: u16, count: usize, target: &str) {
    let mut client = Connection::open_tcp(port).unwrap();
    let wanted = request("POST", &format!("{target}?body={LARGE}"), &[], b"{}");
    for _ in 0..count {
        client.send(&wanted).unwrap();
        let pause = Duration::from_millis(8);
        client.receive_slowly(LARGE, 256 << 10, pause).unwrap();
        client.receive(false).unwrap();
    }
}

fn watching(ports: &[u16], more: &[&str]) -> Agent {
    let mut args = Vec::new();
    for port in ports {
        args.extend(["--watch-port".to_owned(), port.to_string()]);
    }
    args.extend(more.iter().map(|word| (*word).to_owned()));
    Agent::start(&args)
}

/// Starts gunicorn with one worker that serves one connection after the other.
fn one_reader(installed: &Path, port: u16, folder: &Path) -> ProcessGroup {
    let mut command = ProcessGroup::command(&installed.join("venv/bin/gunicorn"));
    let console = File::create(folder.join("console")).unwrap();
    command
        .args(["wsgi_app:app", "--bind", &format!("127.0.0.1:{port}")])
        .args(["--worker-class", "sync", "--no-control-socket"])
        .current_dir(folder)
        .env("PYTHONPATH", hosts::APPS)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MARKS", folder.join("marks"))
        .stdout(console.try_clone().unwrap())
        .stderr(console);
    let group = ProcessGroup::start(command);
    await_listener("gunicorn", port, LIMIT);
    group
}

#[test]
#[ignore = "other tests take its CPUs: run `cargo xtask test verdicts -- -- --ignored --nocapture`"]
fn one_busy_reader_is_named() {
    let (Some(_kernel), Some(installed)) = (require_kernel(), hosts::installed()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _gunicorn = one_reader(&installed, port, folder.path());
    let agent = watching(&[port], &[]);
    let said = await_verdict(&agent, "saturated", "readers_busy", || {
        crowd(port, 4, 10, "/predictions/saturated?sleep_ms=20");
    });
    assert!(
        said.starts_with("waits to be read: 1 reader, busy "),
        "{said}"
    );
    let labels = [("model", "saturated")];
    agent.wait_sum("inferprobe_readers", &labels, 1.0);
    let page = agent.metrics();
    assert_eq!(page.sum("inferprobe_readers", &labels), 1.0);
    let share = page.sum("inferprobe_readers_busy_ratio", &labels);
    assert!((0.8..=1.0).contains(&share), "{share}");
}

#[test]
#[ignore = "other tests take its CPUs: run `cargo xtask test verdicts -- -- --ignored --nocapture`"]
fn wait_before_accept_is_named() {
    let (Some(_kernel), Some(installed)) = (require_kernel(), hosts::installed()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _gunicorn = one_reader(&installed, port, folder.path());
    let launcher = Launcher::agent().with_tracefs(Tracefs::Own);
    let args = ["--watch-port", &port.to_string(), "--accept-wait"];
    let agent = Agent::start_by(launcher, &args);
    await_verdict(&agent, "unaccepted", "accept", || {
        crowd(port, 4, 10, "/predictions/unaccepted?sleep_ms=20");
    });
}

#[test]
#[ignore = "other tests take its CPUs: run `cargo xtask test verdicts -- -- --ignored --nocapture`"]
fn blocked_event_loop_is_slow_to_read() {
    let (Some(_kernel), Some(installed)) = (require_kernel(), hosts::installed()) else {
        return;
    };
    let uvicorn = Host::start(Kind::UvicornAsyncio, &installed);
    let agent = watching(&[uvicorn.port], &[]);
    let target = "/predictions/blocked?block_ms=40";
    await_verdict(&agent, "blocked", "slow_to_read", || {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| ask(uvicorn.port, 8, target));
            }
        });
    });
}

#[test]
#[ignore = "other tests take its CPUs: run `cargo xtask test verdicts -- -- --ignored --nocapture`"]
fn slow_sender_and_failures_are_named() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let port = server.port();
    let agent = watching(&[port], &[]);
    await_verdict(&agent, "sent", "slow_sender", || {
        send_slowly(port, 12, "/predictions/sent", Duration::from_millis(30));
    });
    let mut said = String::new();
    wait_for("a verdict on failures", LIMIT, || {
        ask(port, 20, "/predictions/failing?status=503");
        said = agent.verdict("failing").1;
        said.starts_with("fails: 503 (").then_some(())
    });
    await_verdict(&agent, "fast", "fine", || {
        ask(port, 40, "/predictions/fast");
    });
}

#[test]
fn a_slow_receiver_and_a_server_that_produces_slowly_are_told_apart() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let agent = watching(&[server.port()], &[]);
    await_verdict(&agent, "streamed", "produces_slowly", || {
        let target = "/predictions/streamed?chunks=5&gap_ms=30&body=90";
        ask(server.port(), 5, target);
    });
    await_verdict(&agent, "received", "slow_receiver", || {
        receive_slowly(server.port(), 2, "/predictions/received");
    });
    // Most of its time it waits, but not for this client.
    await_verdict(&agent, "pieces", "produces_slowly", || {
        let target = "/predictions/pieces?chunks=5&gap_ms=40&body=2000000";
        ask(server.port(), 2, target);
    });
}

/// Work that is longer than a CPU slice, so that hogs interrupt it.
const WORK: &str = "?burn_us=15000";

#[test]
#[ignore = "other tests take its CPUs: run `cargo xtask test verdicts -- -- --ignored --nocapture`"]
fn limit_of_the_cgroup_is_named() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let quota = Quota::of_percent(30);
    let limited = Server::start_by(entering(&quota), &[]);
    let agent = watching(&[limited.port()], &[]);
    await_verdict(&agent, "limited", "cpu_limit", || {
        ask(limited.port(), 20, &format!("/predictions/limited{WORK}"));
    });
}

#[test]
#[ignore = "other tests take its CPUs: run `cargo xtask test verdicts -- -- --ignored --nocapture`"]
fn server_with_more_busy_threads_than_cpus_starves_itself() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    pin(server.pid(), &one_cpu());
    let agent = watching(&[server.port()], &[]);
    await_verdict(&agent, "crowded", "cpu_own", || {
        crowd(server.port(), 4, 5, &format!("/predictions/crowded{WORK}"));
    });
}

#[test]
#[ignore = "other tests take its CPUs: run `cargo xtask test verdicts -- -- --ignored --nocapture`"]
fn hogs_take_the_cpu_and_without_cgroups_that_is_unknown() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let port = server.port();
    let cpu = one_cpu();
    pin(server.pid(), &cpu);
    let agent = watching(&[port], &[]);
    let mut blind = Command::new("unshare");
    blind.args([
        "--mount",
        "sh",
        "-c",
        r#"umount -R -l /sys/fs/cgroup; exec "$@""#,
        "sh",
    ]);
    blind.arg(agent_binary());
    let blind = Agent::start_by(blind, &["--watch-port", &port.to_string()]);
    let _hogs = Hogs::start(2, &cpu);
    await_verdict(&agent, "hogged", "cpu", || {
        ask(port, 20, &format!("/predictions/hogged{WORK}"));
    });
    let (cause, said) = blind.verdict("hogged");
    assert_eq!(
        (&*cause, &*said),
        (
            "unknown",
            "cannot say: CPU limit of its control group is unknown"
        )
    );
}

/// Returns a command that runs the reference server in a cgroup.
fn entering(quota: &Quota) -> Command {
    let mut launcher = Command::new("sh");
    launcher.args(["-c", r#"echo $$ > "$0/cgroup.procs"; exec "$@""#]);
    launcher.arg(quota.folder());
    launcher.arg(binary("reference-server", None));
    launcher
}

/// A server whose GPU a stand-in for NVML reports, and its agent.
struct OnGpu {
    server: Server,
    nvml: Nvml,
    agent: Agent,
}

impl OnGpu {
    fn start() -> Self {
        let nvml = Nvml::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
        let server = Server::start(&[]);
        let library = nvml.library();
        nvml.control("device 0 busy 60\n");
        let agent = watching(
            &[server.port()],
            &["--nvml-library", library.to_str().unwrap()],
        );
        Self {
            server,
            nvml,
            agent,
        }
    }

    /// Has NVML report how much of the GPU server and another process use, and for how long it was throttled.
    fn report(&self, other_pct: u32, throttled_ns: u64) {
        let pid = self.server.pid();
        self.nvml.control(&format!(
            "device 0 busy {}\ndevice 0 process {pid} 15 5 1048576\n\
             device 0 process 4194305 {other_pct} 5 1048576\ndevice 0 violation 0 {throttled_ns}\n",
            15 + other_pct
        ));
    }

    fn ask(&self, sleep_ms: u32) {
        let target = format!("/predictions/gpu?sleep_ms={sleep_ms}");
        ask(self.server.port(), 5, &target);
    }
}

#[test]
#[ignore = "takes a minute: run `cargo xtask test longer_work_is -- -- --ignored --nocapture`"]
fn longer_work_is_that_of_a_shared_or_throttled_gpu_or_of_the_server() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let servers = [OnGpu::start(), OnGpu::start(), OnGpu::start()];
    let start = Instant::now();
    while start.elapsed() < COMPARED {
        for one in &servers {
            one.report(1, 7);
            one.ask(4);
        }
        thread::sleep(Duration::from_millis(300));
    }
    let [shared, throttled, slower] = &servers;
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let said = await_verdict(&shared.agent, "gpu", "gpu_shared", || {
                shared.report(80, 7);
                shared.ask(40);
            });
            assert!(said.starts_with("GPU shared with pid 4194305: "), "{said}");
        });
        scope.spawn(|| {
            await_verdict(&throttled.agent, "gpu", "gpu_throttled", || {
                let throttled_ns = start.elapsed().as_nanos() as u64 / 2;
                throttled.report(1, 7 + throttled_ns);
                throttled.ask(40);
            });
        });
        scope.spawn(|| {
            await_verdict(&slower.agent, "gpu", "server", || {
                slower.report(1, 7);
                slower.ask(40);
            });
        });
    });
}
