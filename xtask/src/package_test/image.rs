//! Runs the image with podman, as its own user, as the chart runs it, and privileged: each counts the host's server.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::arch::Arch;
use crate::dist::parts::VERSION;
use crate::dist::program::Profile;
use crate::dist::{self, Kind};
use crate::package_test::chart;
use crate::package_test::skip::{need, need_glibc, need_root};
use crate::tools::helm::Helm;
use crate::tools::podman::Podman;
use crate::{progress, workspace};

/// Options of every container. An engine without CAP_SYS_RESOURCE cannot raise the limits.
const OPTIONS: [&str; 9] = [
    "--rm",
    "--pid",
    "host",
    "--network",
    "none",
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=4096:4096",
];
/// What the image needs, as its documentation says.
const LEAST: [&str; 7] = [
    "--read-only",
    "--cap-drop",
    "all",
    "--cap-add",
    "BPF,PERFMON,SYS_PTRACE",
    "--security-opt",
    "no-new-privileges",
];
const UNCONFINED: [&str; 2] = ["--security-opt", "seccomp=unconfined"];
const PORT: u16 = 8082;
const REQUESTS: u32 = 12;
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on the host, outside of all containers. It ends with its standard input.
struct Server {
    child: Child,
    port: u16,
    _output: BufReader<ChildStdout>,
}

/// Runs all checks.
pub(crate) fn test(profile: Profile) -> Result<()> {
    need_root()?;
    let podman = need(Podman::ensure())?;
    let helm = need(Helm::ensure())?;
    need_glibc()?;
    dist::make(&[Kind::Image], Arch::Amd64, profile)?;
    let image = format!("localhost/inferprobe:{VERSION}-amd64");
    let server = Server::start()?;
    let tool = Tool { podman, image };
    need(tool.probe())?;

    let least = [&LEAST[..], &UNCONFINED].concat();
    let watch = format!("--watch-port={}", server.port);
    let own: Vec<String> = least.iter().map(|&option| option.to_owned()).collect();
    tool.check_counts("as its own user", &own, &[&watch], &server, 65534)?;
    let (options, args) = of_chart(&chart::container(&helm)?)?;
    let args: Vec<&str> = args.iter().map(String::as_str).chain([&*watch]).collect();
    tool.check_counts("as the chart runs it", &options, &args, &server, 0)?;
    // podman gives other users none of the capabilities.
    let options = ["--privileged", "--user=0"].map(str::to_owned);
    tool.check_counts("privileged", &options, &[&watch], &server, 0)?;
    tool.check_refusal()
}

/// podman, and the image.
struct Tool {
    podman: Podman,
    image: String,
}

impl Tool {
    /// Returns `podman run` with `options`; the image follows.
    fn run(&self, options: &[String]) -> Command {
        let mut command = self.podman.command("run");
        command.args(OPTIONS).args(options).stdin(Stdio::null());
        command
    }

    /// Fails if this machine runs no container at all.
    fn probe(&self) -> Result<()> {
        let output = self
            .run(&[])
            .args([&self.image, "--version"])
            .output()
            .context("start podman")?;
        ensure!(
            output.status.success(),
            "podman runs no containers here: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Starts the agent in a container, and checks that it counts each request to `server`, and nothing twice.
    fn check_counts(
        &self,
        name: &str,
        options: &[String],
        args: &[&str],
        server: &Server,
        user: u32,
    ) -> Result<()> {
        let container = format!("inferprobe-test-{}", std::process::id());
        let mut command = self.run(options);
        command
            .args(["--name", &container, &self.image])
            .args(args)
            .stdout(Stdio::null());
        let mut agent = Running {
            child: command.spawn().context("start podman")?,
            podman: &self.podman,
            container,
        };
        let pid = agent.wait_until_ready().with_context(|| name.to_owned())?;
        for _ in 0..REQUESTS {
            server.request()?;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut counted;
        loop {
            let metrics = get(pid, "metrics")?;
            counted = value(&metrics, "inferprobe_requests_total{model=\"ranker\"");
            if counted == Some(f64::from(REQUESTS)) || Instant::now() > deadline {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        ensure!(
            counted == Some(f64::from(REQUESTS)),
            "{name}: {counted:?} of {REQUESTS} requests are counted"
        );
        // Both are the host's root, unless this process is in a chroot; not every sandbox shows the first one.
        let is_mounted = args.iter().any(|arg| arg.starts_with("--disk-mount"));
        let expected = match used_gib("/proc/1/root/") {
            Ok(used) if !is_mounted => used,
            _ => used_gib("/")?,
        };
        let metrics = get(pid, "metrics")?;
        let found = value(&metrics, "DiskUsage{");
        let is_close = |found: f64| (found - expected).abs() < 0.5 + expected * 0.05;
        ensure!(
            found.is_some_and(is_close),
            "{name}: DiskUsage is {found:?}, but {expected} GiB of the host's root are in use"
        );
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        let status = status.context("read the agent's status")?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let uid = uid.and_then(|ids| ids.split_whitespace().next());
        ensure!(uid == Some(&*user.to_string()), "{name}: user {uid:?}");
        println!("ok: {name}: {REQUESTS} requests are counted, by user {user}");
        Ok(())
    }

    /// Checks the message if the engine's own seccomp profile refuses bpf(2).
    fn check_refusal(&self) -> Result<()> {
        let least: Vec<String> = LEAST.iter().map(|&option| option.to_owned()).collect();
        for (args, code) in [(&["serve"][..], 1), (&["doctor"], 2)] {
            let output = self
                .run(&least)
                .arg(&self.image)
                .args(args)
                .output()
                .context("start podman")?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(output.status.code() == Some(code), "{args:?}: {text}");
            for part in [
                "a seccomp profile refuses bpf(2), although CAP_BPF and CAP_PERFMON are held",
                "--security-opt seccomp=unconfined",
                "seccompProfile: {type: Unconfined}",
            ] {
                ensure!(words.contains(part), "{args:?}: no {part:?} in {text}");
            }
            println!("ok: the engine's own seccomp profile is named by {args:?}");
        }
        Ok(())
    }
}

/// A container that is ended when this is dropped.
struct Running<'a> {
    child: Child,
    podman: &'a Podman,
    container: String,
}

impl Running<'_> {
    /// Waits until the probes are attached; returns the agent's process on the host.
    fn wait_until_ready(&mut self) -> Result<u32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().context("wait for podman")? {
                bail!("the container ended with {status}");
            }
            let (pid, _) = progress::output(
                self.podman
                    .command("inspect")
                    .args(["--format", "{{.State.Pid}}", &self.container])
                    .stderr(Stdio::null()),
            )?;
            if let Ok(pid) = pid.trim().parse::<u32>()
                && pid > 0
                && get(pid, "healthz").is_ok_and(|text| text.contains("probes are attached"))
            {
                return Ok(pid);
            }
            thread::sleep(Duration::from_millis(200));
        }
        bail!("the agent is not ready after {} s", PATIENCE.as_secs())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self
            .podman
            .command("kill")
            .arg(&self.container)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Result<Self> {
        const NAME: &str = "reference-server";
        progress::step(
            "build the server of the tests",
            workspace::cargo("build").args(["--package", "inferprobe-tests", "--bin", NAME]),
        )?;
        let mut child = Command::new(workspace::target_dir().join("debug").join(NAME))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {NAME}"))?;
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        output
            .read_line(&mut line)
            .context("read the server's port")?;
        let port = line.trim().strip_prefix("listening ");
        let port = port.and_then(|port| port.parse().ok());
        Ok(Self {
            child,
            port: port.with_context(|| format!("no port in {line:?}"))?,
            _output: output,
        })
    }

    fn request(&self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/predictions/ranker", self.port);
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--fail",
            "--max-time",
            "10",
            "--data",
            "{}",
            &url,
        ]);
        let (_, done) = progress::output(&mut curl)?;
        ensure!(done, "the server does not respond");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Reads a page of the agent with this process, in its own network namespace.
fn get(pid: u32, page: &str) -> Result<String> {
    let (text, done) = progress::output(
        Command::new("nsenter")
            .args(["--target", &pid.to_string(), "--net", "curl", "--silent"])
            .args([
                "--max-time",
                "5",
                &format!("http://127.0.0.1:{PORT}/{page}"),
            ])
            .stderr(Stdio::null()),
    )?;
    ensure!(done, "/{page} does not respond");
    Ok(text)
}

/// Returns the value of the first sample that begins with `start`.
fn value(metrics: &str, start: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.starts_with(start))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Returns how much of the file system of `folder` is in use, in GiB.
fn used_gib(folder: &str) -> Result<f64> {
    let mut df = Command::new("df");
    df.args(["--block-size=1", "--output=used", folder]);
    let (text, _) = progress::output(&mut df)?;
    let bytes = text
        .lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok());
    let bytes: f64 = bytes.with_context(|| format!("no size in {text:?}"))?;
    Ok(bytes / f64::from(1 << 30))
}

/// Returns what a container of the chart's pod is run with: options of podman that mean the same, and arguments.
fn of_chart(pod: &Value) -> Result<(Vec<String>, Vec<String>)> {
    let container = &pod["containers"][0];
    let security = container["securityContext"].as_object();
    let mut options = Vec::new();
    let list = |value: &Value| -> String {
        let words = value.as_array().into_iter().flatten();
        words
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(",")
    };
    for (key, value) in security.into_iter().flatten() {
        match (key.as_str(), value) {
            ("readOnlyRootFilesystem", Value::Bool(true)) => options.push("--read-only".to_owned()),
            ("runAsUser", user) => {
                let group = &container["securityContext"]["runAsGroup"];
                options.push(format!("--user={user}:{group}"));
            }
            // AppArmor is not active on every machine of the tests.
            ("runAsGroup" | "appArmorProfile", _) => {}
            ("allowPrivilegeEscalation", Value::Bool(false)) => {
                options.push("--security-opt=no-new-privileges".to_owned());
            }
            ("capabilities", sets) => {
                options.push(format!("--cap-drop={}", list(&sets["drop"])));
                options.push(format!("--cap-add={}", list(&sets["add"])));
            }
            ("seccompProfile", profile) if profile["type"] == "Unconfined" => {
                options.push("--security-opt=seccomp=unconfined".to_owned());
            }
            (key, value) => bail!("securityContext.{key}: {value} has no option of podman"),
        }
    }
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let volumes = pod["volumes"].as_array().into_iter().flatten();
        let mut volumes = volumes.filter(|volume| volume["name"] == mount["name"]);
        let volume = volumes.next().context("a mount without its volume")?;
        let (from, to) = (
            volume["hostPath"]["path"].as_str(),
            mount["mountPath"].as_str(),
        );
        let (from, to) = from.zip(to).context("a mount of no folder of the host")?;
        // A host without Kubernetes has no logs of pods.
        if std::path::Path::new(from).is_dir() {
            options.push(format!("--volume={from}:{to}:ro"));
        }
    }
    let args = container["args"].as_array().into_iter().flatten();
    let args = args.filter_map(Value::as_str).map(str::to_owned).collect();
    Ok((options, args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_podman_follow_from_a_pod() {
        let pod = serde_json::json!({
            "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
            "containers": [{
                "args": ["serve"],
                "securityContext": {
                    "runAsUser": 0,
                    "runAsGroup": 7,
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"], "add": ["BPF", "PERFMON"]},
                },
                "volumeMounts": [{"name": "host", "mountPath": "/host"}],
            }],
        });
        let (mut options, args) = of_chart(&pod).unwrap();
        options.sort();
        assert_eq!(
            options,
            [
                "--cap-add=BPF,PERFMON",
                "--cap-drop=ALL",
                "--security-opt=no-new-privileges",
                "--user=0:7",
                "--volume=/:/host:ro"
            ]
        );
        assert_eq!(args, ["serve"]);
        let pod =
            serde_json::json!({"containers": [{"securityContext": {"procMount": "Unmasked"}}]});
        assert!(of_chart(&pod).is_err());
    }

    #[test]
    fn a_value_is_that_of_its_sample() {
        let metrics = "# TYPE a counter\na{b=\"c\"} 12\nab 3\n";
        assert_eq!(value(metrics, "a{"), Some(12.0));
        assert_eq!(value(metrics, "none"), None);
    }
}
