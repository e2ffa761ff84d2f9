//! Measures what TLS costs a watched server: timed by its records, read by probes in the library, and beside a server that
//! is read.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context, Result};

use inferprobe_tests::agent::Agent;

use crate::{
    Pace,
    extremes::Extremes,
    fastapi::FastApi,
    load_at, load_encrypted_at,
    placement::Placement,
    report::{Row, Section},
    watch_port,
};

/// Length of a round.
const ROUND: Duration = Duration::from_millis(1_500);
/// Until the probes are in the server, after the agent's start.
const FOUND: Duration = Duration::from_secs(2);
/// Until they are out of it again: the kernel removes one after the other.
const DETACHED: Duration = Duration::from_secs(10);
const PLACEMENT: Placement = Placement::Together;
/// Most that reading may add to a request, microseconds.
const READ_TARGET_US: f64 = 10.0;

/// The FastAPI servers: one in clear, one with TLS, and one more with TLS that nobody watches.
struct Servers {
    plain: FastApi,
    encrypted: FastApi,
    other: FastApi,
}

/// What is measured: time of a request, seconds.
struct Group {
    plain: f64,
    plain_watched: f64,
    encrypted: f64,
    timed: f64,
    read: f64,
    other: f64,
    beside_read: f64,
}

/// Runs `groups` groups of rounds. `folder` has the Python environment `venv`.
pub(crate) fn measure(folder: Option<&Path>, groups: u32) -> Result<Section> {
    let title = format!(
        "TLS: FastAPI on uvicorn, {}, added to a request (medians)",
        PLACEMENT.name()
    );
    let Some(folder) = folder else {
        let row = Row::new("not measured", "-").detail("--frameworks names no folder");
        return Ok(Section {
            title,
            rows: vec![row],
        });
    };
    let start = |encrypted| PLACEMENT.of_server(|| FastApi::start(folder, "none", encrypted))?;
    let servers = Servers {
        plain: start(false)?,
        encrypted: start(true)?,
        other: start(true)?,
    };
    servers.group()?;
    let groups: Result<Vec<Group>> = (0..groups).map(|_| servers.group()).collect();
    let groups = groups?;
    let row = |name: &str, added: fn(&Group) -> f64| -> Result<(Row, f64)> {
        let added = groups.iter().map(|group| added(group) * 1e6);
        let extremes = Extremes::of(added.collect()).context("no round")?;
        let Extremes {
            least,
            median,
            most,
        } = extremes;
        let row = Row::new(name, format!("{median:.1} µs"));
        let row = row.detail(format!(
            "{least:.1} to {most:.1} over {} groups",
            groups.len()
        ));
        Ok((row, median))
    };
    let (plain, plain_us) = row("in clear, by the agent", |group| {
        group.plain_watched - group.plain
    })?;
    let (timed, timed_us) = row("with TLS, by the agent", |group| {
        group.timed - group.encrypted
    })?;
    let (read, read_us) = row("with TLS, by the agent with --tls openssl", |group| {
        group.read - group.encrypted
    })?;
    let (beside, _) = row(
        "with TLS and not watched, beside one that is read",
        |group| group.beside_read - group.other,
    )?;
    let (whole, _) = row("a request with TLS, bare", |group| group.encrypted)?;
    Ok(Section {
        title,
        rows: vec![
            whole,
            plain,
            timed.at_most(timed_us, (plain_us * 10.0).round() / 10.0, "µs"),
            read.at_most(read_us, READ_TARGET_US, "µs"),
            beside,
        ],
    })
}

impl Servers {
    /// Each watched round is between two bare ones.
    fn group(&self) -> Result<Group> {
        let plain = || seconds(load_at(self.plain.port, ROUND, Pace::FULL)?.requests_per_s);
        let tls = |server: &FastApi| {
            seconds(load_encrypted_at(server.port, ROUND, Pace::FULL)?.requests_per_s)
        };
        PLACEMENT.of_others(|| {
            let [first_plain, first] = [plain()?, tls(&self.encrypted)?];
            let plain_watched = beside(&watch_port(self.plain.port), plain)?;
            let options = watch_port(self.encrypted.port);
            let timed = beside(&options, || tls(&self.encrypted))?;
            let other = tls(&self.other)?;
            let reading = [&options[..], &["--tls".to_owned(), "openssl".to_owned()]].concat();
            let (read, beside_read) =
                beside(&reading, || Ok((tls(&self.encrypted)?, tls(&self.other)?)))?;
            Ok(Group {
                plain: (first_plain + plain()?) / 2.0,
                plain_watched,
                encrypted: (first + tls(&self.encrypted)?) / 2.0,
                timed,
                read,
                other: (other + tls(&self.other)?) / 2.0,
                beside_read,
            })
        })?
    }
}

/// Runs `round` while an agent with these options runs.
fn beside<T>(options: &[String], round: impl FnOnce() -> Result<T>) -> Result<T> {
    let agent = Agent::start_unlogged(options);
    thread::sleep(FOUND);
    let outcome = round();
    agent.stop_within(DETACHED);
    outcome
}

fn seconds(requests_per_s: f64) -> Result<f64> {
    anyhow::ensure!(requests_per_s > 0.0, "no request was answered");
    Ok(1.0 / requests_per_s)
}
