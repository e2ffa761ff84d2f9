//! Checks that a failed test keeps the files of its agents, by a test that fails on purpose in another process.

use std::{env, fs, path::PathBuf, process::Command};

use inferprobe_tests::{
    agent::Agent,
    client::{Connection, request},
    require_kernel::require_kernel,
    server::Server,
};

const FAILING: &str = "artifacts::fails_on_purpose";
const PRINTED: &str = "files of the agent: ";

#[test]
fn failed_test_keeps_the_files_of_all_its_agents() {
    // The other process needs the kernel for itself.
    let Some(kernel) = require_kernel() else {
        return;
    };
    drop(kernel);
    let root = tempfile::tempdir().unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", FAILING])
        .env("INFERPROBE_ARTIFACTS_DIR", root.path())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed = printed
        .lines()
        .filter_map(|line| line.strip_prefix(PRINTED));
    let folders: Vec<PathBuf> = printed.map(PathBuf::from).collect();
    let expected = ["agent-1", "agent-2"].map(|name| {
        let of_test = root.path().join(FAILING.replace("::", "."));
        of_test.join(name)
    });
    assert_eq!(folders, expected);
    // The agent that is still running when the test fails is kept first.
    for (folder, model) in folders.iter().zip(["second", "first"]) {
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert!(read("stderr.log").contains(" DEBUG "), "{model}");
        assert!(read("requests.jsonl").contains(model));
        assert!(read("metrics.txt").contains(model));
        let hooks = read("hooks.txt");
        let recv = hooks.lines().find(|line| line.starts_with("recv "));
        assert!(recv.is_some(), "{model}: {hooks:?}");
    }
}

#[test]
#[ignore = "fails on purpose, for failed_test_keeps_the_files_of_all_its_agents"]
fn fails_on_purpose() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let server = Server::start(&[]);
    let ask = |model: &str| {
        let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
        let mut client = Connection::open(&server.place).unwrap();
        let bytes = request("POST", &format!("/predictions/{model}"), &[], b"{}");
        client.exchange(&bytes).unwrap();
        agent.rows(1, |row| row.model == model);
        agent.wait_sum("inferprobe_requests_total", &[("model", model)], 1.0);
        agent
    };
    ask("first").stop();
    let _running = ask("second");
    panic!("on purpose");
}
