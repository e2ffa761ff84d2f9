//! What an agent takes that has nothing to measure.

use inferprobe_tests::{agent::Agent, report::row, require_kernel::require_kernel};

/// Most resident memory, bytes; the docs state less.
const RESIDENT_BYTES: u64 = 20_000_000;

#[test]
fn an_idle_agent_is_small() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let agent = Agent::start::<&str>(&[]);
    agent.metrics();
    let resident_bytes = agent.rss_bytes();
    row(
        "idle agent",
        "resident memory, MB",
        "-",
        &format!("{:.1}", resident_bytes as f64 / 1e6),
        "20",
    );
    assert!(resident_bytes <= RESIDENT_BYTES, "{resident_bytes}");
    agent.stop();
}
