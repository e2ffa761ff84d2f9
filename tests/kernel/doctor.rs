//! Checks what `doctor` reports of this host, with and without each capability, and that it leaves nothing in the
//! kernel.

use std::{process::Command, time::Duration};

use inferprobe_tests::{
    agent::{
        Agent,
        run::{run_through_to_end, run_to_end},
    },
    bpf_ids,
    clock::wait_for,
    doctor::{Report, report},
    process::OWN_PROCFS,
    require_kernel::{require_kernel, skip_always},
};

const JSON: [&str; 2] = ["doctor", "--json"];
/// Longest time until the kernel has freed the objects of an ended process.
const FREED_LIMIT: Duration = Duration::from_secs(10);

/// Returns the report of the tests' own user, who may attach the probes.
fn of_this_host() -> Report {
    let report = report(&run_to_end(&JSON));
    assert_eq!(report.probes.refusal, None);
    assert_eq!(report.probes.self_test.state, "passed");
    report
}

/// Returns the report of the user `nobody` with only `capabilities`, as `setpriv` names them.
fn as_nobody_with(capabilities: &str) -> Report {
    let set = format!("-all,{capabilities}");
    let through = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps",
        &set,
        "--ambient-caps",
        &set,
    ];
    report(&run_through_to_end(&through, &JSON))
}

/// Asserts that nothing can be measured, only because `capability` is missing.
fn assert_lacks(report: &Report, capability: &str) {
    let all = report.missing.iter();
    let all = all.filter(|loss| loss.severity == "everything");
    let why: Vec<&str> = all.map(|loss| &*loss.why).collect();
    assert_eq!(why, [format!("{capability} is missing")], "{report:#?}");
    let refusal = report.probes.refusal.as_deref().unwrap_or_default();
    assert!(refusal.contains(capability), "{refusal}");
    assert_eq!(report.outcome, "nothing");
}

#[test]
fn table_has_every_section_and_agrees_with_the_json() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let report = of_this_host();
    let ended = run_to_end(&["doctor"]);
    assert_eq!(ended.stderr, "");
    let sections: Vec<&str> = ended.stdout.split("\n\n").collect();
    let [title, host, hooks, missing, outcome] = sections[..] else {
        panic!("{sections:#?}");
    };
    assert_eq!(title, format!("inferprobe {}", report.version));
    for (name, value) in [
        ("kernel", &report.host.kernel),
        ("architecture", &report.host.architecture),
    ] {
        let row = format!("\n  {name:18}{value}\n");
        assert!(host.contains(&row), "lacks {row:?}: {host}");
    }
    assert!(host.starts_with("Host\n"), "{host}");
    let rows: Vec<Vec<&str>> = hooks
        .lines()
        .filter(|line| !line.starts_with("   "))
        .map(|line| line.split_whitespace().take(2).collect())
        .collect();
    let mut expected = vec![vec!["Hooks"]];
    for hook in &report.probes.hooks {
        expected.push(vec![&hook.hook, &hook.kind]);
    }
    expected.push(vec!["self-test", "passed"]);
    assert_eq!(rows, expected);
    let remedies = missing.matches("\n    remedy").count();
    assert_eq!(remedies, report.missing.len(), "{missing}");
    let code = ended.code.expect("it ends by itself");
    assert!(
        outcome.ends_with(&format!("(exit code {code}).\n")),
        "{outcome}"
    );
    assert_eq!(ended.code, run_to_end(&JSON).code);
}

#[test]
fn run_leaves_nothing_in_the_kernel() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let before = bpf_ids::all();
    of_this_host();
    wait_for("all that it loaded to be freed", FREED_LIMIT, || {
        let after = bpf_ids::all();
        let is_old = |id: &bpf_ids::BpfId| before.contains(id);
        after.iter().all(is_old).then_some(())
    });
}

#[test]
fn run_beside_an_agent_reports_the_same_hooks() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let agent = Agent::start(&["--demo"]);
    let held = bpf_ids::held_by(agent.pid());
    let all = bpf_ids::all();
    assert!(!held.is_empty() && held.iter().all(|id| all.contains(id)));
    let report = of_this_host();
    assert_eq!(bpf_ids::held_by(agent.pid()), held);
    let metrics = agent.metrics();
    for hook in &report.probes.hooks {
        let labels = [("hook", hook.hook.as_str()), ("kind", hook.kind.as_str())];
        assert_eq!(
            metrics.sum("inferprobe_hook_info", &labels),
            1.0,
            "{hook:?}"
        );
    }
    let count = metrics.samples("inferprobe_hook_info", &[]).count();
    assert_eq!(count, report.probes.hooks.len());
    let said = agent.errors();
    let chosen: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("probes attached"))
        .collect();
    let [line] = chosen[..] else {
        panic!("{said}");
    };
    for hook in &report.probes.hooks {
        assert!(line.contains(&hook.hook), "{line} lacks {}", hook.hook);
    }
    agent.stop();
}

#[test]
fn root_without_one_capability_gets_its_name() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    for (dropped, capability) in [("-bpf", "CAP_BPF"), ("-perfmon", "CAP_PERFMON")] {
        // CAP_SYS_ADMIN includes both.
        let bounding = format!("-sys_admin,{dropped}");
        let through = ["setpriv", "--bounding-set", &bounding];
        let report = report(&run_through_to_end(&through, &JSON));
        assert_lacks(&report, capability);
    }
}

#[test]
fn another_user_needs_two_capabilities_and_two_more_for_other_users_models() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    assert_lacks(&as_nobody_with("+perfmon"), "CAP_BPF");
    assert_lacks(&as_nobody_with("+bpf"), "CAP_PERFMON");
    for (held, lacking) in [
        (
            "+bpf,+perfmon",
            "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH are missing",
        ),
        (
            "+bpf,+perfmon,+dac_read_search",
            "CAP_SYS_PTRACE is missing",
        ),
        (
            "+bpf,+perfmon,+sys_ptrace",
            "CAP_DAC_READ_SEARCH is missing",
        ),
    ] {
        let report = as_nobody_with(held);
        assert_eq!(report.probes.self_test.state, "passed", "{held}");
        assert_eq!(report.outcome, "some", "{held}");
        let mut losses = report.missing.iter();
        let named = losses.any(|loss| loss.severity == "some" && loss.why == lacking);
        assert!(named, "{held}: {report:#?}");
    }
    let whole = as_nobody_with("+bpf,+perfmon,+sys_ptrace,+dac_read_search");
    let expected = [
        "CAP_DAC_READ_SEARCH",
        "CAP_SYS_PTRACE",
        "CAP_PERFMON",
        "CAP_BPF",
    ];
    assert_eq!(whole.host.capabilities, expected);
    let by_root = of_this_host();
    assert_eq!(whole.probes, by_root.probes);
    assert_eq!(whole.missing, by_root.missing);
}

#[test]
fn nested_namespaces_are_reported() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let unshare = ["unshare", "--pid", "--fork"];
    for (through, expected) in [
        ([&unshare[..], &OWN_PROCFS].concat(), "nested"),
        (unshare.to_vec(), "nested_with_outer_proc"),
    ] {
        let report = report(&run_through_to_end(&through, &JSON));
        assert_eq!(report.host.pid_namespace, expected);
        assert_eq!(report.probes.self_test.state, "passed");
        let mut losses = report.missing.iter();
        assert!(
            losses.any(|loss| loss.remedy.contains("--pid=host")),
            "{report:#?}"
        );
    }
}

#[test]
fn nested_user_namespace_is_reported() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let through = ["unshare", "--user", "--map-root-user"];
    let [unshare, options @ ..] = through;
    let mut probe = Command::new(unshare);
    if !probe.args(options).arg("true").status().unwrap().success() {
        skip_always("user namespaces cannot be created here, as in a chroot");
        return;
    }
    let report = report(&run_through_to_end(&through, &JSON));
    assert_eq!(report.host.user_namespace, "nested");
    let [first, ..] = &report.missing[..] else {
        panic!("{report:#?}");
    };
    assert_eq!(first.severity, "everything");
    assert!(first.why.contains("user namespace"), "{first:?}");
}
