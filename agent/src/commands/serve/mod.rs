//! Runs `inferprobe serve`: opens the endpoint, starts probes and collectors, and stops them at a signal.
//!
//! The only file that wires every module together; `running_probes` wires the probes.
//! Does not depend on: the command line as typed.

mod readiness;
pub mod reload;
mod running_probes;

use std::{
    io::{self, IsTerminal as _},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{info, warn};

use crate::{
    bpf::privileges,
    cli::ServeArgs,
    collectors::{engines, gpu, host, servers},
    commands::{
        runtime,
        serve::{
            reload::{FileWatch, Reloader, SetLevel},
            running_probes::RunningProbes,
        },
    },
    config::Config,
    discovery::roster::Roster,
    exporter::{
        self,
        endpoint::{Endpoint, ProbeHealth},
    },
    history::History,
    live::Kept,
    metrics::Metrics,
    request_log::RequestLog,
    torchserve::properties::TorchServeFile,
};

/// Name of the probes in `inferprobe_collector_up`.
const PROBES: &str = "probes";

/// Runs the agent until a signal ends it; `args` are read again with the file.
pub fn run(args: ServeArgs, config: Config, set_level: SetLevel) -> Result<()> {
    refuse_huge_pages();
    runtime::block_on(serve(args, config, set_level))
}

/// Keeps the kernel from making huge pages of the agent's memory.
///
/// `khugepaged` writes to the memory map while it does, at the lowest priority (`collapse_huge_page`, Linux 7.3.4). On a
/// host without idle CPU that took three seconds, in which every page fault of the agent waited and the ring overflowed.
fn refuse_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        warn!(
            %error,
            "huge pages stay on: on a host without idle CPU the agent may stop for seconds and lose records; allow prctl, \
             or write madvise to /sys/kernel/mm/transparent_hugepage/enabled"
        );
    }
}

async fn serve(args: ServeArgs, config: Config, set_level: SetLevel) -> Result<()> {
    if let Some(level) = &config.log_level {
        set_level(level).map_err(anyhow::Error::msg)?;
    }
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "--listen {}: cannot listen there; stop the process that uses the port (ss -ltnp shows it), or choose \
             another address",
            config.listen
        )
    })?;
    if let Some(file) = &config.torchserve {
        log_torchserve_file(file);
    }
    let metrics = Arc::new(Metrics::new(&config.hostname));
    metrics.show_labels(config.shown_labels);
    let log = open_log(&config)?;
    let reopen = log.as_ref().map(RequestLog::reopen_request);
    let hang_up = signal(SignalKind::hangup()).context("handle SIGHUP")?;
    metrics.collector_up(PROBES, false);
    let roster = Arc::new(Roster::default());
    roster.show_labels(config.shown_labels);
    let history = Arc::new(History::default());
    let mut running = match config.probes {
        true => Some(RunningProbes::start(
            &config,
            &metrics,
            roster.clone(),
            history.clone(),
            log,
        )?),
        false => {
            privileges::drop_all()?;
            None
        }
    };
    let health = if running.is_some() {
        ProbeHealth::Attached
    } else {
        ProbeHealth::Off
    };
    metrics.collector_up(PROBES, running.is_some());
    host::spawn(&metrics, config.refresh, config.disk_mount.clone())
        .context("start the host collector")?;
    servers::spawn(&metrics, history.clone(), config.refresh, roster.clone())
        .context("start the collector of servers")?;
    let gpus = gpu::Options {
        refresh: config.refresh,
        library: config.nvml_library.clone(),
        gpm: config.gpm,
        host_root: config.host_root.clone(),
    };
    if config.ask_servers {
        engines::spawn(&metrics, history.clone(), config.refresh, roster.clone())
            .context("start to ask servers")?;
    }
    gpu::spawn(&metrics, history.clone(), gpus, roster.clone())
        .context("start the GPU collector")?;
    let endpoint = Endpoint::new(metrics.clone(), health);
    let host_names = [config.hostname.clone()]
        .into_iter()
        .chain(config.allowed_hosts.clone());
    let host_names = host_names.collect();
    let for_reloads = roster.clone();
    let kept = Kept::new(&config.hostname, metrics.clone(), history, roster);
    let endpoint = Arc::new(endpoint.with_api(kept, host_names));
    let address = listener
        .local_addr()
        .context("read back the listening address")?;
    info!(
        probes = running.is_some(),
        "listening on http://{address}/metrics"
    );

    let mut failed = running.as_mut().and_then(RunningProbes::take_failed);
    let on_failure = {
        let (endpoint, metrics) = (endpoint.clone(), metrics.clone());
        async move {
            if let Some(failed) = &mut failed {
                // A thread that panics drops its end of the channel and sends nothing.
                let reason = failed
                    .await
                    .unwrap_or_else(|_| "the event-loop thread panicked".into());
                warn!(reason, "probes stopped: requests are no longer measured");
                metrics.collector_up(PROBES, false);
                endpoint.set_health(ProbeHealth::Failed(reason));
            }
            std::future::pending::<()>().await;
        }
    };
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let reloader = Reloader {
        args,
        current: config,
        metrics,
        roster: for_reloads,
        set_level,
        changes: running.as_ref().map(RunningProbes::changes),
        reopen,
    };
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = keep_reloading(hang_up, reloader) => {}
            () = on_failure => {}
        }
    };
    readiness::ready(match running {
        Some(_) => "probes are attached",
        None => "probes are off",
    });
    exporter::serve(listener, endpoint, stopped).await;
    readiness::stopping();
    if let Some(running) = running {
        running.stop();
    }
    Ok(())
}

/// Reads the configuration again and opens the request log again, at each SIGHUP and when the file changes. Returns if the
/// agent's terminal is gone.
async fn keep_reloading(mut hang_up: Signal, mut reloader: Reloader) {
    reloader.start();
    let had_terminal = io::stdin().is_terminal();
    let mut file = reloader.file().and_then(|file| {
        let watch = FileWatch::new(file);
        let refused = |err: &io::Error| {
            warn!(%err, "changes of the configuration file are not seen; SIGHUP still has it read again");
        };
        watch.inspect_err(refused).ok()
    });
    loop {
        let changed = async {
            match &mut file {
                Some(file) => file.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // A terminal that hung up is none any more: its ioctls fail (drivers/tty/tty_io.c, `hung_up_tty_ioctl`).
            _ = hang_up.recv() => if had_terminal && !io::stdin().is_terminal() {
                return;
            },
            seen = changed => if let Err(err) = seen {
                warn!(%err, "changes of the configuration file are not seen any more");
                file = None;
                continue;
            },
        }
        reloader.reload();
    }
}

/// Logs the settings of TorchServe's own file that the agent uses.
fn log_torchserve_file(file: &TorchServeFile) {
    let (inference, management) = (
        &file.inference_address.value,
        &file.management_address.value,
    );
    info!(
        metrics_mode = %file.metrics_mode.value,
        enable_metrics_api = file.enable_metrics_api.value,
        metrics_address = %file.metrics_address.value,
        inference_address = %inference,
        management_address = %management,
        grpc_inference_port = file.grpc_inference_port.value,
        use_native_io = file.use_native_io.value,
        "read TorchServe's {}",
        file.path
    );
    if inference.is_tls() || management.is_tls() {
        warn!(
            inference_address = %inference,
            management_address = %management,
            "requests over TLS are timed and not read"
        );
    }
}

fn open_log(config: &Config) -> Result<Option<RequestLog>> {
    let Some(path) = &config.request_log else {
        return Ok(None);
    };
    let log = RequestLog::open(path).with_context(|| {
        format!(
            "--request-log {}: cannot open it; give the path of a file that the agent can write",
            path.display()
        )
    })?;
    Ok(Some(log))
}
