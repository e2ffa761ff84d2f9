//! Keeps the files of the agents that a failed test started.
//!
//! An agent's files are in a temporary folder while its test runs. If the test fails, copies go to a folder of the test
//! below `target/test-artifacts`, and the failure prints its path.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use tempfile::TempDir;

use crate::{exposition::Exposition, process::profile_folder, running_test::running_test};

/// Names the folder in which tests keep artifacts; by default `test-artifacts` in the build folder.
const FOLDER: &str = "INFERPROBE_ARTIFACTS_DIR";
/// Standard error of the agent, debug level included.
pub(super) const STDERR: &str = "stderr.log";
/// The request log.
pub(super) const REQUESTS: &str = "requests.jsonl";
/// The last scrape.
const METRICS: &str = "metrics.txt";
/// Each hook and its program type.
const HOOKS: &str = "hooks.txt";

/// The test that holds the kernel, and the agents that it has started so far.
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);
/// How many agents each test of this process has kept.
static KEPT: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

struct Running {
    test: String,
    agents: Vec<Arc<Artifacts>>,
}

/// Remembers the agents of the running test, also those that have ended. Keeps their files if the test fails.
pub(crate) struct Session(());

impl Session {
    /// Begins with no agents. Only one session may exist at a time.
    pub(crate) fn begin() -> Self {
        *lock(&RUNNING) = Some(Running {
            test: running_test(),
            agents: Vec::new(),
        });
        Self(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let running = lock(&RUNNING).take();
        if thread::panicking() {
            for agent in running.into_iter().flat_map(|running| running.agents) {
                agent.keep();
            }
        }
    }
}

/// The files of one agent.
pub(super) struct Artifacts {
    test: String,
    folder: TempDir,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_scrape: Option<String>,
    is_kept: bool,
}

impl Artifacts {
    /// Makes a folder for the files of an agent of the running test.
    pub(super) fn new() -> Arc<Self> {
        let mut running = lock(&RUNNING);
        let test = match running.as_ref() {
            Some(running) if thread::current().name().is_none() => running.test.clone(),
            _ => running_test(),
        };
        let artifacts = Arc::new(Self {
            test,
            folder: tempfile::tempdir().expect("a folder for the agent's files"),
            state: Mutex::default(),
        });
        if let Some(running) = running.as_mut().filter(|one| one.test == artifacts.test) {
            running.agents.push(Arc::clone(&artifacts));
        }
        artifacts
    }

    /// Returns where the agent's files are while the test runs.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Remembers `page` as the last scrape.
    pub(super) fn note_scrape(&self, page: String) {
        lock(&self.state).last_scrape = Some(page);
    }

    /// Keeps the files unless that was done already, and prints where. Does not panic, for it runs during panics.
    pub(super) fn keep(&self) {
        if std::mem::replace(&mut lock(&self.state).is_kept, true) {
            return;
        }
        let kept = self.copy_to(&root());
        match kept {
            Ok(folder) => eprintln!("files of the agent: {}", folder.display()),
            Err(err) => eprintln!("cannot keep the files of the agent: {err}"),
        }
    }

    /// Copies the files to a folder of their own in the test's folder, and returns it.
    fn copy_to(&self, root: &Path) -> io::Result<PathBuf> {
        let of_test = root.join(self.test.replace("::", "."));
        let number = {
            let mut kept = lock(&KEPT);
            let number = kept.entry(self.test.clone()).or_default();
            *number += 1;
            *number
        };
        if number == 1 && of_test.exists() {
            // Of an earlier run.
            fs::remove_dir_all(&of_test)?;
        }
        let folder = of_test.join(format!("agent-{number}"));
        fs::create_dir_all(&folder)?;
        for name in [STDERR, REQUESTS] {
            let from = self.folder.path().join(name);
            if from.exists() {
                fs::copy(from, folder.join(name))?;
            }
        }
        if let Some(page) = &lock(&self.state).last_scrape {
            fs::write(folder.join(METRICS), page)?;
            fs::write(folder.join(HOOKS), hooks(page))?;
        }
        Ok(folder)
    }
}

/// Returns the folder of all tests' artifacts.
fn root() -> PathBuf {
    if let Some(folder) = env::var_os(FOLDER) {
        return folder.into();
    }
    profile_folder().with_file_name("test-artifacts")
}

/// Returns one line for each hook of a scrape: its name and its program type.
fn hooks(page: &str) -> String {
    let Ok(page) = Exposition::parse(page) else {
        return "the scrape cannot be read\n".to_owned();
    };
    let hooks = page.samples("inferprobe_hook_info", &[]).map(|sample| {
        let label = |name: &str| sample.label(name).unwrap_or_default().to_owned();
        format!("{:18}{}\n", label("hook"), label("kind"))
    });
    hooks.collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_files_are_complete_and_replace_those_of_an_earlier_run() {
        let root = tempfile::tempdir().unwrap();
        let stale = root.path().join(
            "agent.artifacts.tests.kept_files_are_complete_and_replace_those_of_an_earlier_run",
        );
        fs::create_dir_all(stale.join("agent-7")).unwrap();
        let agent = Artifacts::new();
        fs::write(agent.folder().join(STDERR), "INFO hello\n").unwrap();
        fs::write(agent.folder().join(REQUESTS), "{}\n").unwrap();
        agent.note_scrape(
            "# HELP inferprobe_hook_info Hooks.\n# TYPE inferprobe_hook_info gauge\n\
             inferprobe_hook_info{hook=\"recv\",kind=\"fentry\"} 1\n"
                .to_owned(),
        );
        let folder = agent.copy_to(root.path()).unwrap();
        assert_eq!(folder, stale.join("agent-1"));
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read(STDERR), "INFO hello\n");
        assert_eq!(read(REQUESTS), "{}\n");
        assert_eq!(read(HOOKS), "recv              fentry\n");
        assert!(read(METRICS).starts_with("# HELP"));
        assert!(!stale.join("agent-7").exists());
        let second = Artifacts::new().copy_to(root.path()).unwrap();
        assert_eq!(second, stale.join("agent-2"));
    }

    #[test]
    fn default_folder_is_in_the_build_folder() {
        let target = profile_folder().parent().unwrap().to_owned();
        assert_eq!(root(), target.join("test-artifacts"));
    }
}
