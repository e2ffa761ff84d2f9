//! Checks what `doctor` reports if the agent may not load programs, and of a bad command line.

use inferprobe_tests::{
    agent::{
        ATTACH_MODE,
        run::{run_to_end, run_unprivileged_to_end},
    },
    doctor::report,
};

#[test]
fn missing_capabilities_end_with_2() {
    let report = report(&run_unprivileged_to_end(&["doctor", "--json"]));
    assert_eq!(report.outcome, "nothing");
    assert_eq!(report.probes.self_test.state, "not_run");
    for capability in ["CAP_BPF", "CAP_PERFMON"] {
        let why = format!("{capability} is missing");
        let mut losses = report.missing.iter().filter(|loss| loss.why == why);
        let loss = losses.next();
        let loss = loss.unwrap_or_else(|| panic!("no {why}: {report:#?}"));
        assert_eq!(loss.severity, "everything");
        assert!(loss.remedy.contains(capability), "{loss:?}");
    }
}

#[test]
fn table_without_privilege_has_every_section() {
    let ended = run_unprivileged_to_end(&["doctor"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), ""));
    for part in [
        "\nHost\n",
        "\nHooks\n",
        "  self-test         not run\n",
        "\nWhat will be missing\n",
        "    why      CAP_BPF is missing\n",
        "    why      CAP_PERFMON is missing\n",
        "\nNo request can be measured (exit code 2).\n",
    ] {
        assert!(ended.stdout.contains(part), "lacks {part:?}: {ended:?}");
    }
}

#[test]
fn unloadable_nvml_library_is_reported() {
    let library = "/no/such/libnvidia-ml.so";
    let args = ["doctor", "--json", "--nvml-library", library];
    let report = report(&run_unprivileged_to_end(&args));
    let loss = report
        .missing
        .iter()
        .find(|loss| loss.why.contains(library));
    let loss = loss.unwrap_or_else(|| panic!("{library} is not named: {report:#?}"));
    assert!(loss.what.contains("GPUUtilization"), "{loss:?}");
    assert!(loss.remedy.contains("--nvml-library"), "{loss:?}");
}

#[test]
fn unknown_attach_mode_ends_with_2() {
    let ended = run_to_end(&["doctor", ATTACH_MODE, "uprobe"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    for part in [
        ATTACH_MODE,
        "uprobe",
        "tracepoint, fentry, kprobe or syscall",
    ] {
        assert!(ended.stderr.contains(part), "{ended:?}");
    }
}
