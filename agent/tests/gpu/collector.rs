//! A collector with a stub of NVML that only one test controls: real symbols, two invented devices.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use inferprobe::{
    collectors::gpu::{self, Options},
    discovery::roster::Roster,
    history::History,
    metrics::{Format, Metrics, Selection},
};
use tempfile::TempDir;

pub(crate) const REFRESH: Duration = Duration::from_millis(20);
/// Longest wait.
const DEADLINE: Duration = Duration::from_secs(20);

/// The stub, built once, in a target folder of its own.
static STUB: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvml-stub");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "nvml-stub", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .unwrap();
    assert!(built.success(), "cargo build --package nvml-stub");
    target.join("debug/libnvml_stub.so")
});

/// A collector that runs.
pub(crate) struct Collector {
    folder: TempDir,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) history: Arc<History>,
}

impl Collector {
    pub(crate) fn start(control: &str) -> Self {
        Self::start_with(control, REFRESH, false)
    }

    /// Starts one with this time between readings, which reads GPM values if `gpm` is set.
    pub(crate) fn start_with(control: &str, refresh: Duration, gpm: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let library = folder.path().join("libnvml_stub.so");
        fs::copy(&*STUB, &library).unwrap();
        let collector = Self {
            folder,
            metrics: Arc::new(Metrics::new("vm")),
            roster: Arc::default(),
            history: Arc::default(),
        };
        collector.control(control);
        let options = Options {
            refresh,
            library: Some(library),
            gpm,
            host_root: "/".into(),
        };
        let (history, roster) = (collector.history.clone(), collector.roster.clone());
        gpu::spawn(&collector.metrics, history, options, roster).unwrap();
        collector
    }

    /// Replaces the control file atomically, so that the stub never reads half of it.
    pub(crate) fn control(&self, control: &str) {
        let new = self.folder.path().join("new.control");
        fs::write(&new, control).unwrap();
        let path = self.folder.path().join("libnvml_stub.so.control");
        fs::rename(new, path).unwrap();
    }

    /// The samples of these families.
    pub(crate) fn lines(&self, families: &[&str]) -> Vec<String> {
        let selection = Selection::named(families.iter().copied());
        let text = self.metrics.encode(&selection, Format::Text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    /// Waits until the samples of these families are `expected`.
    pub(crate) fn await_lines(&self, families: &[&str], expected: &[&str]) {
        await_equal(|| self.lines(families), expected);
    }

    /// The value of the sample that begins with `name`, if there is one.
    pub(crate) fn value(&self, family: &str, labels: &str) -> Option<f64> {
        let prefix = format!("{family}{{{labels}}} ");
        let lines = self.lines(&[family]);
        let value = lines.iter().find_map(|line| line.strip_prefix(&prefix))?;
        Some(value.parse().unwrap())
    }

    /// Waits until a sample has a value for which `is_right` holds.
    pub(crate) fn await_value(
        &self,
        family: &str,
        labels: &str,
        is_right: impl Fn(Option<f64>) -> bool,
    ) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let value = self.value(family, labels);
            if is_right(value) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{family}{{{labels}}} is {value:?}; there are {:#?}",
                self.lines(&[family])
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Waits until the lines are `expected`.
pub(crate) fn await_equal(lines: impl Fn() -> Vec<String>, expected: &[&str]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let lines = lines();
        if lines == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{lines:#?} are not {expected:#?}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}
