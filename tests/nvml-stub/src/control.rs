//! Reads the control file. Each of its lines is one of
//!
//! - `init fails`: `nvmlInit_v2` reports that no driver is loaded;
//! - `hang`: calls do not return while the file has the line; `hang SYMBOL`: calls of this symbol;
//! - `count fails`: the devices cannot be counted;
//! - `device I fails`: calls on device I report that the GPU is lost;
//! - `device I fails after N`: the same, from the call after the N-th on it;
//! - `device I lacks VALUE`: it reports that the value is not supported;
//! - `device I errs VALUE`: it reports an error of this value alone;
//! - `device I NAME NUMBER...`: sets a value of device I. Names are
//!   `busy`, `memory_busy` (percent), `used` (bytes), `power`, `limit` (mW), `energy` (mJ), `throttle` (mask),
//!   `violation POLICY NS`, `clock DOMAIN MHZ`, `temperature`, `ecc TYPE COUNT`, `pcie_bytes TX RX`, `pcie_rate TX RX` (KB/s),
//!   `nvlink LINK TX RX` (KiB), `nvlink_errors LINK COUNTER COUNT`, `gpm METRIC VALUE` (in thousandths);
//! - `device I process PID SM MEMORY BYTES`: a process uses it, in percent and bytes;
//! - `device I mig SLOT INSTANCE BYTES`: it has a MIG instance, and so MIG mode;
//! - `device I mig_process SLOT PID BYTES`: a process uses the instance;
//! - `device I xid CODE TIMES`: XID errors with this code so far.

use std::{
    ffi::{CStr, OsStr, c_ulonglong},
    fs,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    thread,
    time::Duration,
};

use crate::DEVICES;

/// Contents of the control file.
pub(crate) struct Control(String);

impl Control {
    /// Whether it has this line.
    pub(crate) fn contains_line(&self, line: &str) -> bool {
        self.0.lines().any(|candidate| candidate.trim() == line)
    }

    /// Whether a line says this of a device.
    pub(crate) fn says(&self, index: usize, verb: &str, value: &str) -> bool {
        self.contains_line(&format!("device {index} {verb} {value}"))
    }

    /// The numbers behind each line of a device that begins with this name.
    pub(crate) fn rows(
        &self,
        index: usize,
        name: &str,
    ) -> impl Iterator<Item = Vec<c_ulonglong>> + '_ {
        let prefix = format!("device {index} {name} ");
        self.0.lines().filter_map(move |line| {
            let numbers = line.trim().strip_prefix(&prefix)?;
            let numbers = numbers.split_ascii_whitespace().map(str::parse);
            numbers.collect::<Result<_, _>>().ok()
        })
    }

    /// The value of a device with this name.
    pub(crate) fn value(&self, index: usize, name: &str) -> Option<c_ulonglong> {
        self.rows(index, name).next()?.first().copied()
    }

    /// The numbers behind the keys of a device's row with this name.
    pub(crate) fn keyed(
        &self,
        index: usize,
        name: &str,
        keys: &[c_ulonglong],
    ) -> Option<Vec<c_ulonglong>> {
        let mut rows = self.rows(index, name);
        rows.find_map(|row| row.strip_prefix(keys).map(<[_]>::to_vec))
    }

    /// Whether a device is lost, after this many calls on it.
    pub(crate) fn device_fails(&self, index: usize, calls_before: u32) -> bool {
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

/// Reads the control file, and blocks while it says that calls of `symbol` hang.
pub(crate) fn obey(symbol: &str) -> Control {
    let hang = format!("hang {symbol}");
    loop {
        let control = Control(read().unwrap_or_default());
        if !control.contains_line("hang") && !control.contains_line(&hang) {
            return control;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn read() -> Option<String> {
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
