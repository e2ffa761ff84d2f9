//! A mock of `libnvidia-ml.so.1`: the symbols that the agent's GPU collector calls, and two invented devices.
//!
//! A file beside the library, named as the library with `.control` added, controls it. Every call reads it. Each of its
//! lines is one of
//!
//! - `init fails`: `nvmlInit_v2` reports that no driver is loaded;
//! - `hang`: calls do not return while the file has the line;
//! - `count fails`: the devices cannot be counted;
//! - `device I fails`: calls on device I report that the GPU is lost;
//! - `device I fails after N`: the same, from the call after the N-th on it;
//! - `device I lacks utilization`: it reports that the value is not supported.
//!
//! No file, or an empty one: both devices work. Does not depend on: the agent.

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_uint, c_ulonglong, c_void},
    fs,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

const SUCCESS: c_int = 0;
const ERROR_INVALID_ARGUMENT: c_int = 2;
const ERROR_NOT_SUPPORTED: c_int = 3;
const ERROR_DRIVER_NOT_LOADED: c_int = 9;
const ERROR_GPU_IS_LOST: c_int = 15;
const ERROR_UNKNOWN: c_int = 999;

const MIB: c_ulonglong = 1 << 20;

struct StubDevice {
    busy_pct: c_uint,
    used_bytes: c_ulonglong,
    calls: AtomicU32,
}

/// Both have 80 GiB.
static DEVICES: [StubDevice; 2] = [
    StubDevice {
        busy_pct: 37,
        used_bytes: 1024 * MIB,
        calls: AtomicU32::new(0),
    },
    StubDevice {
        busy_pct: 0,
        used_bytes: 0,
        calls: AtomicU32::new(0),
    },
];
const TOTAL_BYTES: c_ulonglong = 81_920 * MIB;

/// `nvmlUtilization_t`.
#[repr(C)]
#[derive(Debug)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
#[derive(Debug)]
pub struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// Succeeds unless the control file says otherwise.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    if obey().contains_line("init fails") {
        return ERROR_DRIVER_NOT_LOADED;
    }
    SUCCESS
}

/// Succeeds.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    SUCCESS
}

/// One text for every error.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_result: c_int) -> *const c_char {
    c"stub error".as_ptr()
}

/// Two.
///
/// # Safety
/// `count` points to a writable `unsigned int`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    if obey().contains_line("count fails") {
        return ERROR_UNKNOWN;
    }
    // SAFETY: the caller vouches for the pointer.
    unsafe { count.write(DEVICES.len() as c_uint) };
    SUCCESS
}

/// The index plus one, as a handle.
///
/// # Safety
/// `device` points to a writable `nvmlDevice_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut *mut c_void,
) -> c_int {
    if index as usize >= DEVICES.len() {
        return ERROR_INVALID_ARGUMENT;
    }
    let handle = std::ptr::without_provenance_mut(index as usize + 1);
    // SAFETY: the caller vouches for the pointer.
    unsafe { device.write(handle) };
    SUCCESS
}

/// The invented utilization of a device.
///
/// # Safety
/// `utilization` points to a writable `nvmlUtilization_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: *mut c_void,
    utilization: *mut Utilization,
) -> c_int {
    let (index, stub) = match called(device) {
        Ok(called) => called,
        Err(error) => return error,
    };
    if obey().contains_line(&format!("device {index} lacks utilization")) {
        return ERROR_NOT_SUPPORTED;
    }
    let rates = Utilization {
        gpu: stub.busy_pct,
        memory: 1,
    };
    // SAFETY: the caller vouches for the pointer.
    unsafe { utilization.write(rates) };
    SUCCESS
}

/// The invented memory of a device.
///
/// # Safety
/// `memory` points to a writable `nvmlMemory_v2_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: *mut c_void,
    memory: *mut MemoryV2,
) -> c_int {
    let stub = match called(device) {
        Ok((_, stub)) => stub,
        Err(error) => return error,
    };
    let figures = MemoryV2 {
        version: (2 << 24) | size_of::<MemoryV2>() as c_uint,
        total: TOTAL_BYTES,
        reserved: 0,
        free: TOTAL_BYTES - stub.used_bytes,
        used: stub.used_bytes,
    };
    // SAFETY: the caller vouches for the pointer.
    unsafe { memory.write(figures) };
    SUCCESS
}

/// Counts a call on a device, and fails it if the control file says so.
fn called(device: *mut c_void) -> Result<(usize, &'static StubDevice), c_int> {
    let index = device.addr().wrapping_sub(1);
    let stub = DEVICES.get(index).ok_or(ERROR_INVALID_ARGUMENT)?;
    let calls_before = stub.calls.fetch_add(1, Ordering::Relaxed);
    if obey().device_fails(index, calls_before) {
        return Err(ERROR_GPU_IS_LOST);
    }
    Ok((index, stub))
}

/// Contents of the control file.
struct Control(String);

impl Control {
    fn contains_line(&self, line: &str) -> bool {
        self.0.lines().any(|candidate| candidate.trim() == line)
    }

    fn device_fails(&self, index: usize, calls_before: u32) -> bool {
        let prefix = format!("device {index} fails");
        let rules = self
            .0
            .lines()
            .filter_map(|line| line.trim().strip_prefix(&prefix));
        let mut limits = rules.map(|rule| {
            let limit = rule.strip_prefix(" after ");
            limit.map_or(Some(0), |limit| limit.parse::<u32>().ok())
        });
        limits.any(|limit| limit.is_some_and(|limit| calls_before >= limit))
    }
}

/// Reads the control file, and blocks while it has `hang`.
fn obey() -> Control {
    loop {
        let control = Control(read_control().unwrap_or_default());
        if !control.contains_line("hang") {
            return control;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn read_control() -> Option<String> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let here = std::ptr::from_ref(&DEVICES).cast();
    // SAFETY: `here` is in this library, and `info` is writable.
    if unsafe { libc::dladdr(here, info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: all-zero is a valid `Dl_info`, and dladdr filled it.
    let info = unsafe { info.assume_init() };
    // SAFETY: dladdr found the library, so its name is a string that lives as long as it is loaded.
    let library = unsafe { CStr::from_ptr(info.dli_fname) };
    let mut path = OsStr::from_bytes(library.to_bytes()).to_owned();
    path.push(".control");
    fs::read_to_string(path).ok()
}
