//! Requests from TorchServe which models its workers run, if procfs does not name them.
//!
//! It runs in a thread, so that a slow TorchServe does not delay the event loop.
//! Does not depend on: records, metrics.

use std::{collections::BTreeSet, io, sync::mpsc, thread, time::Duration};

use anyhow::{Context as _, Result};
use tracing::warn;

use crate::{
    http::url::HttpUrl,
    torchserve::management::{Management, RunningWorker},
};

/// Longest time for one response.
const RESPONSE_LIMIT: Duration = Duration::from_secs(5);

/// Starts a thread that calls the management API at `address` and sends what it returns about the processes `pids`.
pub fn spawn(address: HttpUrl, pids: BTreeSet<u32>) -> io::Result<mpsc::Receiver<RunningWorker>> {
    let (found, receiver) = mpsc::channel();
    let look_up = move || match look_up(address.clone()) {
        Ok(running) => {
            let wanted = running.into_iter().filter(|one| pids.contains(&one.pid));
            // The receiver is gone when the agent ends.
            wanted.for_each(|one| drop(found.send(one)));
        }
        Err(err) => warn!(
            err = format!("{err:#}"),
            "TorchServe workers not exported: their models are unknown"
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
        .context("start the look-up of TorchServe workers")?;
    runtime.block_on(Management::new(address, None, RESPONSE_LIMIT).running())
}
