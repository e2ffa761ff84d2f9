//! Reads one GPU and its MIG instances.
//!
//! What later readings need of earlier ones is in [`Memory`].
//! Does not depend on: who the processes are.

use std::collections::BTreeMap;

use nvml_wrapper::{Device, Nvml, error::NvmlError, gpm::GpmSample};

use crate::{
    collectors::gpu::{
        busy::{Busy, Signs},
        fields, gpm,
        limits::{self, Throttled},
        links,
        processes::Processes,
        series::{Gap, Series},
        torchserve,
    },
    metrics::{GpuSample, families},
};

/// Most MIG instances of one GPU: NVIDIA allows 7, and each may have several compute instances.
const MAX_INSTANCES: u32 = 64;

/// What later readings of a GPU need.
#[derive(Debug, Default)]
pub(super) struct Memory<'nvml> {
    /// Least power while it was idle, mW.
    pub(super) idle_mw: Option<u32>,
    /// Time of the latest sample of its processes, µs since the Unix epoch.
    last_sample_us: u64,
    /// GPM samples of the GPU and of its instances, by UUID.
    gpm: Vec<(String, GpmSample<'nvml>)>,
}

/// How to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// Whether to read GPM values.
    pub(super) gpm: bool,
    /// Start of the time to read processes for if there was no reading before, µs since the Unix epoch.
    pub(super) since_us: u64,
}

/// What was read of a GPU.
#[derive(Debug)]
pub(super) struct DeviceReading {
    /// TorchServe's values.
    pub(super) torchserve: GpuSample,
    /// Its UUID; empty if NVML does not report it.
    pub(super) uuid: String,
    /// The whole GPU.
    pub(super) whole: Part,
    /// Its MIG instances.
    pub(super) instances: Vec<Part>,
    /// Energy since the driver was loaded, mJ.
    pub(super) energy_mj: Option<u64>,
    /// Whether it works.
    pub(super) busy: Busy,
    /// Whether it counts the bytes over PCIe.
    pub(super) counts_pcie: bool,
    /// How long it was throttled.
    pub(super) throttled: Throttled,
}

/// A GPU or a MIG instance.
#[derive(Debug)]
pub(super) struct Part {
    /// Its series.
    pub(super) series: Series,
    /// Who uses it.
    pub(super) processes: Processes,
}

/// Reads the GPU with this index.
pub(super) fn read<'nvml>(
    nvml: &'nvml Nvml,
    index: u32,
    request: Request,
    memories: &mut BTreeMap<String, Memory<'nvml>>,
) -> Result<DeviceReading, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let torchserve = torchserve::read(&device, index)?;
    let uuid = device.uuid().unwrap_or_default();
    let memory = memories.entry(uuid.clone()).or_default();
    let mut series = Series::new(index, &uuid, None);
    let is_mig = match series.optional("mig", device.mig_mode())? {
        Some(mode) => mode.current == 1,
        None => false,
    };
    let power = limits::read_power(&device, &mut series)?;
    let throttled = limits::read(&device, &mut series)?;
    read_memory(&device, &mut series)?;
    let counts_pcie = links::read_pcie(&device, &mut series)?;
    links::read_nvlinks(&device, &mut series)?;
    let energy_mj = series.expected("energy", device.total_energy_consumption())?;

    let (processes, instances) = if is_mig {
        series.gap("process_utilization", Gap::Mig);
        let instances = read_instances(nvml, &device, index, request, memory)?;
        (Processes::default(), instances)
    } else {
        let mut processes = Processes::read(&device, &mut series)?;
        let since_us = memory.last_sample_us.max(request.since_us);
        if let Some(at_us) = processes.read_times(&device, since_us, &mut series)? {
            memory.last_sample_us = at_us;
        }
        (processes, Vec::new())
    };
    let utilization = match is_mig {
        true => {
            series.gap("utilization", Gap::Mig);
            None
        }
        false => series.expected("utilization", device.utilization_rates())?,
    };
    let busy = Signs {
        gpu_pct: utilization.as_ref().map(|rates| rates.gpu),
        power_mw: power.now_mw,
        limit_mw: power.limit_mw,
        idle_mw: memory.idle_mw,
    }
    .judge();
    match (busy, &utilization) {
        (Busy::Known(pct), Some(rates)) => {
            series.push(&families::GPU_BUSY, &[], f64::from(pct) / 100.0);
            let memory_pct = f64::from(rates.memory);
            series.push(&families::GPU_MEMORY_BUSY, &[], memory_pct / 100.0);
        }
        (Busy::FalseZero, _) => series.gap("utilization", Gap::ZeroWhileBusy),
        _ => {}
    }
    if busy == Busy::Known(0)
        && let Some(now_mw) = power.now_mw
    {
        memory.idle_mw = Some(memory.idle_mw.map_or(now_mw, |idle_mw| idle_mw.min(now_mw)));
    }
    if request.gpm {
        read_gpm(nvml, &device, None, &uuid, memory, &mut series)?;
    }
    Ok(DeviceReading {
        torchserve,
        uuid,
        whole: Part { series, processes },
        instances,
        energy_mj,
        busy,
        counts_pcie,
        throttled,
    })
}

fn read_memory(device: &Device<'_>, series: &mut Series) -> Result<(), NvmlError> {
    if let Some(memory) = series.expected("memory", device.memory_info())? {
        series.push(&families::GPU_MEMORY_USED_BYTES, &[], memory.used);
        series.push(&families::GPU_MEMORY_TOTAL_BYTES, &[], memory.total);
    }
    Ok(())
}

/// Reads the MIG instances of a GPU. NVML has no utilization and no energy of them.
fn read_instances<'nvml>(
    nvml: &'nvml Nvml,
    parent: &Device<'nvml>,
    index: u32,
    request: Request,
    memory: &mut Memory<'nvml>,
) -> Result<Vec<Part>, NvmlError> {
    let mut instances = Vec::new();
    for slot in 0..parent.mig_device_count()?.min(MAX_INSTANCES) {
        let device = match parent.mig_device_by_index(slot) {
            Ok(device) => device,
            // Slots may be empty, also between others.
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            Err(err) => return Err(err),
        };
        let uuid = device.uuid()?;
        let id = fields::gpu_instance_id(&device)?;
        let mut series = Series::new(index, &uuid, Some(id));
        read_memory(&device, &mut series)?;
        let processes = Processes::read(&device, &mut series)?;
        for value in ["utilization", "process_utilization", "energy"] {
            series.gap(value, Gap::Mig);
        }
        if request.gpm {
            read_gpm(nvml, parent, Some(id), &uuid, memory, &mut series)?;
        }
        instances.push(Part { series, processes });
    }
    Ok(instances)
}

fn read_gpm<'nvml>(
    nvml: &'nvml Nvml,
    device: &Device<'nvml>,
    mig: Option<u32>,
    uuid: &str,
    memory: &mut Memory<'nvml>,
    series: &mut Series,
) -> Result<(), NvmlError> {
    let at = memory.gpm.iter().position(|(of, _)| of == uuid);
    let before = at.map(|at| memory.gpm.swap_remove(at).1);
    let Some(now) = gpm::sample(device, mig, series)? else {
        return Ok(());
    };
    if let Some(before) = &before {
        gpm::read(nvml, before, &now, series)?;
    }
    memory.gpm.push((uuid.to_owned(), now));
    Ok(())
}
