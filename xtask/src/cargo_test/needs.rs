//! What each test needs beside its own program, and bringing it in.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;

use crate::build;
use crate::cargo_test::targets::Target;
use crate::tools::{llama, prometheus, python_servers, tmux, torchserve, vllm};

/// Something that tests need and that takes time to build or fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// The agent's release binary, with the eBPF programs.
    Agent,
    Prometheus,
    TorchServe,
    /// uvicorn, gunicorn, hypercorn and gRPC.
    PythonServers,
    Tmux,
    /// vLLM, which is so large that only `compare` fetches it.
    Vllm,
    /// llama.cpp's server, which only `compare` fetches.
    Llama,
}

use Need::{Agent, Llama, Prometheus, PythonServers, Tmux, TorchServe, Vllm};

/// The package whose integration tests start an agent; the tests of other packages need nothing.
const PACKAGE: &str = "inferprobe-tests";

/// What an integration test of [`PACKAGE`] needs if its target or module contains the word: all rows that match count.
const TABLE: [(&str, &[Need]); 10] = [
    ("terminal", &[Agent, Tmux]),
    ("reference", &[]),
    ("prometheus", &[Agent, Prometheus, TorchServe]),
    ("torchserve", &[Agent, TorchServe]),
    ("server_cases", &[Agent, PythonServers]),
    ("grpc", &[Agent, PythonServers]),
    ("upgrade", &[Agent, PythonServers]),
    ("tls", &[Agent, PythonServers]),
    ("starved", &[Agent, PythonServers]),
    ("verdicts", &[Agent, PythonServers]),
];
/// What any other integration test of [`PACKAGE`] needs.
const DEFAULT: &[Need] = &[Agent];

/// Returns what the tests of `targets` that `filters` select need.
pub(crate) fn of(targets: &[Target], filters: &[String]) -> BTreeSet<Need> {
    let tests = targets
        .iter()
        .filter(|target| target.package == PACKAGE && target.is_integration());
    tests
        .flat_map(|target| {
            let modules = target.modules(filters).into_iter();
            modules.flat_map(|module| of_test(&target.name, module))
        })
        .collect()
}

fn of_test(target: &str, module: &str) -> BTreeSet<Need> {
    let rows = TABLE
        .iter()
        .filter(|(word, _)| target.contains(word) || module.contains(word));
    let matching: Vec<&[Need]> = rows.map(|(_, needs)| *needs).collect();
    let needs = if matching.is_empty() {
        DEFAULT.to_vec()
    } else {
        matching.concat()
    };
    needs.into_iter().collect()
}

impl Need {
    /// What all tests need but those that only `compare` runs.
    pub(crate) const ALL: [Self; 5] = [Agent, Prometheus, TorchServe, PythonServers, Tmux];

    /// The variable that names its place to the tests.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Agent => build::AGENT_ENV,
            Prometheus => "INFERPROBE_PROMETHEUS_DIR",
            TorchServe => "INFERPROBE_TORCHSERVE_DIR",
            PythonServers => "INFERPROBE_SERVERS_DIR",
            Tmux => "INFERPROBE_TMUX",
            Vllm => "INFERPROBE_VLLM_DIR",
            Llama => "INFERPROBE_LLAMA_DIR",
        }
    }

    /// Builds or fetches it if it is missing; returns its place.
    pub(crate) fn ensure(self) -> Result<PathBuf> {
        match self {
            Agent => build::agent(),
            Prometheus => prometheus::ensure(),
            TorchServe => torchserve::ensure(),
            PythonServers => python_servers::ensure(),
            Tmux => tmux::ensure(),
            Vllm => vllm::ensure(),
            Llama => llama::ensure(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_follow_from_target_and_module() {
        for (target, module, expected) in [
            ("kernel", "unix", &[Agent][..]),
            ("rootless", "reference_server", &[]),
            ("rootless", "terminal", &[Agent, Tmux]),
            ("kernel", "grpc::calls", &[Agent, PythonServers]),
            ("torchserve", "times", &[Agent, TorchServe]),
            ("prometheus", "", &[Agent, Prometheus, TorchServe]),
        ] {
            let needs: Vec<Need> = of_test(target, module).into_iter().collect();
            assert_eq!(needs, expected, "{target}::{module}");
        }
    }
}
