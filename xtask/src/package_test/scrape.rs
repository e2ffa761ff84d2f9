//! Checks the scrape configurations with Prometheus' own parser.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::package_test::skip::need;
use crate::tools::helm::Helm;
use crate::tools::prometheus;
use crate::{progress, workspace};

/// Prints the part of the OpenTelemetry Collector's file that is in Prometheus' format, and checks the shape of the rest
/// and of Datadog's file.
const PYTHON: &str = r#"
import sys, yaml
otel = yaml.safe_load(open(sys.argv[1]))
receiver = "prometheus/inferprobe"
pipeline = otel["service"]["pipelines"]["metrics"]
assert pipeline["receivers"] == [receiver], pipeline
assert set(pipeline["exporters"]) <= set(otel["exporters"]), pipeline
datadog = yaml.safe_load(open(sys.argv[2]))
instance, = datadog["instances"]
assert instance["openmetrics_endpoint"] == "http://127.0.0.1:8082/metrics", instance
assert instance["metrics"] and instance["namespace"], instance
# Tags that Datadog gives a meaning of its own, and a limit that a busy host is above.
assert set(instance["exclude_labels"]) == {"Hostname", "hostname"}, instance
assert instance["rename_labels"] == {"version": "model_version"}, instance
assert instance["max_returned_metrics"] > 2000, instance
print(yaml.safe_dump(otel["receivers"][receiver]["config"]))
"#;

/// Runs all checks.
pub(crate) fn test() -> Result<()> {
    let promtool = need(prometheus::ensure())?.join("promtool");
    let helm = need(Helm::ensure())?;
    let folder = workspace::root().join("deploy/scrape");
    let check =
        |file: &Path| progress::check(Command::new(&promtool).args(["check", "config"]).arg(file));
    check(&folder.join("prometheus.yml"))?;
    check(&folder.join("victoriametrics.yml"))?;
    let (config, done) = progress::output(
        helm.python()
            .args(["-c", PYTHON])
            .arg(folder.join("otel-collector.yaml"))
            .arg(folder.join("datadog.yaml")),
    )?;
    ensure!(done, "a configuration has another shape, as shown above");
    let scratch = tempfile::tempdir().context("create a folder for the configuration")?;
    let file = scratch.path().join("otel.yml");
    fs::write(&file, config).context("write the configuration")?;
    check(&file)
}
