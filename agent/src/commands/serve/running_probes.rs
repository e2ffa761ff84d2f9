//! Starts and stops the measuring half of the agent: probes, event-loop thread and example server.
//!
//! `serve` keeps the handle while the endpoint runs.
//! Does not depend on: the endpoint and the collectors.

use std::{
    os::fd::OwnedFd,
    process::Child,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    bpf::{loader::Probes, options::Wanted, plaintext_thread, preflight, privileges, report},
    commands::demo_server,
    config::Config,
    discovery::{
        containers::Containers,
        pid_namespace,
        registry::Registry,
        roster::Roster,
        watch::{Target, Watch},
    },
    history::History,
    metrics::{Metrics, families},
    pipeline::{Changes, connections::ConnectionTable, event_loop::EventLoop},
    request_log::RequestLog,
};

/// The event-loop thread, and what ends with it.
pub(super) struct RunningProbes {
    /// Closed to end the thread.
    stop: OwnedFd,
    thread: JoinHandle<()>,
    /// Receives the reason if the thread ends by itself.
    failed: Option<oneshot::Receiver<String>>,
    demo: Option<Child>,
    changes: mpsc::Sender<Changes>,
    /// Ends with the thread of the event loop.
    plaintext: Option<JoinHandle<()>>,
}

impl RunningProbes {
    /// Attaches the probes, finds the servers, and starts the thread. Drops the capabilities that are not needed
    /// any more.
    pub(super) fn start(
        config: &Config,
        metrics: &Arc<Metrics>,
        roster: Arc<Roster>,
        history: Arc<History>,
        log: Option<RequestLog>,
    ) -> Result<Self> {
        let (changes, received) = mpsc::channel();
        preflight::check(config.accept_wait)?;
        privileges::warn_without_ptrace();
        let wanted = Wanted {
            payload: config.payload,
            copied_bytes: config.body_limit.copied_bytes(),
            accept_wait: config.accept_wait,
            plaintext: config.plaintext,
            attach_mode: config.attach_mode,
        };
        let (mut probes, maps) = Probes::attach(wanted)?;
        let plaintext = probes.take_plaintext();
        let own_pid = pid_namespace::check(probes.own_id(), &config.watches, config.demo)?;
        for report in probes.hooks() {
            metrics.set(
                &families::HOOK_INFO,
                &[report.hook.name(), report.kind_label()],
                1,
            );
        }
        let hooks = report::line(probes.hooks());
        let mut registry = Registry::new(config.watches.clone(), config.catalogue.clone(), own_pid);
        let containers = Containers::new(&config.host_root);
        registry.label_replicas(containers, config.shown_labels);
        let mut table = ConnectionTable::new(config.payload)
            .with_copied_bytes(config.body_limit.copied_bytes());
        if plaintext.is_some() {
            table = table.with_plaintext();
        }
        let mut event_loop = EventLoop::new(probes, maps, registry, table, metrics.clone(), log)?;
        event_loop.publish_to(roster, history);
        event_loop.listen_to(received);
        let plaintext = plaintext.map(|programs| {
            let (asks, received) = mpsc::channel();
            event_loop.ask_for_plaintext(asks);
            plaintext_thread::spawn(programs, received)
        });
        let plaintext = plaintext
            .transpose()
            .context("start the plaintext thread")?;
        let mut found = event_loop.discover()?;
        if config.discover {
            found += event_loop.discover_more();
        }
        give_back_memory();
        info!(processes = found, hooks, "probes attached");
        let demo = if config.demo && found == 0 && config.watches.is_empty() {
            Some(start_demo(&mut event_loop)?)
        } else {
            None
        };
        // After the last program is started, because one with file capabilities could not start any more; and before
        // the first thread, which inherits what is kept.
        let kept = privileges::narrow(|| event_loop.reaches_kernel())?;
        info!(%kept, "capabilities dropped");
        event_loop.ask(&config.management)?;
        let (watched_end, stop) = pipe_with(PipeFlags::CLOEXEC).context("open a pipe")?;
        let (report_failure, failed) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("event-loop".into())
            .spawn(move || {
                if let Err(err) = event_loop.run(&watched_end) {
                    // Fails only if the agent is ending, and then the reason does not matter.
                    let _ = report_failure.send(format!("{err:#}"));
                }
            });
        Ok(Self {
            stop,
            thread: thread.context("start the event-loop thread")?,
            failed: Some(failed),
            demo,
            changes,
            plaintext,
        })
    }

    /// Where other configurations are sent to.
    pub(super) fn changes(&self) -> mpsc::Sender<Changes> {
        self.changes.clone()
    }

    /// Returns what receives the reason if the thread ends by itself; `None` from the second call on.
    pub(super) fn take_failed(&mut self) -> Option<oneshot::Receiver<String>> {
        self.failed.take()
    }

    /// Ends the thread, which detaches the probes, and the example server.
    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            warn!("event-loop thread panicked");
        }
        if self.plaintext.is_some_and(|thread| thread.join().is_err()) {
            warn!("plaintext thread panicked");
        }
        if let Some(mut demo) = self.demo
            && let Err(err) = demo.kill().and_then(|()| demo.wait())
        {
            warn!(%err, "example server not ended");
        }
    }
}

fn start_demo(event_loop: &mut EventLoop) -> Result<Child> {
    let program = std::env::current_exe().context("find the agent's own program")?;
    let (child, port) = demo_server::spawn(&program).context("start the example server")?;
    let watch = Watch {
        target: Target::Port(port),
        model: None,
        version: None,
        server: Some("demo".into()),
    };
    event_loop.watch_port(port, watch)?;
    info!(
        pid = child.id(),
        "no inference server found: started the example server on 127.0.0.1:{port}"
    );
    Ok(child)
}

/// Returns to the system the memory that held the kernel's type information while the probes were attached.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` (glibc) has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
