//! Measures what it costs to read bodies of different lengths: with them copied up to the default limit, and without.

use std::time::Duration;

use anyhow::{Context, Result};

use inferprobe_tests::{
    agent::Agent,
    load::{self, Load},
    server::Server,
};

use crate::{
    bpf_stats,
    report::{Row, Section},
    watch,
};

/// Bytes of the bodies, and their lengths as the table names them.
const BODIES: [(usize, &str); 4] = [
    (200, "0.2 KB"),
    (4 << 10, "4 KB"),
    (64 << 10, "64 KB"),
    (1 << 20, "1,024 KB"),
];
/// Length of each load.
const LOAD: Duration = Duration::from_secs(2);
/// Most that watching may add in the kernel.
const TARGET_NS_PER_KB: f64 = 1000.0;

/// What one request costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    kernel_ns: f64,
    agent_us: f64,
}

/// Loads one server with bodies of each length: not watched, watched without bodies, and watched.
pub(crate) fn measure() -> Result<Section> {
    let server = Server::start(&["--echo"]);
    let other = Server::start(&["--echo"]);
    let stats = bpf_stats::enable().context("switch BPF statistics on (bpf(2), Linux 5.8)")?;
    let unwatched = costs(&server, &watch(&other))?;
    let watch = watch(&server);
    let limit = ["--body-limit".to_owned(), "0".to_owned()];
    let without = costs(&server, &[&watch[..], &limit].concat())?;
    let with = costs(&server, &watch)?;
    drop(stats);
    let mut rows = Vec::new();
    for (index, (bytes, name)) in BODIES.into_iter().enumerate() {
        let added = |costs: &[Cost]| costs[index].kernel_ns - unwatched[index].kernel_ns;
        let kb = bytes as f64 / 1024.0;
        let per_kb_ns = (added(&with) - added(&without)) / kb;
        rows.push(
            Row::new(format!("{name}, kernel"), format!("{:.0} ns", added(&with)))
                .at_most(per_kb_ns, TARGET_NS_PER_KB, "ns per KB for bodies")
                .detail(format!(
                    "{:.0} ns with --body-limit 0; bodies add {per_kb_ns:.0} ns per KB",
                    added(&without)
                )),
        );
        rows.push(
            Row::new(
                format!("{name}, agent"),
                format!("{:.2} µs", with[index].agent_us),
            )
            .detail(format!(
                "{:.2} µs with --body-limit 0",
                without[index].agent_us
            )),
        );
    }
    Ok(Section {
        title: "What watching adds per request, by the length of its JSON body, which names the model last (both ends)".into(),
        rows,
    })
}

/// Returns what a request with each of [`BODIES`] costs while an agent with these options runs.
fn costs(server: &Server, options: &[String]) -> Result<Vec<Cost>> {
    let agent = Agent::start_unlogged(options);
    let kernel_ns = || -> u64 {
        let runs = bpf_stats::by_tracepoint(agent.pid());
        runs.values().map(|runs| runs.ns).sum()
    };
    let mut costs = Vec::new();
    for (bytes, _) in BODIES {
        let (before_ns, before_s) = (kernel_ns(), agent.cpu_s());
        let outcome = load::run(&Load {
            address: ([127, 0, 0, 1], server.port()).into(),
            // The server and the client would wait for each other: both send a whole body at once.
            connections: 1,
            duration: LOAD,
            target: "/v1/completions".into(),
            body_bytes: bytes,
            rate_per_s: None,
            pipelined: 1,
            encrypted: false,
        })?;
        let requests = outcome.requests.max(1) as f64;
        costs.push(Cost {
            kernel_ns: (kernel_ns() - before_ns) as f64 / requests,
            agent_us: (agent.cpu_s() - before_s) * 1e6 / requests,
        });
    }
    agent.stop();
    Ok(costs)
}
