//! Runs `inferprobe autoscale`: adjusts the number of TorchServe workers of one model to its queue time.
//!
//! `queue` reads the agent's metrics, `decision` decides, `control_loop` waits and calls TorchServe.
//! Does not depend on: the probes.

pub mod control_loop;
pub mod decision;
pub mod options;
pub mod queue;
pub mod report;

use anyhow::Result;

use crate::commands::{autoscale::options::Options, runtime};

/// Scales until a signal ends the command.
pub fn run(options: Options) -> Result<()> {
    runtime::block_on(control_loop::run(options))
}
