//! Keeps what the requests of each model spent in the last minutes, and judges it.
//!
//! The recorder adds each finished inference request; collectors add what they read of servers and GPUs. `sample` is one
//! request, `seconds` when it took its time, `occupancy`
//! the threads and workers that were busy with requests, `readings` what collectors read of a server, `models` the windows of each model that a verdict is about, `trends` those of a quarter of an hour, `finished` the
//! latest requests, `gpus` the readings of GPUs.
//! Does not depend on: how anything is measured, metrics.

pub mod finished;
pub mod gpus;
#[cfg(test)]
mod mixes;
pub mod models;
pub mod occupancy;
pub mod readings;
pub mod sample;
mod seconds;
pub mod span;
pub mod trends;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    exchange::Exchange,
    history::{
        finished::Finished,
        gpus::GpuReadings,
        models::Models,
        sample::Sample,
        trends::{TorchServeTimes, Trends},
    },
    observation::Observation,
    torchserve::exchange::WorkerExchange,
};

/// What is known of each model, server and GPU, shared by the event loop, the collectors and the API.
#[derive(Debug, Default)]
pub struct History {
    models: Mutex<Models>,
    trends: Mutex<Trends>,
    finished: Mutex<Finished>,
    gpus: Mutex<GpuReadings>,
}

impl History {
    /// Returns the models, for this thread alone.
    pub fn models(&self) -> MutexGuard<'_, Models> {
        lock(&self.models)
    }

    /// Returns the windows of each model, for this thread alone.
    pub fn trends(&self) -> MutexGuard<'_, Trends> {
        lock(&self.trends)
    }

    /// Returns the latest requests, for this thread alone.
    pub fn finished(&self) -> MutexGuard<'_, Finished> {
        lock(&self.finished)
    }

    /// Returns the readings of GPUs, for this thread alone.
    pub fn gpus(&self) -> MutexGuard<'_, GpuReadings> {
        lock(&self.gpus)
    }

    /// Adds a finished inference request, and says in `observation` why it was slow, if it was slow for its model.
    pub fn add(
        &self,
        exchange: &Exchange,
        worker: Option<&WorkerExchange>,
        observation: &mut Observation,
        times: &TorchServeTimes,
    ) {
        let sample = Sample::new(exchange, worker, observation);
        observation.because = self.models().add(&observation.identity, &sample);
        self.trends().add(observation, &sample, times);
        let request = finished::describe(exchange, worker, observation, &sample);
        self.finished().add(request);
    }
}

fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
