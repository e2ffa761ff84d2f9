//! Changes the configuration of a running agent: by replacing the file, and by SIGHUP.

use std::{fs, path::Path, time::Duration};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    clock::wait_for,
    require_kernel::require_kernel,
    server::Server,
};
use rustix::process::{Pid, Signal, kill_process};

const REQUESTS: &str = "inferprobe_requests_total";
const SUCCESSFUL: &str = "inferprobe_config_last_reload_successful";
const AT: &str = "inferprobe_config_last_reload_success_timestamp_seconds";
/// Longest wait for a change to take effect.
const PATIENCE: Duration = Duration::from_secs(10);

fn ask(server: &Server) {
    let mut client = Connection::open(&server.place).unwrap();
    let bytes = request("POST", "/predictions/m", &[], b"{}");
    assert_eq!(client.exchange(&bytes).unwrap().1.status, 200);
}

/// Replaces a file, as editors and Kubernetes do.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, file).unwrap();
}

fn watch(server: &Server, name: &str) -> String {
    format!("[[watch]]\nport = {}\nserver = \"{name}\"\n", server.port())
}

fn counted(agent: &Agent, server: &str) -> f64 {
    agent.metrics().sum(REQUESTS, &[("server", server)])
}

/// Waits until the configuration was read again.
fn await_reload(agent: &Agent, before: f64) {
    wait_for("another configuration", PATIENCE, || {
        (agent.metrics().sum(AT, &[]) > before).then_some(())
    });
    assert_eq!(agent.metrics().sum(SUCCESSFUL, &[]), 1.0);
}

#[test]
fn another_file_changes_what_is_watched_and_loses_no_counter() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inferprobe.toml");
    let (first, second) = (Server::start(&[]), Server::start(&[]));
    fs::write(&file, watch(&first, "first")).unwrap();
    let agent = Agent::start(&["--config", file.to_str().unwrap()]);
    ask(&first);
    ask(&second);
    agent.wait_sum(REQUESTS, &[("server", "first")], 1.0);
    let started = agent.metrics().sum(AT, &[]);
    assert_eq!(agent.metrics().sum(SUCCESSFUL, &[]), 1.0);

    replace(
        &file,
        &(format!("no_labels = [\"port\"]\n{}", watch(&second, "second"))),
    );
    await_reload(&agent, started);
    wait_for("the second server is measured", PATIENCE, || {
        ask(&second);
        (counted(&agent, "second") > 0.0).then_some(())
    });
    ask(&first);
    ask(&second);
    let least = counted(&agent, "second");
    agent.wait_sum(REQUESTS, &[("server", "second"), ("port", "")], least);
    assert_eq!(
        counted(&agent, "first"),
        1.0,
        "not watched any more, and not forgotten"
    );

    let reloaded = agent.metrics().sum(AT, &[]);
    replace(&file, "watch = 3\n");
    wait_for("a bad file is refused", PATIENCE, || {
        (agent.metrics().sum(SUCCESSFUL, &[]) == 0.0).then_some(())
    });
    assert_eq!(agent.metrics().sum(AT, &[]), reloaded);
    assert!(
        agent.errors().contains("configuration not reloaded"),
        "{}",
        agent.errors()
    );
    let before = counted(&agent, "second");
    ask(&second);
    agent.wait_sum(REQUESTS, &[("server", "second")], before + 1.0);

    let text = format!(
        "log_level = \"warn\"\nlisten = \"127.0.0.1:1\"\n{}",
        watch(&first, "first")
    );
    replace(&file, &text);
    await_reload(&agent, reloaded);
    wait_for("the first server is measured again", PATIENCE, || {
        ask(&first);
        (counted(&agent, "first") > 1.0).then_some(())
    });
    assert_eq!(counted(&agent, "second"), before + 1.0);
    agent.stop();
}

#[test]
fn a_hang_up_has_the_file_read_again() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inferprobe.toml");
    let server = Server::start(&[]);
    fs::write(&file, watch(&server, "one")).unwrap();
    let agent = Agent::start(&["--config", file.to_str().unwrap()]);
    let started = agent.metrics().sum(AT, &[]);
    let pid = Pid::from_raw(agent.pid().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    await_reload(&agent, started);
    ask(&server);
    agent.wait_sum(REQUESTS, &[("server", "one")], 1.0);
    agent.stop();
}
