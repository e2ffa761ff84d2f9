//! Runs `inferprobe assets`: prints a file that comes with this version, or the list of them.
//!
//! The files are in `deploy/` of the repository, and runbooks in `docs/runbooks/`.
//! Does not depend on: any other module but the command line.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

use crate::{
    cli::AssetsArgs,
    usage::{UsageError, invalid},
};

/// A file that comes with the agent.
#[derive(Debug, PartialEq, Eq)]
pub struct Asset {
    /// What the user asks for.
    pub name: &'static str,
    /// Path in the repository; of several files, their folder.
    pub path: &'static str,
    /// What it is, as a noun phrase.
    pub help: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($name:literal, $path:expr, $help:literal) => {
        Asset {
            name: $name,
            path: $path,
            help: $help,
            text: include_str!(concat!("../../../", $path)),
        }
    };
}

macro_rules! board {
    ($name:literal) => {
        include_str!(concat!("../../../deploy/grafana/", $name, ".json"))
    };
}

macro_rules! runbook {
    ($alert:literal) => {
        asset!(
            $alert,
            concat!("docs/runbooks/", $alert, ".md"),
            "runbook of this alert"
        )
    };
}

/// Every dashboard in one JSON object, by name.
const BOARDS: &str = concat!(
    "{\"torchserve\": ",
    board!("torchserve"),
    ", \"overview\": ",
    board!("overview"),
    ", \"model\": ",
    board!("model"),
    ", \"fleet\": ",
    board!("fleet"),
    ", \"trust\": ",
    board!("trust"),
    "}\n"
);

/// All files, in the order of the list.
pub const ASSETS: &[Asset] = &[
    asset!("unit", "deploy/systemd/inferprobe.service", "systemd unit"),
    asset!(
        "config",
        "deploy/systemd/inferprobe.toml",
        "configuration file, with every key commented out"
    ),
    asset!(
        "kubernetes",
        "deploy/kubernetes/inferprobe.yaml",
        "manifests for Kubernetes, rendered from the Helm chart"
    ),
    asset!(
        "prometheus",
        "deploy/scrape/prometheus.yml",
        "scrape configuration of Prometheus"
    ),
    asset!(
        "alloy",
        "deploy/scrape/alloy.alloy",
        "scrape configuration of Grafana Alloy"
    ),
    asset!(
        "otel-collector",
        "deploy/scrape/otel-collector.yaml",
        "configuration of the OpenTelemetry Collector"
    ),
    asset!(
        "datadog",
        "deploy/scrape/datadog.yaml",
        "configuration of the Datadog Agent's OpenMetrics check"
    ),
    asset!(
        "victoriametrics",
        "deploy/scrape/victoriametrics.yml",
        "scrape configuration of VictoriaMetrics and vmagent"
    ),
    asset!(
        "alerts",
        "deploy/prometheus/inferprobe.rules.yml",
        "recording and alert rules for Prometheus"
    ),
    Asset {
        name: "grafana",
        path: "deploy/grafana",
        help: "all Grafana dashboards in one JSON object, by name",
        text: BOARDS,
    },
    asset!(
        "grafana-torchserve",
        "deploy/grafana/torchserve.json",
        "Grafana dashboard: TorchServe's four"
    ),
    asset!(
        "grafana-overview",
        "deploy/grafana/overview.json",
        "Grafana dashboard: all servers and models"
    ),
    asset!(
        "grafana-model",
        "deploy/grafana/model.json",
        "Grafana dashboard: one model"
    ),
    asset!(
        "grafana-fleet",
        "deploy/grafana/fleet.json",
        "Grafana dashboard: many hosts and pods"
    ),
    asset!(
        "grafana-trust",
        "deploy/grafana/trust.json",
        "Grafana dashboard: coverage, losses and cost"
    ),
    runbook!("InferprobeAgentDown"),
    runbook!("InferprobeProbesDown"),
    runbook!("InferprobeCoverageLow"),
    runbook!("InferprobeLosses"),
    runbook!("InferprobeRequestsStopped"),
    runbook!("InferprobeErrors"),
    runbook!("InferprobeClientsLeave"),
    runbook!("InferprobeSlow"),
    runbook!("InferprobeQueueing"),
    runbook!("InferprobeFirstTokenSlow"),
    runbook!("InferprobeStarved"),
];

/// A checked command: what to print.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// The list of files.
    List,
    /// One of them.
    One(&'static Asset),
}

impl Request {
    /// Checks the command line.
    pub fn check(args: &AssetsArgs) -> Result<Self, UsageError> {
        let Some(name) = &args.name else {
            return Ok(Self::List);
        };
        match ASSETS.iter().find(|asset| asset.name == name) {
            Some(asset) => Ok(Self::One(asset)),
            None => Err(invalid(
                "NAME",
                name,
                "no such file; `inferprobe assets` lists them".into(),
            )),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::One(asset) => asset.text.to_owned(),
            Self::List => ASSETS
                .iter()
                .map(|asset| format!("{:26} {}\n", asset.name, asset.help))
                .collect(),
        }
    }
}

/// Prints what was asked for.
#[expect(
    clippy::needless_pass_by_value,
    reason = "`main` passes every checked command by value"
)]
pub fn run(request: Request) -> Result<()> {
    write!(io::stdout(), "{}", request.text()).context("print the file")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    fn check(name: Option<&str>) -> Result<Request, UsageError> {
        Request::check(&AssetsArgs {
            name: name.map(str::to_owned),
        })
    }

    #[test]
    fn every_file_of_deploy_that_stands_alone_is_an_asset() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = BTreeSet::from(["deploy/grafana".to_owned()]);
        for folder in [
            "deploy/systemd",
            "deploy/kubernetes",
            "deploy/scrape",
            "deploy/prometheus",
            "deploy/grafana",
            "docs/runbooks",
        ] {
            for entry in fs::read_dir(root.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                files.insert(format!("{folder}/{name}"));
            }
        }
        let assets: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(files, assets);
        let names: BTreeSet<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        assert_eq!(names.len(), ASSETS.len());
    }

    #[test]
    fn a_name_prints_its_file_and_no_name_the_list() {
        for asset in ASSETS {
            let request = check(Some(asset.name)).unwrap();
            assert_eq!(request, Request::One(asset));
            assert!(request.text().ends_with('\n'), "{}", asset.name);
        }
        let list = check(None).unwrap().text();
        assert_eq!(list.lines().count(), ASSETS.len());
        assert!(
            list.starts_with("unit                       systemd unit\n"),
            "{list}"
        );
    }

    #[test]
    fn all_dashboards_are_one_json_object() {
        let boards: serde_json::Value = serde_json::from_str(BOARDS).unwrap();
        let names: Vec<&String> = boards.as_object().unwrap().keys().collect();
        let mut expected: Vec<&str> = ASSETS
            .iter()
            .filter_map(|asset| asset.name.strip_prefix("grafana-"))
            .collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for (name, board) in boards.as_object().unwrap() {
            let asset = format!("grafana-{name}");
            let asset = ASSETS.iter().find(|one| one.name == asset).unwrap();
            assert_eq!(
                *board,
                serde_json::from_str::<serde_json::Value>(asset.text).unwrap()
            );
        }
    }

    #[test]
    fn every_alert_has_a_runbook_which_its_annotation_names() {
        let rules = ASSETS.iter().find(|asset| asset.name == "alerts").unwrap();
        let words = |start: &str| -> Vec<&str> {
            let lines = rules.text.lines().map(str::trim);
            lines.filter_map(|line| line.strip_prefix(start)).collect()
        };
        let alerts = words("- alert: ");
        assert_eq!(alerts, words("runbook: inferprobe assets "));
        let runbooks: Vec<&str> = ASSETS
            .iter()
            .filter(|asset| asset.path.starts_with("docs/runbooks/"))
            .map(|asset| asset.name)
            .collect();
        assert_eq!(alerts, runbooks);
    }

    #[test]
    fn an_unknown_name_is_a_usage_error() {
        let err = check(Some("grafna")).unwrap_err().to_string();
        assert!(
            err.contains("grafna") && err.contains("inferprobe assets"),
            "{err}"
        );
    }

    #[test]
    fn the_packaged_configuration_is_accepted_with_its_examples() {
        let file = ASSETS.iter().find(|asset| asset.name == "config").unwrap();
        let examples: String = file
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| line.contains(" = ") || line.starts_with('['))
            .map(|line| format!("{line}\n"))
            .collect();
        let parsed: toml::Table = toml::from_str(&examples).unwrap();
        assert!(parsed.contains_key("watch") && parsed.contains_key("request_log"));
    }
}
