//! Waits for XID errors: the events in which the driver reports that a GPU failed.
//!
//! On a thread of its own with a handle of its own, because waiting blocks.
//! Does not depend on: the readings.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Weak,
    thread,
    time::{Duration, Instant},
};

use nvml_wrapper::{
    EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
};
use tracing::{info, warn};

use crate::{
    collectors::gpu::library::{MAX_DEVICES, RETRY_AFTER, STALE_AFTER, open},
    metrics::{Metrics, families},
};

/// Label `collector`, and name of the thread.
pub(super) const COLLECTOR: &str = "gpu_events";
/// Longest wait for one event, ms.
const WAIT_MS: u32 = 500;
/// Most different XID codes of one GPU; further ones count as `other`.
const MAX_CODES: usize = 64;

/// Counts XID errors for as long as `metrics` is in use elsewhere.
pub(super) fn watch(metrics: &Weak<Metrics>, refresh: Duration, library: Option<&Path>) {
    let mut codes = BTreeSet::new();
    while metrics.strong_count() > 0 {
        // The other thread logs a library that cannot be loaded.
        if let Ok(nvml) = open(library) {
            wait_for_events(metrics, &nvml, refresh, &mut codes);
        }
        if let Some(metrics) = metrics.upgrade() {
            metrics.collector_up(COLLECTOR, false);
        }
        thread::sleep(refresh * RETRY_AFTER);
    }
}

/// Counts until waiting fails.
fn wait_for_events(
    metrics: &Weak<Metrics>,
    nvml: &Nvml,
    refresh: Duration,
    codes: &mut BTreeSet<(u32, String)>,
) {
    let wait_ms = WAIT_MS.min(refresh.as_millis() as u32);
    let mut refused = BTreeSet::new();
    loop {
        let set = match register(nvml, &mut refused) {
            Ok(Some(set)) => set,
            Ok(None) => return,
            Err(err) => {
                warn!(%err, "XID errors of GPUs are not counted");
                return;
            }
        };
        // A GPU that was lost may be back.
        let until = Instant::now() + refresh * RETRY_AFTER;
        let registered = refused.len();
        while registered == 0 || Instant::now() < until {
            let outcome = set.wait(wait_ms);
            let Some(metrics) = metrics.upgrade() else {
                return;
            };
            let valid = refresh.max(Duration::from_millis(WAIT_MS.into())) * STALE_AFTER;
            metrics.collector_up_until(COLLECTOR, Instant::now() + valid);
            match outcome {
                Ok(event) => {
                    let index = event.device.index();
                    let uuid = event.device.uuid().unwrap_or_default();
                    if let (Ok(index), Some(xid)) = (index, event.event_data) {
                        count(&metrics, index, &uuid, &xid, codes);
                    }
                }
                Err(NvmlError::Timeout) => {}
                Err(err) => {
                    info!(%err, "waiting for XID errors starts again");
                    return;
                }
            }
        }
        refused.clear();
    }
}

/// Registers for the events of every GPU that has them; `None` if none has. Adds those that refuse to `refused`.
fn register<'nvml>(
    nvml: &'nvml Nvml,
    refused: &mut BTreeSet<u32>,
) -> Result<Option<EventSet<'nvml>>, NvmlError> {
    let wanted = EventTypes::CRITICAL_XID_ERROR;
    'again: loop {
        let mut set = nvml.create_event_set()?;
        let mut registered = 0;
        for index in 0..nvml.device_count()?.min(MAX_DEVICES) {
            if refused.contains(&index) {
                continue;
            }
            let device = nvml.device_by_index(index);
            let device = device.and_then(|device| {
                let has = device.supported_event_types()?.contains(wanted);
                has.then_some(device).ok_or(NvmlError::NotSupported)
            });
            let Ok(device) = device else {
                refused.insert(index);
                continue;
            };
            // A set that a GPU refuses is freed with all that was registered in it.
            set = match device.register_events(wanted, set) {
                Ok(set) => set,
                Err(_) => {
                    refused.insert(index);
                    continue 'again;
                }
            };
            registered += 1;
        }
        return Ok((registered > 0).then_some(set));
    }
}

fn count(
    metrics: &Metrics,
    index: u32,
    uuid: &str,
    xid: &XidError,
    codes: &mut BTreeSet<(u32, String)>,
) {
    let code = match xid {
        XidError::Value(code) => code.to_string(),
        XidError::Unknown => "unknown".into(),
    };
    warn!(device = index, xid = code, "GPU reports an error");
    let known = codes.iter().filter(|(of, _)| *of == index).count();
    let code = match known < MAX_CODES || codes.contains(&(index, code.clone())) {
        true => code,
        false => "other".into(),
    };
    metrics.add(
        &families::GPU_XID,
        &[&index.to_string(), uuid, "", &code],
        1,
    );
    codes.insert((index, code));
}
