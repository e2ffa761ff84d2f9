//! Reads what each process uses of a GPU.
//!
//! Does not depend on: who the processes are.

use std::collections::BTreeMap;

use nvml_wrapper::{
    Device, enums::device::UsedGpuMemory, error::NvmlError,
    struct_wrappers::device::ProcessUtilizationSample,
};

use crate::collectors::gpu::series::{Gap, Series};

/// Most processes to keep of one GPU.
const MAX_PROCESSES: usize = 64;

/// What one process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ProcessUse {
    /// Share of time in which it ran kernels, percent; `None` if it ran none, or if that is unknown.
    pub(super) sm_pct: Option<f64>,
    /// Share of time in which it read or wrote memory, percent.
    pub(super) memory_pct: Option<f64>,
    /// Memory, bytes.
    pub(super) memory_bytes: Option<u64>,
}

/// The processes that use a GPU.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// By process id.
    pub(super) by_pid: BTreeMap<u32, ProcessUse>,
    /// Whether NVML says who ran kernels.
    pub(super) is_timed: bool,
}

impl Processes {
    /// Reads who has memory of a GPU or MIG instance.
    pub(super) fn read(device: &Device<'_>, series: &mut Series) -> Result<Self, NvmlError> {
        let mut processes = Self::default();
        let compute = series.expected("processes", device.running_compute_processes())?;
        let shared = series.optional("mps_processes", device.mps_running_compute_processes())?;
        for process in compute.into_iter().chain(shared).flatten() {
            let used = processes.by_pid.entry(process.pid).or_default();
            if let UsedGpuMemory::Used(bytes) = process.used_gpu_memory {
                used.memory_bytes = Some(bytes);
            }
        }
        Ok(processes)
    }

    /// Adds who ran kernels since `since_us`; returns the time of the latest sample, µs, if there is one.
    pub(super) fn read_times(
        &mut self,
        device: &Device<'_>,
        since_us: u64,
        series: &mut Series,
    ) -> Result<Option<u64>, NvmlError> {
        let samples = match device.process_utilization_stats(since_us) {
            // No process ran any.
            Err(NvmlError::NotFound) => Vec::new(),
            outcome => match series.expected("process_utilization", outcome)? {
                Some(samples) => samples,
                None => return Ok(None),
            },
        };
        self.is_timed = true;
        self.add_times(&samples, since_us);
        Ok(samples.iter().map(|sample| sample.timestamp).max())
    }

    /// Adds the mean of each process's samples.
    fn add_times(&mut self, samples: &[ProcessUtilizationSample], since_us: u64) {
        let mut sums: BTreeMap<u32, (f64, f64, f64)> = BTreeMap::new();
        for sample in samples {
            // The driver fills what it has no process for with zeros, and may repeat what it has reported.
            if sample.pid == 0 || sample.timestamp <= since_us {
                continue;
            }
            let (sm_pct, memory_pct, count) = sums.entry(sample.pid).or_default();
            *sm_pct += f64::from(sample.sm_util.min(100));
            *memory_pct += f64::from(sample.mem_util.min(100));
            *count += 1.0;
        }
        for (pid, (sm_pct, memory_pct, count)) in sums {
            let used = self.by_pid.entry(pid).or_default();
            used.sm_pct = Some(sm_pct / count);
            used.memory_pct = Some(memory_pct / count);
        }
    }

    /// Returns those to export: the ones that use most. The others are counted.
    pub(super) fn largest(&self, series: &mut Series) -> Vec<(u32, ProcessUse)> {
        let mut processes: Vec<_> = self
            .by_pid
            .iter()
            .map(|(pid, used)| (*pid, *used))
            .collect();
        if processes.len() > MAX_PROCESSES {
            processes.sort_by(|(_, one), (_, other)| {
                let by_time = other
                    .sm_pct
                    .unwrap_or(0.0)
                    .total_cmp(&one.sm_pct.unwrap_or(0.0));
                by_time.then(other.memory_bytes.cmp(&one.memory_bytes))
            });
            processes.truncate(MAX_PROCESSES);
            series.gap("process", Gap::Limit);
        }
        processes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pid: u32, timestamp: u64, sm_util: u32, mem_util: u32) -> ProcessUtilizationSample {
        ProcessUtilizationSample {
            pid,
            timestamp,
            sm_util,
            mem_util,
            enc_util: 0,
            dec_util: 0,
        }
    }

    #[test]
    fn samples_of_one_process_are_averaged_and_old_ones_ignored() {
        let mut processes = Processes::default();
        let samples = [
            sample(7, 90, 100, 100),
            sample(7, 110, 40, 10),
            sample(7, 120, 60, 30),
            sample(8, 120, 1_000, 0),
            sample(0, 120, 99, 99),
        ];
        processes.add_times(&samples, 100);
        let used = |sm_pct, memory_pct| ProcessUse {
            sm_pct: Some(sm_pct),
            memory_pct: Some(memory_pct),
            memory_bytes: None,
        };
        let expected = BTreeMap::from([(7, used(50.0, 20.0)), (8, used(100.0, 0.0))]);
        assert_eq!(processes.by_pid, expected);
    }

    #[test]
    fn only_the_largest_processes_are_exported() {
        let mut processes = Processes::default();
        for pid in 1..=100 {
            let used = ProcessUse {
                sm_pct: (pid == 50).then_some(5.0),
                memory_pct: None,
                memory_bytes: Some(u64::from(pid)),
            };
            processes.by_pid.insert(pid, used);
        }
        let kept = processes.largest(&mut Series::new(0, "", None));
        assert_eq!(kept.len(), MAX_PROCESSES);
        assert_eq!((kept[0].0, kept[1].0, kept[63].0), (50, 100, 37));
    }
}
