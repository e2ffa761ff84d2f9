//! Keeps a quarter of an hour of TorchServe's values of each GPU.
//!
//! Does not depend on: how they are read.

use std::collections::VecDeque;

use crate::{
    api::history::GpuReading,
    history::{span::WINDOW_NS, trends::WINDOWS},
};

/// GPUs that are kept.
const DEVICES: usize = 32;

/// Readings of all GPUs, oldest first.
#[derive(Debug, Default)]
pub struct GpuReadings(VecDeque<GpuReading>);

impl GpuReadings {
    /// Adds a reading of each GPU, unless the one before is of the same window.
    pub fn add(&mut self, readings: impl IntoIterator<Item = GpuReading>) {
        let latest = self.0.back().map(|latest| latest.at_ns / WINDOW_NS);
        for reading in readings.into_iter().take(DEVICES) {
            let window = reading.at_ns / WINDOW_NS;
            if latest.is_none_or(|latest| latest < window) {
                self.0.push_back(reading);
            }
        }
        let newest = self.0.back().map_or(0, |newest| newest.at_ns / WINDOW_NS);
        let is_old = |one: &mut GpuReading| one.at_ns / WINDOW_NS + WINDOWS <= newest;
        while self.0.pop_front_if(is_old).is_some() {}
    }

    /// Returns the readings from the window `from` on.
    pub fn from(&self, from: u64) -> Vec<GpuReading> {
        let kept = self.0.iter();
        kept.filter(|one| one.at_ns / WINDOW_NS >= from)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn reading(at_s: u64, device: u32) -> GpuReading {
        GpuReading {
            at_ns: at_s * S,
            device,
            ..GpuReading::default()
        }
    }

    #[test]
    fn one_reading_of_each_window_is_kept_for_a_quarter_of_an_hour() {
        let mut readings = GpuReadings::default();
        for at_s in 1_000..3_000 {
            readings.add([reading(at_s, 0), reading(at_s, 1)]);
        }
        assert_eq!(readings.0.len() as u64, 2 * WINDOWS);
        assert_eq!(readings.0[0], reading(2_100, 0));
        assert_eq!(
            readings.from(2_995 / 5),
            [reading(2_995, 0), reading(2_995, 1)]
        );
    }
}
