//! Measures what a redis server pays that nobody watches: on a host with nothing to watch, and beside a watched server.

use std::{
    io,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use inferprobe_tests::{
    agent::{Agent, free_port},
    client::await_listener,
    process::Owned,
    server::Server,
};

use crate::{
    CONNECTIONS,
    extremes::Extremes,
    placement::Placement,
    report::{Row, Section},
    watch,
};

const SERVER: &str = "redis-server";
const CLIENT: &str = "redis-benchmark";
/// Requests of a round: about half a second.
const REQUESTS: u32 = 40_000;
/// Longest time that a new listener may be undecided, with what the agent takes to detach its hooks.
const DECIDED: Duration = Duration::from_secs(20);
const PLACEMENT: Placement = Placement::Together;

/// Runs `groups` groups of rounds in each situation: without, with, with, without the agent. The two rounds without it
/// show what the machine itself does.
pub(crate) fn measure(groups: u32) -> Result<Section> {
    let title =
        "Throughput of a redis that nobody watches, GET, all on one CPU, as a ratio (medians)";
    let section = |rows| Section {
        title: title.to_owned(),
        rows,
    };
    if let Some(missing) = [SERVER, CLIENT].into_iter().find(|name| !is_here(name)) {
        let row = Row::new("not measured", "-");
        return Ok(section(vec![row.detail(format!("there is no {missing}"))]));
    }
    let (_redis, port) = start_redis()?;
    let watched = Server::start(&["--echo"]);
    let mut rows = Vec::new();
    for (name, args) in [
        ("nothing to watch", &[][..]),
        ("beside a watched server", &watch(&watched)),
    ] {
        let (mut ratios, mut controls) = (Vec::new(), Vec::new());
        for _ in 0..groups {
            let before = round(port)?;
            let agent = PLACEMENT.of_others(|| Agent::start_unlogged(args))?;
            std::thread::sleep(DECIDED);
            let with = (round(port)? + round(port)?) / 2.0;
            agent.stop();
            let after = round(port)?;
            ratios.push(2.0 * with / (before + after));
            controls.push(after / before);
        }
        let (ratio, spread) = Extremes::of(ratios).context("no round")?.in_words();
        let (control, spread_of_control) = Extremes::of(controls).context("no round")?.in_words();
        rows.push(Row::new(name, ratio).detail(format!(
            "{spread} over {groups} groups; without the agent, the last round to the first {control} \
             ({spread_of_control})"
        )));
    }
    Ok(section(rows))
}

/// Whether a program can be started.
fn is_here(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("--version").stdout(Stdio::null());
    command.status().is_ok()
}

/// Starts a redis that keeps nothing, on a free port of 127.0.0.1.
fn start_redis() -> Result<(Owned, u16)> {
    let port = free_port();
    let start = || {
        Command::new(SERVER)
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string())
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
    };
    let child = PLACEMENT.of_server(start)?.context("start redis")?;
    let owned = Owned(child);
    await_listener("redis", port, Duration::from_secs(10));
    Ok((owned, port))
}

/// Returns the requests per second of one round.
fn round(port: u16) -> Result<f64> {
    let run = || -> io::Result<_> {
        Command::new(CLIENT)
            .args(["-h", "127.0.0.1", "-t", "get", "--csv", "-p"])
            .arg(port.to_string())
            .args(["-c", &CONNECTIONS.to_string(), "-n", &REQUESTS.to_string()])
            .output()
    };
    let output = PLACEMENT.of_others(run)?.context("start its client")?;
    ensure!(output.status.success(), "{CLIENT} failed");
    let text = String::from_utf8_lossy(&output.stdout);
    rate_in(&text).with_context(|| format!("{CLIENT} says: {text}"))
}

/// Finds the rate in the client's table, whose first columns are the command and its requests per second.
fn rate_in(csv: &str) -> Option<f64> {
    let row = csv.lines().find(|line| line.starts_with("\"GET\""))?;
    row.split(',').nth(1)?.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_in_the_second_column() {
        let csv = "\"test\",\"rps\"\n\"GET\",\"91743.12\",\"0.2\"\n";
        assert_eq!(rate_in(csv), Some(91743.12));
        assert_eq!(rate_in("\"test\",\"rps\"\n"), None);
    }
}
