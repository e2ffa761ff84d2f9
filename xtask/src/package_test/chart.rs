//! Checks the Helm chart, and the manifests rendered from it, against Kubernetes' own schemas.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::dist::parts::VERSION;
use crate::package_test::skip::need;
use crate::tools::helm::Helm;
use crate::{progress, workspace};

const CHART: &str = "deploy/helm/inferprobe";
/// The manifests for those without Helm, which are rendered with the chart's own values.
const MANIFESTS: &str = "deploy/kubernetes/inferprobe.yaml";
/// Set to any value, has the test write the manifests instead of comparing them.
const UPDATE_ENV: &str = "UPDATE_GOLDEN";
const HEAD: &str = "# inferprobe on every GPU node, rendered from the Helm chart in deploy/helm with its default values.\n\
    # Replace the image by the one that you pushed. The API server must be 1.30 or later, or remove appArmorProfile.\n\
    apiVersion: v1\nkind: Namespace\nmetadata:\n  name: inferprobe\n  labels:\n    \
    # hostPID, capabilities and hostPaths are allowed in no other level.\n    \
    pod-security.kubernetes.io/enforce: privileged\n";

/// Versions of Kubernetes, and the values that the chart is rendered with.
const VALUES: [(&str, &str); 9] = [
    ("1.35", ""),
    ("1.35", "privileged=true"),
    (
        "1.35",
        "podMonitor.enabled=true,podMonitor.labels.release=prometheus,service.enabled=true,acceptWait=true,\
         config=listen = \"0.0.0.0:8082\"",
    ),
    (
        "1.35",
        "hostRoot=false,podLogs=false,scrapeAnnotations=false,networkPolicy.enabled=false,serviceAccount.create=false",
    ),
    (
        "1.35",
        "seccompProfile.type=Localhost,seccompProfile.localhostProfile=inferprobe.json,\
         appArmorProfile.type=RuntimeDefault,extraCapabilities={DAC_READ_SEARCH}",
    ),
    (
        "1.35",
        "gpu.runtimeClassName=nvidia,gpu.driverPath=/home/kubernetes/bin/nvidia,priorityClassName=high,\
         imagePullSecrets[0].name=registry,image.tag=main",
    ),
    (
        "1.35",
        "tolerations[0].operator=Exists,nodeSelector.gpu=yes,extraArgs={--watch-port=8000},\
         extraEnv[0].name=RUST_LOG,extraEnv[0].value=debug,podLabels.team=ml,podAnnotations.note=here",
    ),
    (
        "1.35",
        "networkPolicy.from[0].namespaceSelector.matchLabels.name=monitoring,resources.limits.cpu=1,port=9100",
    ),
    ("1.27", "service.enabled=true"),
];
/// Values that the schema must reject.
const WRONG: [&str; 11] = [
    "typo=1",
    "image.repository=",
    "image.pullPolicy=Sometimes",
    "port=80",
    "privileged=maybe",
    "seccompProfile.type=None",
    "seccompProfile.type=Localhost",
    "extraCapabilities={CAP_BPF}",
    "podMonitor.interval=fast",
    "networkPolicy.from=everyone",
    "gpu.driverPath=relative",
];

/// Validates the manifests on standard input, and prints them as JSON. Its argument is the version of Kubernetes.
const VALIDATE: &str = r#"
import json, sys, yaml, kubernetes_validate
documents = [document for document in yaml.safe_load_all(sys.stdin) if document]
for document in documents:
    # The schemas do not have the Prometheus Operator's kinds.
    if document["apiVersion"] != "monitoring.coreos.com/v1":
        kubernetes_validate.validate(document, sys.argv[1], strict=True)
json.dump(documents, sys.stdout)
"#;

/// Runs all checks.
pub(crate) fn test() -> Result<()> {
    let helm = need(Helm::ensure())?;
    progress::step(
        "check the chart",
        helm.helm("lint").args(["--strict", CHART]),
    )?;
    for (version, values) in VALUES {
        let text = render(&helm, version, values)?;
        let documents = validate(&helm, version, &text).with_context(|| values.to_owned())?;
        check_daemon_set(&documents).with_context(|| values.to_owned())?;
        println!(
            "ok: Kubernetes {version}: {}",
            if values.is_empty() {
                "no values"
            } else {
                values
            }
        );
    }
    for values in WRONG {
        let output = template(&helm, "1.35", values)
            .output()
            .context("start helm")?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && message.contains("meet the specifications of the schema"),
            "{values} is not rejected by the schema: {message}"
        );
        println!("ok: rejected: {values}");
    }
    check_version()?;
    check_manifests(&format!("{HEAD}{}", render(&helm, "1.35", "")?))
}

/// Returns the securityContext, the arguments and the mounts of the container that the chart renders without values.
pub(crate) fn container(helm: &Helm) -> Result<Value> {
    let documents = validate(helm, "1.35", &render(helm, "1.35", "")?)?;
    Ok(daemon_set(&documents)?["spec"]["template"]["spec"].clone())
}

fn template(helm: &Helm, version: &str, values: &str) -> Command {
    let mut command = helm.helm("template");
    command.args(["inferprobe", CHART, "--namespace", "inferprobe"]);
    command.args(["--kube-version", version]);
    if !values.is_empty() {
        command.args(["--set", values]);
    }
    command
}

fn render(helm: &Helm, version: &str, values: &str) -> Result<String> {
    let mut command = template(helm, version, values);
    let (text, done) = progress::output(&mut command)?;
    ensure!(done, "`{}` failed", progress::shown(&command));
    Ok(text)
}

fn validate(helm: &Helm, version: &str, text: &str) -> Result<Vec<Value>> {
    let scratch = tempfile::NamedTempFile::new().context("create a file for the manifests")?;
    fs::write(scratch.path(), text).context("write the manifests")?;
    let output = helm
        .python()
        .args(["-c", VALIDATE, version])
        .stdin(fs::File::open(scratch.path()).context("read the manifests")?)
        .stderr(Stdio::piped())
        .output()
        .context("start Python")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("read the manifests as JSON")
}

fn daemon_set(documents: &[Value]) -> Result<&Value> {
    let found = documents
        .iter()
        .find(|document| document["kind"] == "DaemonSet");
    found.context("no DaemonSet")
}

/// Checks what holds for all values.
fn check_daemon_set(documents: &[Value]) -> Result<()> {
    let pod = &daemon_set(documents)?["spec"]["template"]["spec"];
    ensure!(pod["hostPID"] == true, "hostPID");
    ensure!(pod["hostNetwork"].is_null(), "hostNetwork");
    ensure!(
        pod["automountServiceAccountToken"] == false,
        "a token is mounted"
    );
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    ensure!(
        security["readOnlyRootFilesystem"] == true,
        "the root is writable"
    );
    let is_privileged = security["privileged"] == true;
    let dropped = &security["capabilities"]["drop"];
    ensure!(
        is_privileged || *dropped == serde_json::json!(["ALL"]),
        "capabilities are kept"
    );
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        ensure!(mount["readOnly"] == true, "{mount} is writable");
    }
    let names: Vec<&Value> = container["env"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|variable| &variable["name"])
        .collect();
    ensure!(
        names.iter().any(|name| **name == "NODE_NAME"),
        "no NODE_NAME"
    );
    Ok(())
}

/// Checks that the chart has the version of the workspace.
fn check_version() -> Result<()> {
    let path = workspace::root().join(CHART).join("Chart.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    for key in ["version", "appVersion"] {
        ensure!(
            text.contains(&format!("\n{key}: {VERSION}\n")),
            "{}: {key} is not {VERSION}",
            path.display()
        );
    }
    Ok(())
}

/// Compares the manifests in the repository with what the chart renders.
fn check_manifests(rendered: &str) -> Result<()> {
    let path: PathBuf = workspace::root().join(MANIFESTS);
    if std::env::var_os(UPDATE_ENV).is_some() {
        return fs::write(&path, rendered).with_context(|| format!("write {}", path.display()));
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    ensure!(
        kept == rendered,
        "{MANIFESTS} is not what the chart renders; run `{UPDATE_ENV}=1 cargo xtask package-test chart`"
    );
    Ok(())
}
