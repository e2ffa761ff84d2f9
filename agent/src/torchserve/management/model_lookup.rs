//! Asks TorchServe itself which model its workers run, where nothing else on the host tells.
//!
//! A thread of its own: what TorchServe takes for its answers holds nobody up.

use std::{collections::BTreeSet, io, sync::mpsc, thread, time::Duration};

use anyhow::{Context as _, Result};
use tracing::warn;

use crate::torchserve::management::{Management, RunningWorker, url::HttpUrl};

/// Longest time for one answer.
const RESPONSE_LIMIT: Duration = Duration::from_secs(5);

/// Asks the management API at `address` about the worker processes `pids`, and gives what it says of them.
pub fn spawn(address: HttpUrl, pids: BTreeSet<u32>) -> io::Result<mpsc::Receiver<RunningWorker>> {
    let (found, receiver) = mpsc::channel();
    let look_up = move || match look_up(address.clone()) {
        Ok(running) => {
            let asked = running.into_iter().filter(|one| pids.contains(&one.pid));
            // Nobody waits any more when the agent ends.
            asked.for_each(|one| drop(found.send(one)));
        }
        Err(err) => warn!(
            err = format!("{err:#}"),
            "workers of TorchServe left out: nothing tells their models"
        ),
    };
    thread::Builder::new()
        .name("lookup".into())
        .spawn(look_up)?;
    Ok(receiver)
}

fn look_up(address: HttpUrl) -> Result<Vec<RunningWorker>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("prepare to ask TorchServe")?;
    runtime.block_on(Management::new(address, None, RESPONSE_LIMIT).running())
}
