//! Checks which listeners `servers` lists, and what it says of them.

use std::net::TcpListener;

use inferprobe_tests::agent::run::{run_to_end, run_unprivileged_to_end};
use serde_json::Value;

/// Returns the row of the listener on `port`.
fn row(args: &[&str], port: u16) -> Value {
    let args = [&["servers", "--json"], args].concat();
    let ended = run_to_end(&args);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let rows = report["listeners"].as_array().unwrap();
    let row = rows.iter().find(|row| row["port"] == port);
    row.unwrap_or_else(|| panic!("no port {port}: {report:#}"))
        .clone()
}

#[test]
fn a_listener_has_its_process_and_the_option_that_watches_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.port().to_string();
    for (args, why) in [
        (&[][..], "undecided: its first requests decide"),
        (&["--no-discover"], "not recognised"),
    ] {
        let row = row(args, address.port());
        assert_eq!(row["pid"], std::process::id());
        assert_eq!(row["listens"], address.to_string());
        assert_eq!(row["server"], Value::Null);
        assert_eq!(row["why"], why);
        assert_eq!(row["option"], format!("--watch-port {port}"));
    }
    let watched = row(&["--watch-port", &port], address.port());
    assert_eq!(watched["why"], "its port is given");
    assert!(watched["server"].is_string() && watched["option"].is_null());
    let watched = row(&["--watch-exe", "rootless"], address.port());
    assert_eq!(watched["why"], "its command line matches rootless");
}

#[test]
fn what_another_user_cannot_read_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ended = run_unprivileged_to_end(&["servers"]);
    assert_eq!(ended.code, Some(0));
    let place = format!("127.0.0.1:{port}");
    assert!(ended.stdout.contains(&place), "{}", ended.stdout);
    assert!(ended.stdout.contains("run it as root"), "{}", ended.stdout);
}
