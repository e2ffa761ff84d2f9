//! Keeps what the requests of each model spent in the last minutes, and judges it.
//!
//! The recorder adds each finished inference request; collectors add what they read of servers. `sample` is one request,
//! `occupancy` the threads and workers that were busy with requests, `readings` what collectors read of a server, `models` the windows of each model.
//! Does not depend on: how anything is measured, metrics.

pub mod models;
pub mod occupancy;
pub mod readings;
pub mod sample;
pub mod span;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::history::models::Models;

/// What is known of each model and server, shared by the event loop and the collectors.
#[derive(Debug, Default)]
pub struct History(Mutex<Models>);

impl History {
    /// Returns the models, for this thread alone.
    pub fn models(&self) -> MutexGuard<'_, Models> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
