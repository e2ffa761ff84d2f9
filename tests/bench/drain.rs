//! Measures how many records one core processes in a second: the agent's own code from a record's bytes to the metrics,
//! without a kernel.
//!
//! The agent's example `drain` does it, in a process of its own.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::report::{Row, Section};

const TARGET_PER_S: f64 = 200_000.0;

/// A line of the example's output.
#[derive(Debug, Deserialize)]
struct Drained {
    traffic: String,
    records: u64,
    requests: u64,
    cpu_s: f64,
}

/// Runs the example, whose program is beside the bench's.
pub(crate) fn measure() -> Result<Section> {
    let own = std::env::current_exe().context("find the bench's own program")?;
    let program = own.with_file_name("examples").join("drain");
    let output = Command::new(&program)
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    ensure!(
        output.status.success(),
        "drain: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let rows = lines.filter(|line| !line.is_empty()).map(row);
    Ok(Section {
        title: "Records that one core processes, from their bytes to the metrics (by its own time)"
            .into(),
        rows: rows.collect::<Result<_>>()?,
    })
}

fn row(line: &[u8]) -> Result<Row> {
    let drained: Drained = serde_json::from_slice(line).context("read a line of drain")?;
    let per_s = drained.records as f64 / drained.cpu_s;
    let each_ns = drained.cpu_s * 1e9 / drained.records as f64;
    Ok(Row::new(drained.traffic, format!("{per_s:.0} /s"))
        .at_least(per_s, TARGET_PER_S)
        .detail(format!(
            "{} records of {} requests, {each_ns:.0} ns each",
            drained.records, drained.requests
        )))
}
