//! Checks what `top`, `why`, `record` and `view` print without a terminal, and how they report what they cannot do.

use std::fs;

use inferprobe_tests::agent::{Agent, free_port, run::run_to_end};

/// Runs a command that must fail with `code` and one line that contains all of `parts`.
fn assert_refused(args: &[&str], code: i32, parts: &[&str]) {
    let ended = run_to_end(args);
    assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
    assert_eq!(ended.stdout, "", "{args:?}");
    let message = ended.stderr.trim_end();
    assert!(!message.contains('\n'), "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: {message}");
    }
}

#[test]
fn demo_needs_no_agent_and_no_terminal() {
    for view in ["waterfall", "requests", "heat", "gpu"] {
        let text = run_to_end(&["top", "--demo", "--view", view]);
        assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""), "{view}");
        assert!(text.stdout.starts_with("inferprobe  "), "{}", text.stdout);
        assert!(!text.stdout.contains('\u{1b}'), "{}", text.stdout);
    }
    let text = run_to_end(&["top", "--demo"]).stdout;
    for part in ["ranker", "resnet", "WHERE A REQUEST WAITED"] {
        assert!(text.contains(part), "{text}");
    }
    let json = run_to_end(&["top", "--demo", "--json", "--filter", "ranker"]);
    let live: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let models = live["models"].as_array().unwrap();
    assert_eq!(models.len(), 1);
    assert_eq!(models[0]["served"]["model"], "ranker");
    assert_eq!(models[0]["verdict"]["cause"], "readers_busy");
}

#[test]
fn an_agent_that_measures_nothing_is_shown_as_that() {
    let agent = Agent::start(&["--no-probes"]);
    let address = format!("127.0.0.1:{}", agent.port);
    let text = run_to_end(&["top", &address, "--once"]);
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""));
    assert!(
        text.stdout.contains("the probes are switched off"),
        "{}",
        text.stdout
    );
    let none = "no inference request has ended yet";
    assert_refused(&["why", "--url", &address], 1, &[none]);
    let recorded = run_to_end(&["record", "1s", "--url", &address]);
    assert_eq!(recorded.code, Some(0), "{}", recorded.stderr);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recorded.jsonl");
    fs::write(&path, &recorded.stdout).unwrap();
    let text = run_to_end(&["view", path.to_str().unwrap()]);
    assert!(
        text.stdout.contains("the probes are switched off"),
        "{}",
        text.stdout
    );
}

#[test]
fn what_is_no_agent_is_refused_with_the_remedy() {
    let nowhere = format!("127.0.0.1:{}", free_port());
    for command in [
        &["top", &nowhere][..],
        &["why", "--url", &nowhere],
        &["record", "1s", "--url", &nowhere],
    ] {
        assert_refused(
            command,
            1,
            &[&nowhere, "cannot connect", "inferprobe top --demo"],
        );
    }
    assert_refused(&["top", "https://gpu-07"], 2, &["ssh://USER@HOST"]);
    assert_refused(&["top", "ssh://-oProxyCommand=x"], 2, &["ssh://USER@HOST"]);
    assert_refused(&["record", "10", "--url", &nowhere], 2, &["TIME", "10m"]);
    assert_refused(&["view", "/no/such/file"], 1, &["/no/such/file"]);
    assert_refused(&["view", "/etc/passwd"], 1, &["inferprobe record"]);
}
