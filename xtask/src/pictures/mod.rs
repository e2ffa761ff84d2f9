//! Takes the pictures of the documentation, and the recording of `top --demo`, from the real thing.
//!
//! A real agent measures the example server and a server with one thread, `ranker.py`, whose load rises; `record` keeps
//! what the agent says, and `top` shows it on a terminal of tmux, whose content becomes an SVG.

mod svg;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::tools::tmux;
use crate::{build, page_test, privilege, progress, workspace};

/// The recording that the agent contains.
const DEMO: &str = "agent/src/commands/top/demo.jsonl.gz";
/// The server, and its clients.
const RANKER: &str = "xtask/src/pictures/ranker.py";
/// Length of the recording, s.
const SECONDS: u64 = 40;
/// Time from the start of the load to the recording.
const WARM_UP: Duration = Duration::from_secs(12);
/// Size of the terminal in the picture.
const SIZE: (usize, usize) = (110, 24);
/// Name of tmux's socket and session.
const SESSION: &str = "inferprobe-pictures";

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Picture {
    /// The page
    Page,
    /// The terminal, and the recording for it
    Top,
}

/// A process that ends with its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes all pictures, or only one.
pub(crate) fn run(only: Option<Picture>, agent: Option<PathBuf>) -> Result<()> {
    if only != Some(Picture::Top) {
        page_test::picture()?;
    }
    match only {
        Some(Picture::Page) => Ok(()),
        Some(Picture::Top) | None => top(agent),
    }
}

fn top(agent: Option<PathBuf>) -> Result<()> {
    ensure!(
        privilege::is_root(),
        "run it as root: the agent attaches probes to the kernel"
    );
    let folder = tempfile::tempdir().context("make a folder")?;
    let recording = folder.path().join("demo.jsonl");
    let agent = agent.map_or_else(build::agent, Ok)?;
    record(&agent, &recording)?;
    let gzip = Command::new("gzip")
        .args(["-9", "-n", "-c"])
        .arg(&recording)
        .output();
    let gzip = gzip.context("compress the recording")?;
    let demo = workspace::root().join(DEMO);
    fs::write(&demo, gzip.stdout).with_context(|| format!("write {}", demo.display()))?;
    draw(&agent, &recording)
}

/// Records a minute of two servers.
fn record(agent: &Path, recording: &Path) -> Result<()> {
    let root = workspace::root();
    let ranker = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.arg(root.join(RANKER)).args(arguments);
        command
    };
    let mut server = Running(
        ranker(&["serve"])
            .stdout(Stdio::piped())
            .spawn()
            .context("start ranker.py")?,
    );
    let stdout = server.0.stdout.take().context("read ranker.py's port")?;
    let mut port = String::new();
    BufReader::new(stdout)
        .read_line(&mut port)
        .context("read ranker.py's port")?;
    let port = port.trim();
    let example_port = free_address()?;
    let example_port = example_port.rsplit(':').next().unwrap_or_default();
    let example = Command::new(agent)
        .args(["demo-server", "--port", example_port])
        .stdout(Stdio::null())
        .spawn();
    let _example = Running(example.context("start the example server")?);
    let listen = free_address()?;
    let measuring = Command::new(agent)
        .args(["serve", "--listen", &listen, "--no-discover"])
        .args(["--watch-port", port, "--watch-port", example_port])
        .stderr(Stdio::null())
        .spawn();
    let _agent = Running(measuring.context("start the agent")?);
    let seconds = (SECONDS + WARM_UP.as_secs()).to_string();
    let _load = Running(
        ranker(&["load", port, &seconds])
            .spawn()
            .context("start the load")?,
    );
    // The agent needs a moment to attach, and a verdict needs requests.
    thread::sleep(WARM_UP);
    let time = format!("{SECONDS}s");
    let file = File::create(recording).context("create the recording")?;
    progress::step(
        "record",
        Command::new(agent)
            .args(["record", &time, "--url", &listen])
            .stdout(file),
    )
}

fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("read the port")?.to_string())
}

/// Draws the end of the recording as `top` shows it.
fn draw(agent: &Path, recording: &Path) -> Result<()> {
    let program = tmux::ensure()?;
    let tmux = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["-L", SESSION, "-u"]).args(arguments);
        command.env("LC_ALL", "C.UTF-8");
        command
    };
    let shown = format!("{} view {}", agent.display(), recording.display());
    let (width, height) = (SIZE.0.to_string(), SIZE.1.to_string());
    let size = ["-x", &width, "-y", &height];
    progress::check(
        tmux(&["new-session", "-d", "-s", SESSION])
            .args(size)
            .arg(shown),
    )?;
    thread::sleep(Duration::from_secs(2));
    // To the end of the recording, then one more second for the answer.
    for _ in 0..=SECONDS / 10 {
        progress::check(&mut tmux(&["send-keys", "-t", SESSION, "Right"]))?;
        thread::sleep(Duration::from_millis(300));
    }
    thread::sleep(Duration::from_secs(2));
    let captured = tmux(&["capture-pane", "-e", "-p", "-t", SESSION]).output();
    let captured = captured.context("read the terminal")?;
    progress::check(&mut tmux(&["kill-server"]))?;
    let text = String::from_utf8(captured.stdout).context("read the terminal")?;
    let path = workspace::root().join("docs/images/top.svg");
    let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.write_all(svg::of_terminal(&text, SIZE).as_bytes())
        .context("write the picture")
}
