//! Collects the series of one GPU, or of one MIG instance, and counts the values that it lacks.
//!
//! Each series begins with the same three labels: `device`, `uuid` and `mig`.
//! Does not depend on: which values there are.

use nvml_wrapper::error::NvmlError;

use crate::metrics::{Metrics, Reading, Value, families, family::Family};

/// Why a value is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// The device or its driver has no such value.
    NotSupported,
    /// NVML reported an error.
    Failed,
    /// NVML does not report it of MIG instances.
    Mig,
    /// Utilization is 0, but other values show that the GPU works.
    ZeroWhileBusy,
    /// There are more than the agent keeps.
    Limit,
}

impl Gap {
    /// Label `reason`.
    const fn name(self) -> &'static str {
        match self {
            Self::NotSupported => "not_supported",
            Self::Failed => "failed",
            Self::Mig => "mig",
            Self::ZeroWhileBusy => "zero_while_busy",
            Self::Limit => "limit",
        }
    }
}

/// The series of one GPU or MIG instance.
#[derive(Debug)]
pub(super) struct Series {
    /// Values of the labels `device`, `uuid` and `mig`.
    labels: [String; 3],
    readings: Vec<Reading>,
    gaps: Vec<(&'static str, Gap)>,
}

impl Series {
    /// Starts with none; `mig` is the id of the GPU instance, `None` for the whole GPU.
    pub(super) fn new(index: u32, uuid: &str, mig: Option<u32>) -> Self {
        let mig = mig.map(|id| id.to_string()).unwrap_or_default();
        Self {
            labels: [index.to_string(), uuid.to_owned(), mig],
            readings: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// Adds a series; `labels` are the values of the labels after the first three.
    pub(super) fn push(
        &mut self,
        family: &'static Family,
        labels: &[&str],
        value: impl Into<Value>,
    ) {
        let own = self.labels.iter().map(String::as_str);
        let labels: Vec<&str> = own.chain(labels.iter().copied()).collect();
        self.readings.push(Reading::new(family, &labels, value));
    }

    /// Adds a series if there is a value.
    pub(super) fn push_some(
        &mut self,
        family: &'static Family,
        labels: &[&str],
        value: Option<impl Into<Value>>,
    ) {
        if let Some(value) = value {
            self.push(family, labels, value);
        }
    }

    /// Counts a value that is unknown.
    pub(super) fn gap(&mut self, value: &'static str, gap: Gap) {
        self.gaps.push((value, gap));
    }

    /// Returns a value that a device may lack. An error of this value alone is counted; that of a lost device is returned.
    pub(super) fn optional<T>(
        &mut self,
        value: &'static str,
        outcome: Result<T, NvmlError>,
    ) -> Result<Option<T>, NvmlError> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(err) if is_absence(&err) => Ok(None),
            Err(err) if is_loss(&err) => Err(err),
            Err(_) => {
                self.gap(value, Gap::Failed);
                Ok(None)
            }
        }
    }

    /// Returns a value that a device should have: [`Self::optional`], but its absence counts as well.
    pub(super) fn expected<T>(
        &mut self,
        value: &'static str,
        outcome: Result<T, NvmlError>,
    ) -> Result<Option<T>, NvmlError> {
        if outcome.as_ref().is_err_and(is_absence) {
            self.gap(value, Gap::NotSupported);
        }
        self.optional(value, outcome)
    }

    /// Counts the unknown values, and returns the others.
    pub(super) fn finish(self, metrics: &Metrics) -> Vec<Reading> {
        let [device, uuid, mig] = &self.labels;
        for (value, gap) in self.gaps {
            let labels = [device, uuid, mig, value, gap.name()];
            metrics.add(&families::GPU_UNKNOWN, &labels, 1);
        }
        self.readings
    }
}

/// Whether the device or the driver does not have a value at all.
fn is_absence(err: &NvmlError) -> bool {
    matches!(
        err,
        NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound
    )
}

/// Whether the whole device, or the driver, is gone.
fn is_loss(err: &NvmlError) -> bool {
    matches!(
        err,
        NvmlError::GpuLost
            | NvmlError::Uninitialized
            | NvmlError::DriverNotLoaded
            | NvmlError::ResetRequired
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Format, Selection};

    #[test]
    fn one_value_that_fails_is_counted_and_a_lost_device_is_an_error() {
        let mut series = Series::new(3, "GPU-a", Some(7));
        for (outcome, expected) in [
            (Ok(5), Some(5)),
            (Err(NvmlError::NotSupported), None),
            (Err(NvmlError::Unknown), None),
        ] {
            assert_eq!(series.optional("power", outcome).unwrap(), expected);
        }
        let missing: Result<u8, _> = Err(NvmlError::NotSupported);
        assert_eq!(series.expected("energy", missing).unwrap(), None);
        let lost: Result<u8, _> = Err(NvmlError::GpuLost);
        assert!(series.optional("power", lost).is_err());
        let metrics = Metrics::new("vm");
        assert!(series.finish(&metrics).is_empty());
        let selection = Selection::named(["inferprobe_gpu_unknown_total"]);
        let text = metrics.encode(&selection, Format::Text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let line = |value: &str, reason: &str| {
            format!(
                "inferprobe_gpu_unknown_total{{device=\"3\",uuid=\"GPU-a\",mig=\"7\",value=\"{value}\",reason=\"{reason}\"}} 1"
            )
        };
        assert_eq!(
            lines,
            [line("energy", "not_supported"), line("power", "failed")]
        );
    }
}
