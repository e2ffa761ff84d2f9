//! Runs the loop of `autoscale`: scrapes the agent, asks TorchServe, decides, prints, scales; serves its own metrics.
//!
//! Everything that waits is here; `decision` decides.
//! Does not depend on: how a decision is made.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, anyhow};
use hyper::{Method, StatusCode};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    commands::autoscale::{
        decision::{Scaler, Verdict},
        options::Options,
        queue::Reading,
        report,
    },
    exporter::{self, source::MetricsSource},
    http::client::{self, Limits},
    metrics::{AutoscaleMetrics, Format, Selection},
};

/// Limits of one scrape of the agent; the chosen families have a few thousand series at most.
const SCRAPE_LIMITS: Limits = Limits {
    time: Duration::from_secs(5),
    body_bytes: 8 << 20,
};

/// Decides at each interval until a signal ends it. Scaling that TorchServe has begun goes on.
pub async fn run(options: Options) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let listen = options.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!(
            "--listen {listen}: cannot listen there; stop the process that uses the port (ss -ltnp shows it), or choose \
             another address"
        )
    })?;
    let address = listener
        .local_addr()
        .context("read back the listening address")?;
    options.management.describe(&options.model).await?;
    if options.policy.min == 0 {
        warn!(
            "--min 0: without workers TorchServe answers requests with 503; the first 503 starts a worker again"
        );
    }
    info!(
        model = options.model.name,
        dry_run = options.dry_run,
        "deciding; own metrics at http://{address}/metrics"
    );
    let shown = Arc::new(Shown {
        metrics: AutoscaleMetrics::new(&options.model.name, Verdict::ALL.map(Verdict::word)),
        missing: Mutex::new(Some("no decision yet".into())),
    });
    let mut ended = Ok(());
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            outcome = decide_on(&options, &shown) => ended = outcome,
        }
    };
    exporter::serve(listener, shown.clone(), stopped).await;
    ended
}

/// What the endpoint serves.
struct Shown {
    metrics: AutoscaleMetrics,
    /// Why the last decision lacked a value; `None` if it lacked none.
    missing: Mutex<Option<String>>,
}

impl MetricsSource for Shown {
    fn metrics(&self, selection: &Selection, format: Format) -> String {
        self.metrics.encode(selection, format)
    }

    fn health(&self) -> Result<String, String> {
        let missing = self.missing.lock();
        match &*missing.unwrap_or_else(PoisonError::into_inner) {
            None => Ok("ok: deciding".into()),
            Some(missing) => Err(format!("not deciding: {missing}")),
        }
    }
}

/// Decides for ever; returns only if its lines can no longer be printed.
async fn decide_on(options: &Options, shown: &Shown) -> Result<()> {
    let mut scaler = Scaler::new(options.policy);
    let mut before = None;
    let mut ticks = interval(options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        step(options, shown, &mut scaler, &mut before).await?;
    }
}

async fn step(
    options: &Options,
    shown: &Shown,
    scaler: &mut Scaler,
    before: &mut Option<Reading>,
) -> Result<()> {
    let reading = scrape(options).await;
    // A mean belongs to one interval, so an earlier scrape cannot replace a missing one.
    let last = std::mem::replace(before, reading.as_ref().ok().copied());
    let queue = reading.and_then(|reading| Ok(reading.since(last.as_ref())?));
    let queue = queue.map_err(|err| format!("{err:#}"));
    let workers = options.management.describe(&options.model).await;
    let workers = workers.map_err(|err| format!("{err:#}"));
    let decision = scaler.decide(
        queue.as_ref().map_err(String::as_str),
        workers.as_ref().map_err(String::as_str),
        Instant::now(),
    );

    shown
        .metrics
        .set_actual(workers.as_ref().ok().map(|workers| workers.ready));
    if let (Ok(queue), Ok(workers)) = (&queue, &workers) {
        // If no request is pending, the queue time is 0; if one is pending and none finished, it is unknown.
        let none = (workers.pending == 0).then_some(0.0);
        if let Some(mean_ms) = queue.mean_ms().or(none) {
            shown.metrics.set_queue_s(mean_ms / 1000.0);
        }
    }
    shown
        .metrics
        .decided(decision.verdict.word(), decision.desired);
    let missing = (decision.verdict == Verdict::Unknown).then(|| decision.reason.clone());
    *shown.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    print(&report::line(
        SystemTime::now(),
        &options.model.name,
        queue.as_ref().ok(),
        workers.as_ref().ok(),
        &decision,
    ))
    .context("print a decision")?;

    let Some(desired) = decision.change().filter(|_| !options.dry_run) else {
        return Ok(());
    };
    // TorchServe keeps a number of workers within the limits, so only equal limits end a worker.
    let scaled = options
        .management
        .scale(&options.model, desired, desired, false);
    if let Err(err) = scaled.await {
        warn!("number of workers not changed: {err:#}");
    }
    scaler.changed(Instant::now());
    Ok(())
}

/// Scrapes the agent's counters of the model.
async fn scrape(options: &Options) -> Result<Reading> {
    let url = &options.metrics;
    let response = client::fetch(Method::GET, url, None, SCRAPE_LIMITS).await;
    let response = response.map_err(|err| {
        anyhow!(
            "cannot reach the agent at http://{}: {err}; start it, or give its endpoint as --metrics",
            url.authority()
        )
    })?;
    if response.status != StatusCode::OK {
        return Err(anyhow!(
            "the agent at http://{} answered {}; give its endpoint as --metrics",
            url.authority(),
            response.status.as_u16()
        ));
    }
    let page = String::from_utf8_lossy(&response.body);
    Ok(Reading::of(&page, &options.model)?)
}

fn print(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
