//! What the agent itself uses: CPU at a steady rate and at full speed, memory, and the time of a scrape.

use std::time::Duration;

use anyhow::Result;

use crate::{
    agent::Agent,
    bench::{
        load,
        report::{Row, Section},
        scrape::{self, MODELS},
        watch,
    },
    load::Outcome,
    server::Server,
};

/// Requests per second that the CPU figure is for.
const RATE_PER_S: u32 = 10_000;
/// Length of the load at that rate; long beside the hundredths of a second that the kernel counts in.
const STEADY: Duration = Duration::from_secs(8);
/// Length of the load at full speed, and of the look at an idle agent.
const SHORT: Duration = Duration::from_secs(3);
const RSS_TARGET_MB: f64 = 30.0;

/// Starts one agent and takes it through idleness, load and scrapes.
pub fn measure(scrapes: u32) -> Result<Vec<Section>> {
    let server = Server::start(&["--echo"]);
    let agent = Agent::start_unlogged(&watch(&server));
    let (idle_s, ()) = cpu_during(&agent, || {
        std::thread::sleep(SHORT);
        Ok(())
    })?;
    let idle_bytes = agent.rss_bytes();
    let (steady_s, steady) = cpu_during(&agent, || load(&server, STEADY, Some(RATE_PER_S)))?;
    let (hot_s, hot) = cpu_during(&agent, || load(&server, SHORT, None))?;
    let loaded_bytes = agent.rss_bytes();
    let scraped = scrape::measure(&agent, &server, scrapes)?;
    let scraped_bytes = agent.rss_bytes();
    let sent = steady.requests + hot.requests + scrape::REQUESTS as u64;
    let counts = counts(&agent, sent);
    agent.stop();

    let per_request_s = steady_s / steady.requests as f64;
    let cpu = vec![
        Row::new(
            format!("at {RATE_PER_S} requests/s"),
            format!("{:.4} s/s", per_request_s * f64::from(RATE_PER_S)),
        )
        .detail(cpu_detail(steady_s, &steady)),
        Row::new("at full speed", format!("{:.4} s/s", hot_s / hot.elapsed_s))
            .detail(cpu_detail(hot_s, &hot)),
        Row::new("idle", format!("{:.4} s/s", idle_s / SHORT.as_secs_f64())),
    ];
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

/// Requests counted, of `sent`, and where the others are.
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
    vec![
        Row::new("requests counted", requests.to_string()).detail(format!("of {sent} sent")),
        Row::new(
            "requests unfinished",
            total("inferprobe_requests_unfinished_total").to_string(),
        ),
        Row::new(
            "records lost",
            total("inferprobe_records_lost_total").to_string(),
        ),
    ]
}

/// CPU time of the agent while `act` ran, seconds.
fn cpu_during<T>(agent: &Agent, act: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let before_s = agent.cpu_s();
    let outcome = act()?;
    Ok((agent.cpu_s() - before_s, outcome))
}

fn cpu_detail(cpu_s: f64, outcome: &Outcome) -> String {
    let per_request_us = cpu_s * 1e6 / outcome.requests as f64;
    let rate = outcome.requests_per_s;
    format!("{per_request_us:.2} µs per request, measured at {rate:.0} requests/s")
}

fn rss(when: &str, bytes: u64) -> Row {
    let mb = bytes as f64 / 1e6;
    Row::new(when, format!("{mb:.1} MB")).at_most(mb, RSS_TARGET_MB, "MB")
}
