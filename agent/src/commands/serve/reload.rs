//! Reads the configuration again, at SIGHUP and when its file changes, and passes on what may change while the agent runs:
//! watch list, servers, labels, request log and log level.
//!
//! A file that is not valid changes nothing.
//! Does not depend on: probes, how the log level is set.

use std::{
    fs, io,
    mem::MaybeUninit,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{fs::inotify, io::Errno};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use crate::{
    cli::ServeArgs,
    config::Config,
    discovery::roster::Roster,
    metrics::{Metrics, families},
    pipeline::Changes,
    request_log::RequestLog,
};

/// How long a file is left alone after a change: an editor changes it several times.
const SETTLE: Duration = Duration::from_millis(200);

/// Sets the level of the agent's own log; returns an error in words if there is no such level.
pub type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// What a new configuration is compared with, and passed to.
pub(super) struct Reloader {
    /// The command line, which precedes the file.
    pub(super) args: ServeArgs,
    /// The configuration that holds.
    pub(super) current: Config,
    pub(super) metrics: Arc<Metrics>,
    pub(super) roster: Arc<Roster>,
    pub(super) set_level: SetLevel,
    /// Where the event loop gets changes; `None` without probes.
    pub(super) changes: Option<mpsc::Sender<Changes>>,
    /// Set to have the request log opened again; `None` without one.
    pub(super) reopen: Option<Arc<AtomicBool>>,
}

impl Reloader {
    /// Records that the configuration that the agent started with holds.
    pub(super) fn start(&self) {
        self.succeeded();
    }

    /// Reads the configuration again. If it is not valid, the old one stays.
    pub(super) fn reload(&mut self) {
        match self.try_reload() {
            Ok(()) => self.succeeded(),
            Err(reason) => {
                warn!(reason, "configuration not reloaded: the old one stays");
                self.metrics.set(&families::CONFIG_RELOADED, &[], 0_u64);
            }
        }
    }

    /// The file that is watched; `None` without one.
    pub(super) fn file(&self) -> Option<&Path> {
        self.args.config.as_deref()
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let new = Config::load(&self.args).map_err(|err| err.to_string())?;
        let log = self.changed_log(&new)?;
        if let Some(level) = &new.log_level {
            (self.set_level)(level)?;
        } else if self.current.log_level.is_some() {
            (self.set_level)("info")?;
        }
        let restart = self.current.needs_restart(&new);
        if !restart.is_empty() {
            warn!(
                keys = restart.join(", "),
                "changed, and take effect after a restart"
            );
        }
        self.metrics
            .show_labels(self.current.shown_labels.or(new.shown_labels));
        self.roster.show_labels(new.shown_labels);
        match &log {
            Some(log) => self.reopen = log.as_ref().map(RequestLog::reopen_request),
            None => {
                if let Some(reopen) = &self.reopen {
                    reopen.store(true, Ordering::Relaxed);
                }
            }
        }
        if let Some(changes) = &self.changes {
            // Fails only if the event loop has ended, which is reported elsewhere.
            let _ = changes.send(Changes {
                watches: new.watches.clone(),
                catalogue: new.catalogue.clone(),
                shown_labels: new.shown_labels,
                host_root: self.current.host_root.clone(),
                log,
            });
        }
        info!("configuration reloaded");
        self.current = Config {
            // Labels that were used once may have a value.
            shown_labels: new.shown_labels.or(self.current.shown_labels),
            ..new
        };
        Ok(())
    }

    /// Opens the request log if it has another path; `Some(None)`: there is none any more.
    fn changed_log(&self, new: &Config) -> Result<Option<Option<RequestLog>>, String> {
        if new.request_log == self.current.request_log {
            return Ok(None);
        }
        let log = new.request_log.as_deref().map(|path| {
            RequestLog::open(path).map_err(|err| format!("request_log {}: {err}", path.display()))
        });
        log.transpose().map(Some)
    }

    fn succeeded(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map_or(0.0, |now| now.as_secs_f64());
        self.metrics.set(&families::CONFIG_RELOADED, &[], 1_u64);
        self.metrics
            .set(&families::CONFIG_RELOAD_TIME, &[], seconds);
    }
}

/// Waits for changes of a file, also if it is replaced, or is a link whose folder is.
pub(super) struct FileWatch {
    file: PathBuf,
    text: Option<Vec<u8>>,
    events: AsyncFd<std::os::fd::OwnedFd>,
}

impl FileWatch {
    /// Watches the folder of `file`.
    pub(super) fn new(file: &Path) -> io::Result<Self> {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags)?;
        let changes = inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CREATE;
        inotify::add_watch(&events, folder, changes)?;
        Ok(Self {
            file: file.to_owned(),
            text: fs::read(file).ok(),
            // SAFETY: an `OwnedFd` has the same descriptor for as long as it lives.
            events: unsafe { AsyncFd::register(events) }?,
        })
    }

    /// Returns when the file has other content than before.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            tokio::time::sleep(SETTLE).await;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            loop {
                match rustix::io::read(self.events.get_ref(), &mut buffer) {
                    Ok(([], _)) | Err(Errno::AGAIN) => break,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(err) => return Err(err.into()),
                }
            }
            ready.clear_ready();
            // A file that is being replaced is not there for a moment.
            let Ok(text) = fs::read(&self.file) else {
                continue;
            };
            if self.text.as_ref() != Some(&text) {
                self.text = Some(text);
                return Ok(());
            }
        }
    }
}
