//! Reads the GPUs through NVML, on threads of their own: loading the library, and every call into it, may hang.
//!
//! Values expire if a reading hangs; `doctor` reads the GPUs once. `events` waits for errors on a thread of its own.
//! Does not depend on: the exposition.

mod busy;
mod device;
mod energy;
mod events;
mod evidence;
mod fields;
mod gpm;
mod library;
mod limits;
mod links;
mod processes;
mod series;
mod shares;
mod torchserve;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant, SystemTime},
};

use nvml_wrapper::{Nvml, error::NvmlError};
use tracing::{info, warn};

use crate::{
    clock::monotonic_ns,
    collectors::gpu::{
        device::{DeviceReading, Memory, Request},
        library::{MAX_DEVICES, RETRY_AFTER, STALE_AFTER, open},
        series::Series,
        shares::Shares,
    },
    discovery::roster::Roster,
    history::History,
    metrics::{Metrics, Reading, families},
};

/// Label `collector`, and name of the thread.
const COLLECTOR: &str = "gpu";
/// Source of the PCIe samples.
const PCIE: &str = "gpu_pcie";

/// How to read the GPUs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Time between readings.
    pub refresh: Duration,
    /// NVML library to load; `None`: the system's.
    pub library: Option<PathBuf>,
    /// Whether to read GPM values.
    pub gpm: bool,
    /// Where the root of the host is, with the names of containers.
    pub host_root: PathBuf,
}

/// Reads every GPU each refresh interval, for as long as `metrics` is in use elsewhere; `roster` says whose the
/// processes are. What the GPUs tell of servers is evidence in `history`.
pub fn spawn(
    metrics: &Arc<Metrics>,
    history: Arc<History>,
    options: Options,
    roster: Arc<Roster>,
) -> io::Result<()> {
    metrics.collector_up(COLLECTOR, false);
    metrics.collector_up(events::COLLECTOR, false);
    let for_events = Arc::downgrade(metrics);
    let metrics = Arc::downgrade(metrics);
    let Options {
        refresh, library, ..
    } = options.clone();
    thread::Builder::new()
        .name(COLLECTOR.into())
        .spawn(move || watch(&metrics, &history, &options, &roster))?;
    thread::Builder::new()
        .name(events::COLLECTOR.into())
        .spawn(move || events::watch(&for_events, refresh, library.as_deref()))?;
    Ok(())
}

fn watch(metrics: &Weak<Metrics>, history: &History, options: &Options, roster: &Roster) {
    let mut logged = false;
    let mut shares = Shares::new(options.refresh * STALE_AFTER, &options.host_root);
    while metrics.strong_count() > 0 {
        match open(options.library.as_deref()) {
            Ok(nvml) => {
                info!("NVML loaded; GPU metrics are exported");
                logged = false;
                watch_devices(metrics, history, &nvml, options, roster, &mut shares);
            }
            Err(err) => {
                if !std::mem::replace(&mut logged, true) {
                    info!(%err, "NVML not loaded; GPU metrics appear once an NVIDIA driver is installed");
                }
                thread::sleep(options.refresh * RETRY_AFTER);
            }
        }
    }
}

/// Result of reading the GPUs once.
#[derive(Debug)]
pub struct Seen {
    /// Number of GPUs that were read.
    pub read: u32,
    /// NVML's error for each GPU that could not be read.
    pub refused: Vec<String>,
}

/// Reads every GPU once; `library` replaces the system's NVML. It may never return.
pub fn look(library: Option<&Path>) -> Result<Seen, NvmlError> {
    let nvml = open(library)?;
    let count = nvml.device_count()?.min(MAX_DEVICES);
    let refused: Vec<String> = (0..count)
        .filter_map(|index| {
            let err = read_once(&nvml, index).err()?;
            Some(format!("device {index}: {err}"))
        })
        .collect();
    Ok(Seen {
        read: count - refused.len() as u32,
        refused,
    })
}

fn read_once(nvml: &Nvml, index: u32) -> Result<(), NvmlError> {
    let device = nvml.device_by_index(index)?;
    torchserve::read(&device, index)?;
    Ok(())
}

/// Reads until NVML cannot count devices any more; a single device that fails does not end it.
fn watch_devices(
    metrics: &Weak<Metrics>,
    history: &History,
    nvml: &Nvml,
    options: &Options,
    roster: &Roster,
    shares: &mut Shares,
) {
    let refresh = options.refresh;
    let mut failing = BTreeSet::new();
    let mut memories = BTreeMap::new();
    while let Some(metrics) = metrics.upgrade() {
        let count = match nvml.device_count() {
            Ok(count) => count.min(MAX_DEVICES),
            Err(err) => {
                warn!(%err, "GPUs not counted; GPU metrics are missing until NVML works again");
                metrics.set_gpus(Vec::new(), Instant::now());
                metrics.set_readings(COLLECTOR, Vec::new(), Instant::now());
                metrics.set_readings(PCIE, Vec::new(), Instant::now());
                metrics.collector_up(COLLECTOR, false);
                drop(metrics);
                thread::sleep(refresh);
                return;
            }
        };
        let readings = read_devices(&metrics, nvml, count, options, &mut memories, &mut failing);
        let uncounted: Vec<_> = readings
            .iter()
            .filter(|reading| !reading.counts_pcie)
            .map(|reading| (reading.torchserve.index, reading.uuid.clone()))
            .collect();
        let gpus: Vec<_> = readings.iter().map(|reading| reading.torchserve).collect();
        let series = shares.add(readings, &memories, roster, history, &metrics);
        let valid_until = Instant::now() + refresh * STALE_AFTER;
        history
            .gpus()
            .add(torchserve::readings(&gpus, monotonic_ns()));
        metrics.set_gpus(gpus, valid_until);
        metrics.set_readings(COLLECTOR, series, valid_until);
        metrics.collector_up_until(COLLECTOR, valid_until);
        // These take long, so they come after everything else.
        let sampled = sample_pcie(&metrics, nvml, &uncounted);
        let valid_until = Instant::now() + refresh * STALE_AFTER;
        metrics.set_readings(PCIE, sampled, valid_until);
        drop(metrics);
        thread::sleep(refresh);
    }
}

/// Reads every GPU; counts and logs those that fail.
fn read_devices<'nvml>(
    metrics: &Metrics,
    nvml: &'nvml Nvml,
    count: u32,
    options: &Options,
    memories: &mut BTreeMap<String, Memory<'nvml>>,
    failing: &mut BTreeSet<u32>,
) -> Vec<DeviceReading> {
    let before = SystemTime::now().checked_sub(options.refresh);
    let since = before.and_then(|before| before.duration_since(SystemTime::UNIX_EPOCH).ok());
    let request = Request {
        gpm: options.gpm,
        since_us: since.map_or(0, |since| since.as_micros() as u64),
    };
    let mut readings = Vec::new();
    for index in 0..count {
        match device::read(nvml, index, request, memories) {
            Ok(reading) => {
                readings.push(reading);
                if failing.remove(&index) {
                    info!(device = index, "GPU read again");
                }
            }
            Err(err) => {
                metrics.add(&families::GPU_ERRORS, &[&index.to_string()], 1);
                if failing.insert(index) {
                    warn!(device = index, %err, "GPU not read");
                }
            }
        }
    }
    readings
}

/// Samples PCIe of the GPUs that do not count its bytes.
fn sample_pcie(metrics: &Metrics, nvml: &Nvml, devices: &[(u32, String)]) -> Vec<Reading> {
    let mut readings = Vec::new();
    for (index, uuid) in devices {
        let mut series = Series::new(*index, uuid, None);
        let device = nvml.device_by_index(*index);
        // If the device is lost, the next reading reports it.
        let _ = device.and_then(|device| links::sample_pcie(&device, &mut series));
        readings.extend(series.finish(metrics));
    }
    readings
}
