//! Measures what the agent itself uses: CPU at a steady rate and at full speed, memory, and the time of a scrape.

use std::time::Duration;

use anyhow::Result;

use inferprobe_tests::{agent::Agent, load::Outcome, server::Server};

use crate::{
    Pace, load,
    report::{Row, Section},
    scrape::{self, MODELS},
    watch,
};

/// Rates in requests per second, and how many requests are sent together: sent one by one, a client does not reach the
/// second rate.
const RATES_PER_S: [(u32, u32); 2] = [(10_000, 1), (50_000, 5)];
/// Length of the load at each rate; long compared with the hundredths of a second in which the kernel counts.
const STEADY: Duration = Duration::from_secs(8);
/// Length of the load at full speed, and of the measurement of an idle agent.
const SHORT: Duration = Duration::from_secs(3);
const RSS_TARGET_MB: f64 = 30.0;

/// Starts one agent, and measures it idle, under load and during scrapes.
pub(crate) fn measure(scrapes: u32) -> Result<Vec<Section>> {
    let server = Server::start(&["--echo"]);
    let agent = Agent::start_unlogged(&watch(&server));
    let (idle_s, ()) = cpu_during(&agent, || {
        std::thread::sleep(SHORT);
        Ok(())
    })?;
    let idle_bytes = agent.rss_bytes();
    let mut cpu = Vec::new();
    let mut sent = 0;
    for (rate_per_s, pipelined) in RATES_PER_S {
        let pace = Pace {
            rate_per_s: Some(rate_per_s),
            pipelined,
        };
        let (cpu_s, outcome) = cpu_during(&agent, || load(&server, STEADY, pace))?;
        let what = format!("at {rate_per_s} requests/s offered, {pipelined} in a send");
        cpu.push(cpu_row(what, cpu_s, &outcome));
        sent += outcome.requests;
    }
    let (hot_s, hot) = cpu_during(&agent, || load(&server, SHORT, Pace::FULL))?;
    let loaded_bytes = agent.rss_bytes();
    let scraped = scrape::measure(&agent, &server, scrapes)?;
    let scraped_bytes = agent.rss_bytes();
    sent += hot.requests + scrape::REQUESTS as u64;
    let counts = counts(&agent, sent);
    agent.stop();

    cpu.push(cpu_row("at full speed".into(), hot_s, &hot));
    cpu.push(Row::new(
        "idle",
        format!("{:.4} s/s", idle_s / SHORT.as_secs_f64()),
    ));
    let memory = vec![
        rss("idle", idle_bytes),
        rss("after load", loaded_bytes),
        rss(&format!("after scrapes of {MODELS} models"), scraped_bytes),
    ];
    let section = |title: &str, rows| Section {
        title: title.to_owned(),
        rows,
    };
    Ok(vec![
        section(
            "CPU time of the agent, all threads (hooks run on account of those they watch)",
            cpu,
        ),
        section("Resident memory of the agent", memory),
        scraped,
        section("What the agent made of these loads", counts),
    ])
}

/// Returns the requests counted, of `sent`, and what became of the others.
fn counts(agent: &Agent, sent: u64) -> Vec<Row> {
    let (_, text) = agent.get("/metrics");
    let total = |family: &str| -> u64 {
        let values = text
            .lines()
            .filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        values.sum()
    };
    let requests = total("inferprobe_requests_total");
    let lost = total("inferprobe_records_lost_total");
    vec![
        Row::new("requests counted", requests.to_string())
            .at_least(requests as f64, sent as f64)
            .detail(format!("of {sent} sent")),
        Row::new(
            "requests unfinished",
            total("inferprobe_requests_unfinished_total").to_string(),
        ),
        Row::new("records lost", lost.to_string()).at_most(lost as f64, 0.0, "records"),
    ]
}

/// Returns the CPU time of the agent while `act` ran, in seconds.
fn cpu_during<T>(agent: &Agent, act: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let before_s = agent.cpu_s();
    let outcome = act()?;
    Ok((agent.cpu_s() - before_s, outcome))
}

/// Returns the share of one core that the agent used during a load.
fn cpu_row(what: String, cpu_s: f64, outcome: &Outcome) -> Row {
    let per_request_us = cpu_s * 1e6 / outcome.requests as f64;
    let rate = outcome.requests_per_s;
    Row::new(what, format!("{:.4} s/s", cpu_s / outcome.elapsed_s)).detail(format!(
        "{per_request_us:.2} µs per request, measured at {rate:.0} requests/s"
    ))
}

fn rss(when: &str, bytes: u64) -> Row {
    let mb = bytes as f64 / 1e6;
    Row::new(when, format!("{mb:.1} MB")).at_most(mb, RSS_TARGET_MB, "MB")
}
