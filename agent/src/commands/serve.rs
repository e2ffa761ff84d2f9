//! Wiring and shutdown: the only file that sees every module.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
    process::Child,
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing::{info, warn};

use crate::{
    bpf::{loader::Probes, options::Wanted, preflight, privileges, report},
    collectors::{gpu, host},
    commands::{
        autoscale::{self, options::Options},
        demo_server,
        scale::Scale,
    },
    config::Config,
    discovery::{
        pid_namespace,
        registry::Registry,
        watch::{Target, Watch},
    },
    doctor,
    exporter::{self, Endpoint, ProbeHealth},
    metrics::Metrics,
    pipeline::{connections::ConnectionTable, event_loop::EventLoop},
    request_log::RequestLog,
    torchserve::properties::TorchServeFile,
};

/// Name of the probes in `inferprobe_collector_up`.
const PROBES: &str = "probes";

/// Runs the agent until a signal ends it.
pub async fn run(config: Config) -> Result<()> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| bind_remedy(&config))?;
    if let Some(file) = &config.torchserve {
        say_what_was_read(file);
    }
    let metrics = Arc::new(Metrics::new(&hostname()));
    let log = open_log(&config)?;
    metrics.collector_up(PROBES, false);
    let mut watching = match config.probes {
        true => Some(RunningProbes::start(&config, &metrics, log)?),
        false => {
            privileges::drop_all()?;
            None
        }
    };
    let health = if watching.is_some() {
        ProbeHealth::Attached
    } else {
        ProbeHealth::Off
    };
    metrics.collector_up(PROBES, watching.is_some());
    host::spawn(&metrics, config.refresh, config.disk_mount.clone())
        .context("start the host collector")?;
    gpu::spawn(&metrics, config.refresh, config.nvml_library.clone())
        .context("start the GPU collector")?;
    let endpoint = Arc::new(Endpoint::new(metrics.clone(), health));
    let address = listener
        .local_addr()
        .context("read back the listening address")?;
    info!(
        probes = watching.is_some(),
        "listening on http://{address}/metrics"
    );

    let mut failed = watching
        .as_mut()
        .and_then(|watching| watching.failed.take());
    let on_failure = {
        let (endpoint, metrics) = (endpoint.clone(), metrics.clone());
        async move {
            if let Some(failed) = &mut failed {
                // A thread that panicked drops its end without a word.
                let reason = failed
                    .await
                    .unwrap_or_else(|_| "the watching thread panicked".into());
                warn!(reason, "probes stopped: requests are not measured any more");
                metrics.collector_up(PROBES, false);
                endpoint.set_health(ProbeHealth::Failed(reason));
            }
            std::future::pending::<()>().await;
        }
    };
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = on_failure => {}
        }
    };
    exporter::serve(listener, endpoint, stopped).await;
    if let Some(watching) = watching {
        watching.stop();
    }
    Ok(())
}

fn bind_remedy(config: &Config) -> String {
    format!(
        "--listen {}: cannot listen there; stop what uses the port (ss -ltnp shows it), or choose another address",
        config.listen
    )
}

fn say_what_was_read(file: &TorchServeFile) {
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
            "requests inside TLS are not seen"
        );
    }
}

fn open_log(config: &Config) -> Result<Option<RequestLog>> {
    let Some(path) = &config.request_log else {
        return Ok(None);
    };
    let log = RequestLog::open(path).with_context(|| {
        format!(
            "--request-log {}: give a file that can be written",
            path.display()
        )
    })?;
    Ok(Some(log))
}

/// The watching thread, and what ends with it.
struct RunningProbes {
    /// Closed to end the thread.
    stop: OwnedFd,
    thread: JoinHandle<()>,
    /// Told if the thread ends by itself.
    failed: Option<oneshot::Receiver<String>>,
    demo: Option<Child>,
}

impl RunningProbes {
    fn start(config: &Config, metrics: &Arc<Metrics>, log: Option<RequestLog>) -> Result<Self> {
        preflight::check(config.accept_wait)?;
        privileges::warn_without_ptrace();
        let wanted = Wanted {
            payload: config.payload,
            accept_wait: config.accept_wait,
            attach_mode: config.attach_mode,
        };
        let (probes, rings) = Probes::attach(wanted)?;
        let own_pid = pid_namespace::look(probes.own_id(), &config.watches, config.demo)?;
        for report in probes.hooks() {
            metrics.hook(report.hook.name(), report.kind_label());
        }
        let hooks = report::line(probes.hooks());
        let registry = Registry::new(config.watches.clone(), config.catalogue.clone(), own_pid);
        let table = ConnectionTable::new(config.payload);
        let mut watcher = EventLoop::new(probes, rings, registry, table, metrics.clone(), log)?;
        let found = watcher.discover()?;
        give_back_memory();
        info!(processes = found, hooks, "probes attached");
        let demo = if config.demo && found == 0 && config.watches.is_empty() {
            Some(start_demo(&mut watcher)?)
        } else {
            None
        };
        // Before the first thread, and after the last program that is started: one with file capabilities could not be.
        let kept = privileges::narrow(|| watcher.reaches_kernel())?;
        info!(%kept, "capabilities given up");
        watcher.ask(&config.management)?;
        let (watched_end, stop) = pipe_with(PipeFlags::CLOEXEC).context("open a pipe")?;
        let (tell, failed) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("watcher".into())
            .spawn(move || {
                if let Err(err) = watcher.run(&watched_end) {
                    // Nobody listens any more once the agent is ending, and then there is nobody to tell.
                    let _ = tell.send(format!("{err:#}"));
                }
            });
        Ok(Self {
            stop,
            thread: thread.context("start the watching thread")?,
            failed: Some(failed),
            demo,
        })
    }

    /// Ends the thread, which detaches the probes, and the example server.
    fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            warn!("the watching thread had panicked");
        }
        if let Some(mut demo) = self.demo
            && let Err(err) = demo.kill().and_then(|()| demo.wait())
        {
            warn!(%err, "example server not ended");
        }
    }
}

fn start_demo(watcher: &mut EventLoop) -> Result<Child> {
    let program = std::env::current_exe().context("find the agent's own program")?;
    let (child, port) = demo_server::spawn(&program).context("start the example server")?;
    let watch = Watch {
        target: Target::Port(port),
        model: None,
        version: None,
        server: Some("demo".into()),
    };
    watcher.watch_port(port, watch)?;
    info!(
        pid = child.id(),
        "no inference server found: started the example server on 127.0.0.1:{port} (--no-demo turns it off)"
    );
    Ok(child)
}

/// Gives the memory that the kernel's type information took while the probes were attached back to the system.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` (glibc) has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Starts the runtime and runs the agent in it.
pub fn serve(config: Config) -> Result<()> {
    runtime()?.block_on(run(config))
}

/// Runs the example server.
pub fn demo_server(args: &crate::cli::DemoArgs) -> Result<()> {
    privileges::drop_all()?;
    runtime()?.block_on(demo_server::run(args))
}

/// Looks at this host, and prints what it allows to be measured.
pub fn doctor(options: &doctor::Options) -> Result<doctor::report::Outcome> {
    let (text, outcome) = doctor::examine(options).context("write the report as JSON")?;
    write!(io::stdout(), "{text}").context("print the report")?;
    Ok(outcome)
}

/// Has TorchServe scale a model, and prints what it says.
pub fn scale(scale: &Scale) -> Result<()> {
    let status = runtime()?.block_on(scale.run())?;
    writeln!(io::stdout(), "{status}").context("print TorchServe's answer")
}

/// Keeps a model's queue time near its target until a signal ends it.
pub fn autoscale(options: Options) -> Result<()> {
    runtime()?.block_on(autoscale::run::run(options))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err: io::Error| anyhow!(err).context("start the runtime"))
}
