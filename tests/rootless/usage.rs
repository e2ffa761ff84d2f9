//! Checks how the agent reports what it cannot do, and what it serves without probes.

use std::{net::TcpListener, path::Path};

use inferprobe_tests::{
    agent::{
        Agent, free_port,
        run::{Ended, run_to_end, run_unprivileged_to_end},
    },
    exposition::Exposition,
};

const USAGE: i32 = 2;
const ENVIRONMENT: i32 = 1;

/// Runs the agent to its end. It must fail with `code` and one line on standard error that contains all of `parts`.
fn assert_refused(args: &[&str], code: i32, parts: &[&str]) {
    assert_explained(&run_to_end(args), args, code, parts);
}

fn assert_explained(ended: &Ended, args: &[&str], code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
    let message = ended.stderr.trim_end();
    assert!(
        !message.is_empty() && !message.contains('\n'),
        "{args:?}: {message}"
    );
    for part in parts {
        assert!(
            message.contains(part),
            "{args:?}: {message:?} lacks {part:?}"
        );
    }
    assert_eq!(ended.stdout, "", "{args:?}");
}

fn config_file(folder: &Path, text: &str) -> String {
    let path = folder.join("inferprobe.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn missing_capability_ends_with_1() {
    let listen = format!("127.0.0.1:{}", free_port());
    let args = ["--listen", &listen];
    let ended = run_unprivileged_to_end(&args);
    assert_explained(&ended, &args, ENVIRONMENT, &["CAP_BPF", "--no-probes"]);
}

#[test]
fn bad_value_ends_with_2() {
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["--listen", "localhost"],
            &["--listen", "localhost", "127.0.0.1:8082"],
        ),
        (
            &["--watch-port", "70000"],
            &["--watch-port", "70000", "65535"],
        ),
        (
            &["--watch-exe", "a("],
            &["--watch-exe", "a(", "regular expression"],
        ),
        (
            &["--refresh-interval", "0"],
            &["--refresh-interval", "3600"],
        ),
        (
            &["--config", "/no/such/file"],
            &["--config", "/no/such/file", "TOML"],
        ),
    ];
    for (args, parts) in cases {
        assert_refused(&[&["serve", "--no-probes"], args].concat(), USAGE, parts);
    }
}

#[test]
fn bad_file_ends_with_2_and_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (text, parts) in [
        ("\nlisen = \"x\"\n", [":2:", "lisen"]),
        ("[[watch]]\nport = 1\nexe = \"a\"\n", ["port", "exe"]),
        (
            "[[watch]]\nexe = \"(\"\n",
            ["watch.exe", "regular expression"],
        ),
    ] {
        let file = config_file(folder.path(), text);
        assert_refused(&["serve", "--config", &file], USAGE, &parts);
    }
}

#[test]
fn bad_torchserve_property_ends_with_2_and_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.properties");
    let path = file.to_str().unwrap();
    for (text, parts) in [
        (
            "# TorchServe's\nmetrics_mode=foo\n",
            [":2: metrics_mode \"foo\"", "log, prometheus or legacy"],
        ),
        (
            "metrics_address=http://127.0.0.1:9082\n",
            ["http://127.0.0.1:9082", "enable_metrics_api=false"],
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        assert_refused(
            &["serve", "--ts-config", path],
            USAGE,
            &[&[path], parts.as_slice()].concat(),
        );
    }
    let args = ["serve", "--ts-config", "/no/such/file"];
    assert_refused(
        &args,
        USAGE,
        &["--ts-config /no/such/file", "config.properties"],
    );
}

#[test]
fn agent_listens_on_the_metrics_address_of_torchserve() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.properties");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = format!("enable_metrics_api=false\nmetrics_address=http://{address}\n");
    std::fs::write(&file, text).unwrap();
    let args = [
        "serve",
        "--no-probes",
        "--ts-config",
        file.to_str().unwrap(),
    ];
    assert_refused(&args, ENVIRONMENT, &[&address]);
}

#[test]
fn unknown_flag_ends_with_2_and_a_hint() {
    let ended = run_to_end(&["serve", "--no-such-flag"]);
    assert_eq!(ended.code, Some(USAGE));
    assert!(ended.stderr.contains("--no-such-flag"), "{ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

#[test]
fn help_and_version_succeed() {
    for (flag, part) in [("--help", "--watch-port"), ("--version", "inferprobe ")] {
        let ended = run_to_end(&[flag]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert!(ended.stdout.contains(part), "{ended:?}");
    }
}

#[test]
fn port_in_use_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["serve", "--no-probes", "--listen", &address];
    assert_refused(&args, ENVIRONMENT, &[&address, "--listen"]);
}

#[test]
fn unwritable_request_log_ends_with_1() {
    let args = ["serve", "--no-probes", "--listen", "127.0.0.1:0"];
    let log = ["--request-log", "/no/such/folder/log"];
    let args = [args.as_slice(), &log].concat();
    assert_refused(&args, ENVIRONMENT, &["/no/such/folder/log"]);
}

/// Waits for the first values of memory and disk: each has its own thread.
fn await_host_metrics(agent: &Agent) {
    for name in ["MemoryUsed", "DiskUsage"] {
        agent.wait_sum(name, &[("Level", "Host")], f64::MIN_POSITIVE);
    }
}

#[test]
fn host_metrics_are_served_without_probes() {
    let agent = Agent::start(&["--no-probes"]);
    await_host_metrics(&agent);
    for name in [
        "MemoryUsed",
        "MemoryAvailable",
        "MemoryUtilization",
        "DiskUsage",
        "DiskAvailable",
        "DiskUtilization",
    ] {
        let metrics = agent.metrics();
        let host: Vec<_> = metrics.samples(name, &[("Level", "Host")]).collect();
        assert_eq!(host.len(), 1, "{name}");
        assert!(host[0].value > 0.0, "{name}");
    }
    // A share of time needs a whole interval.
    agent.wait_sum("CPUUtilization", &[("Level", "Host")], 0.0);
    let metrics = agent.metrics();
    assert!((0.0..=100.0).contains(&metrics.sum("CPUUtilization", &[])));
    for family in ["HandlerTime", "QueueTime", "inferprobe_requests_total"] {
        assert!(metrics.family(family).is_some(), "{family}");
    }
    agent.stop();
}

#[test]
fn names_in_the_query_choose_the_families() {
    let agent = Agent::start(&["--no-probes"]);
    await_host_metrics(&agent);
    let names = |query: &str| -> Vec<String> {
        let (status, text) = agent.get(&format!("/metrics?{query}"));
        assert_eq!(status, 200, "{query}");
        let page = Exposition::parse(&text).unwrap();
        page.families.into_iter().map(|f| f.name).collect()
    };
    assert_eq!(names("name[]=MemoryUsed"), ["MemoryUsed"]);
    assert_eq!(names("name%5B%5D=DiskUsage"), ["DiskUsage"]);
    assert!(names("name[]=NoSuchFamily").is_empty());
    assert!(names("").len() > 21);
    assert_eq!(agent.get("/nothing").0, 404);
    agent.stop();
}
