//! Runs `inferprobe record`: asks an agent every second, and writes what it says on standard output.
//!
//! Does not depend on: how a recording is shown.

use std::{
    io::{self, IsTerminal as _, Stdout, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    api::{history::Wanted, live::Live},
    cli::RecordArgs,
    commands::runtime,
    recording::file::Writer,
    remote::{client::Client, target::Target},
    usage::{UsageError, invalid},
};

/// Time between two answers.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time between two questions for the histories, less than an agent keeps.
const HISTORY_INTERVAL: Duration = Duration::from_secs(60);
/// Longest recording.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

/// A checked command.
#[derive(Debug)]
pub struct Request {
    target: Target,
    time: Duration,
}

impl Request {
    /// Checks the command line.
    pub fn check(args: &RecordArgs) -> Result<Self, UsageError> {
        Ok(Self {
            target: Target::of(&args.agent)?,
            time: parse_time(&args.time)?,
        })
    }
}

/// Parses a time such as `10m`.
fn parse_time(text: &str) -> Result<Duration, UsageError> {
    let refused = |reason: &str| invalid("TIME", text, reason.into());
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(refused("not a time; write it like 30s, 10m or 2h")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| refused("not a time; write it like 30s, 10m or 2h"))?;
    let time = Duration::from_secs(number.saturating_mul(unit_s));
    match time.is_zero() || time > MAX_TIME {
        true => Err(refused("out of range; give 1s to 24h")),
        false => Ok(time),
    }
}

/// Records until the time is over, or a signal.
pub fn run(request: Request) -> Result<()> {
    if io::stdout().is_terminal() {
        bail!(
            "a recording is not for a terminal; write it to a file: `inferprobe record TIME > FILE`"
        );
    }
    runtime::block_on(async move {
        let client = Client::connect(request.target).await?;
        let first = client.live().await?;
        let mut recorder = Recorder {
            client,
            writer: Writer::new(io::stdout()).context("write the recording")?,
            started_ns: first.source.started_ns,
            after: 0,
            requests: 0,
            missed: 0,
            is_silent: false,
        };
        recorder.begin(first).await?;
        let end = Instant::now() + request.time;
        let why = recorder.record_until(end).await?;
        recorder.finish().await?;
        // What is said here is for people: a pipe without a reader is no reason to fail.
        let _ = writeln!(
            io::stderr(),
            "inferprobe: {why}; {} requests recorded, {} missed; `inferprobe view FILE` shows them",
            recorder.requests,
            recorder.missed
        );
        Ok(())
    })
}

struct Recorder {
    client: Client,
    writer: Writer<Stdout>,
    /// Start of the agent that is recorded.
    started_ns: u64,
    /// Number of the latest request.
    after: u64,
    requests: u64,
    missed: u64,
    /// Whether the agent gave no answer last time.
    is_silent: bool,
}

impl Recorder {
    /// Writes what the agent knew before.
    async fn begin(&mut self, first: Live) -> Result<()> {
        self.histories(&first).await?;
        self.writer.live(first).context("write the recording")?;
        self.requests(true).await
    }

    /// Records until `end`, a signal, or the end of the agent; returns which.
    async fn record_until(&mut self, end: Instant) -> Result<&'static str> {
        let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut histories_at = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(end) => return Ok("the time is over"),
                _ = terminate.recv() => return Ok("ended by a signal"),
                _ = interrupt.recv() => return Ok("ended by a signal"),
                _ = ticks.tick() => {}
            }
            let Some(live) = self.live().await else {
                continue;
            };
            if live.source.started_ns != self.started_ns {
                return Ok("the agent was restarted, so the recording ends before that");
            }
            if histories_at.elapsed() >= HISTORY_INTERVAL {
                histories_at = Instant::now();
                self.histories(&live).await?;
            }
            self.writer.live(live).context("write the recording")?;
            self.requests(false).await?;
        }
    }

    /// Writes the last requests and windows, if the agent still runs.
    async fn finish(&mut self) -> Result<()> {
        let Some(live) = self.live().await else {
            return Ok(());
        };
        if live.source.started_ns != self.started_ns {
            return Ok(());
        }
        self.requests(false).await?;
        self.histories(&live).await?;
        self.writer.live(live).context("write the recording")
    }

    /// Returns what the agent knows; says once if it gives no answer.
    async fn live(&mut self) -> Option<Live> {
        match self.client.live().await {
            Ok(live) => {
                self.is_silent = false;
                Some(live)
            }
            Err(err) => {
                if !std::mem::replace(&mut self.is_silent, true) {
                    let _ = writeln!(io::stderr(), "inferprobe: {err:#}; still trying");
                }
                None
            }
        }
    }

    /// Writes the requests that finished since the last time; at first, those that the agent still keeps.
    async fn requests(&mut self, mut is_first: bool) -> Result<()> {
        loop {
            let Ok(mut answer) = self.client.requests(Some(self.after)).await else {
                return Ok(());
            };
            if answer.source.started_ns != self.started_ns {
                return Ok(());
            }
            if std::mem::replace(&mut is_first, false) {
                // What is no longer kept had finished before the recording.
                answer.missed = 0;
            }
            self.after = answer.next;
            self.requests += answer.requests.len() as u64;
            self.missed += answer.missed;
            let is_all = answer.next >= answer.last || answer.requests.is_empty();
            self.writer
                .requests(answer)
                .context("write the recording")?;
            if is_all {
                return Ok(());
            }
        }
    }

    /// Writes the last minutes of the host and of each model.
    async fn histories(&mut self, live: &Live) -> Result<()> {
        let models = live.models.iter();
        let each = models.map(|model| Wanted::of(&model.served, &model.labels));
        for wanted in std::iter::once(Wanted::default()).chain(each) {
            if let Ok(history) = self.client.history(&wanted).await {
                self.writer
                    .history(history)
                    .context("write the recording")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_is_a_day_at_most() {
        for (text, seconds) in [("1s", 1), ("10m", 600), ("2h", 7200), ("24h", 86_400)] {
            assert_eq!(parse_time(text).unwrap(), Duration::from_secs(seconds));
        }
        for text in [
            "",
            "10",
            "m",
            "0s",
            "25h",
            "10x",
            "-1s",
            "1.5m",
            "99999999999999999999h",
            "ü",
        ] {
            let err = parse_time(text).unwrap_err().to_string();
            assert!(
                err.starts_with("TIME") && err.contains("10m") || err.contains("24h"),
                "{err}"
            );
        }
    }
}
