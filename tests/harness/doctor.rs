//! Parses the JSON of `inferprobe doctor`, and checks its exit code.

use serde::Deserialize;

use crate::agent::run::Ended;

/// The part of the JSON that tests read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// Version of the agent.
    pub version: String,
    /// The host.
    pub host: Host,
    /// GPUs.
    pub gpus: Gpus,
    /// Hooks and self-test.
    pub probes: Probes,
    /// What will be missing.
    pub missing: Vec<Loss>,
    /// `all`, `some` or `nothing`.
    pub outcome: String,
}

/// Facts of the host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Host {
    /// Release of the kernel.
    pub kernel: String,
    /// Machine.
    pub architecture: String,
    /// Capabilities by name.
    pub capabilities: Vec<String>,
    /// `host` or `nested`.
    pub user_namespace: String,
    /// `host`, `nested` or `nested_with_outer_proc`.
    pub pid_namespace: String,
}

/// Facts of GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Gpus {
    /// Whether this host has one.
    pub present: bool,
}

/// Outcome of attaching the probes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Probes {
    /// Why they are not attached; `None` if they are.
    pub refusal: Option<String>,
    /// Each hook.
    pub hooks: Vec<Hook>,
    /// Outcome of the self-test.
    pub self_test: SelfTest,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hook {
    /// Name.
    pub hook: String,
    /// Program type, or `none`.
    pub kind: String,
}

/// Outcome of the self-test.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SelfTest {
    /// `passed`, `failed` or `not_run`.
    pub state: String,
}

/// One thing that will be missing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Loss {
    /// `everything`, `some` or `option`.
    pub severity: String,
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// Remedy.
    pub remedy: String,
}

/// Returns the JSON of a run.
///
/// # Panics
/// If it wrote anything else, or its exit code does not match its outcome.
pub fn report(ended: &Ended) -> Report {
    assert_eq!(ended.stderr, "", "{ended:?}");
    let report: Report = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|err| panic!("doctor --json: {err}: {ended:?}"));
    let code = match report.outcome.as_str() {
        "all" => 0,
        "some" => 1,
        "nothing" => 2,
        other => panic!("unknown outcome {other}"),
    };
    assert_eq!(ended.code, Some(code), "{report:#?}");
    report
}
