//! The `autoscale` command: from the agent's page and TorchServe's description to a number of workers.

pub mod decision;
pub mod options;
pub mod page;
pub mod queue;
pub mod report;
pub mod run;
