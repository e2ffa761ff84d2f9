//! Loads NVML, and says how often to try again.
//!
//! Does not depend on: what is read.

use std::path::Path;

use nvml_wrapper::{Nvml, error::NvmlError};

/// Refresh intervals after which a value that was not read again expires.
pub(super) const STALE_AFTER: u32 = 3;
/// Refresh intervals between attempts to find a driver.
pub(super) const RETRY_AFTER: u32 = 12;
/// Most devices to read: a faulty driver must not create series without limit.
pub(super) const MAX_DEVICES: u32 = 64;

/// Loads the system's NVML, or this library in its place.
pub(super) fn open(library: Option<&Path>) -> Result<Nvml, NvmlError> {
    match library {
        Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
        // Driver packages install this name; the one without the 1 comes with development files.
        None => Nvml::builder()
            .lib_path("libnvidia-ml.so.1".as_ref())
            .init(),
    }
}
