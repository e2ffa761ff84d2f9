//! Reads what limits a GPU: power, temperature, clocks, throttling, memory errors.
//!
//! Does not depend on: processes, energy.

use nvml_wrapper::{
    Device,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{Clock, EccCounter, MemoryError, PerformancePolicy, TemperatureSensor},
    error::{Bits, NvmlError},
};

use crate::{collectors::gpu::series::Series, metrics::families};

const MHZ: f64 = 1e6;
const CLOCKS: [(Clock, &str); 4] = [
    (Clock::Graphics, "graphics"),
    (Clock::SM, "sm"),
    (Clock::Memory, "memory"),
    (Clock::Video, "video"),
];
const POLICIES: [(PerformancePolicy, &str); 8] = [
    (PerformancePolicy::Power, "power"),
    (PerformancePolicy::Thermal, "thermal"),
    (PerformancePolicy::SyncBoost, "sync_boost"),
    (PerformancePolicy::BoardLimit, "board_limit"),
    (PerformancePolicy::LowUtilization, "low_utilization"),
    (PerformancePolicy::Reliability, "reliability"),
    (PerformancePolicy::TotalAppClocks, "total_app_clocks"),
    (PerformancePolicy::TotalBaseClocks, "total_base_clocks"),
];
const REASONS: [(ThrottleReasons, &str); 9] = [
    (ThrottleReasons::GPU_IDLE, "idle"),
    (
        ThrottleReasons::APPLICATIONS_CLOCKS_SETTING,
        "applications_clocks",
    ),
    (ThrottleReasons::SW_POWER_CAP, "sw_power_cap"),
    (ThrottleReasons::HW_SLOWDOWN, "hw_slowdown"),
    (ThrottleReasons::SYNC_BOOST, "sync_boost"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "sw_thermal_slowdown"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hw_thermal_slowdown"),
    (
        ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN,
        "hw_power_brake_slowdown",
    ),
    (
        ThrottleReasons::DISPLAY_CLOCK_SETTING,
        "display_clock_setting",
    ),
];

/// Policies that make a GPU slower than it could be, in [`POLICIES`].
const SLOWING: [&str; 5] = [
    "power",
    "thermal",
    "sync_boost",
    "board_limit",
    "reliability",
];

/// Time in which each of [`SLOWING`] throttled a GPU, since its driver was loaded, ns; `None` if NVML does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Throttled(pub(super) [Option<u64>; SLOWING.len()]);

impl Throttled {
    /// Returns the time since the reading `before`; `None` if it is unknown. Several policies may hold at once, so the
    /// longest counts.
    pub(super) fn since(&self, before: &Self) -> Option<u64> {
        let known = self.0.into_iter().zip(before.0);
        let known = known.filter_map(|(now, before)| Some(now?.saturating_sub(before?)));
        known.max()
    }
}

/// Power of a GPU, mW.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Power {
    /// What it draws now.
    pub(super) now_mw: Option<u32>,
    /// Its limit.
    pub(super) limit_mw: Option<u32>,
}

/// Reads the power.
pub(super) fn read_power(device: &Device<'_>, series: &mut Series) -> Result<Power, NvmlError> {
    let now_mw = series.expected("power", device.power_usage())?;
    let limit_mw = series.optional("power_limit", device.enforced_power_limit())?;
    let watts = |mw: Option<u32>| mw.map(|mw| f64::from(mw) / 1e3);
    series.push_some(&families::GPU_POWER, &[], watts(now_mw));
    series.push_some(&families::GPU_POWER_LIMIT, &[], watts(limit_mw));
    Ok(Power { now_mw, limit_mw })
}

/// Reads temperature, clocks, throttling and memory errors; returns how long it was throttled.
pub(super) fn read(device: &Device<'_>, series: &mut Series) -> Result<Throttled, NvmlError> {
    let celsius = series.optional("temperature", device.temperature(TemperatureSensor::Gpu))?;
    series.push_some(&families::GPU_TEMPERATURE, &[], celsius.map(f64::from));
    for (clock, name) in CLOCKS {
        let mhz = series.optional("clock", device.clock_info(clock))?;
        let hertz = mhz.map(|mhz| f64::from(mhz) * MHZ);
        series.push_some(&families::GPU_CLOCK_RATE, &[name], hertz);
    }
    let mut throttled = Throttled::default();
    for (policy, name) in POLICIES {
        let violation = series.optional("throttled", device.violation_status(policy))?;
        if let Some(at) = SLOWING.iter().position(|slowing| *slowing == name) {
            throttled.0[at] = violation.as_ref().map(|violation| violation.violation_time);
        }
        let seconds = violation.map(|violation| violation.violation_time as f64 / 1e9);
        series.push_some(&families::GPU_THROTTLED, &[name], seconds);
    }
    let reasons = series.optional("throttle_reasons", throttle_reasons(device))?;
    if let Some((reasons, others)) = reasons {
        for (reason, name) in REASONS {
            let active = u64::from(reasons.contains(reason));
            series.push(&families::GPU_THROTTLE_REASON, &[name], active);
        }
        series.push(
            &families::GPU_THROTTLE_REASON,
            &["other"],
            u64::from(others),
        );
    }
    for (kind, name) in [
        (MemoryError::Corrected, "corrected"),
        (MemoryError::Uncorrected, "uncorrected"),
    ] {
        let errors = device.total_ecc_errors(kind, EccCounter::Volatile);
        let errors = series.optional("ecc_errors", errors)?;
        series.push_some(&families::GPU_ECC, &[name], errors);
    }
    Ok(throttled)
}

/// Returns the reasons that have names, and whether there are others.
fn throttle_reasons(device: &Device<'_>) -> Result<(ThrottleReasons, bool), NvmlError> {
    match device.current_throttle_reasons_strict() {
        Ok(reasons) => Ok((reasons, false)),
        Err(NvmlError::IncorrectBits(Bits::U64(bits))) => {
            Ok((ThrottleReasons::from_bits_truncate(bits), true))
        }
        Err(err) => Err(err),
    }
}
