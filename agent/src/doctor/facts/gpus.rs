//! Finds the NVIDIA GPUs of this host, and checks whether NVML reads them.
//!
//! Uses the GPU collector of `serve`.
//! Does not depend on: the findings.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde::Serialize;

use crate::collectors::gpu;

/// Longest wait for NVML: with a broken driver, a call into it may never return.
const LIMIT: Duration = Duration::from_secs(5);
const NVIDIA: &str = "0x10de";
/// First byte of a display controller's class; a GPU without a display has it too.
const DISPLAY_CLASS: &str = "0x03";

/// GPUs of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// Whether the host has an NVIDIA GPU or NVIDIA's driver.
    pub present: bool,
    /// Whether `--nvml-library` was given, which implies that the host has a GPU.
    pub expected: bool,
    /// State of NVML.
    pub nvml: Nvml,
}

/// State of NVML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Nvml {
    /// It is loaded.
    Loaded {
        /// Number of GPUs that it reads.
        read: u32,
        /// Error of each GPU that it does not read.
        refused: Vec<String>,
    },
    /// It cannot be used.
    Unusable {
        /// Error of the dynamic loader or of the library.
        reason: String,
    },
}

/// Collects the facts; `library` replaces the system's NVML.
pub(crate) fn collect(library: Option<PathBuf>) -> Gpus {
    Gpus {
        present: has_driver(Path::new("/dev")) || has_device(Path::new("/sys/bus/pci/devices")),
        expected: library.is_some(),
        nvml: try_nvml(library),
    }
}

fn try_nvml(library: Option<PathBuf>) -> Nvml {
    let unusable = |reason: &str| Nvml::Unusable {
        reason: reason.into(),
    };
    let (sender, receiver) = mpsc::channel();
    let started = thread::Builder::new().name("nvml".into()).spawn(move || {
        // After the time limit the receiver is closed.
        let _ = sender.send(gpu::look(library.as_deref()));
    });
    if let Err(err) = started {
        return unusable(&format!("cannot start a thread: {err}"));
    }
    match receiver.recv_timeout(LIMIT) {
        Ok(Ok(gpus)) => Nvml::Loaded {
            read: gpus.read,
            refused: gpus.refused,
        },
        Ok(Err(err)) => unusable(&err.to_string()),
        Err(_) => unusable(&format!("no response within {} s", LIMIT.as_secs())),
    }
}

/// Returns whether `dev` has a file of NVIDIA's driver.
fn has_driver(dev: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dev) else {
        return false;
    };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    names
        .into_iter()
        .any(|name| name.as_encoded_bytes().starts_with(b"nvidia"))
}

/// Returns whether the folder of PCI devices has an NVIDIA GPU.
fn has_device(devices: &Path) -> bool {
    let Ok(entries) = fs::read_dir(devices) else {
        return false;
    };
    let devices = entries.filter_map(|entry| Some(entry.ok()?.path()));
    devices.into_iter().any(|device| {
        let read = |name: &str| fs::read_to_string(device.join(name)).unwrap_or_default();
        read("vendor").trim() == NVIDIA && read("class").starts_with(DISPLAY_CLASS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_is_recognised_by_its_files() {
        let dev = tempfile::tempdir().unwrap();
        fs::write(dev.path().join("null"), "").unwrap();
        assert!(!has_driver(dev.path()));
        fs::write(dev.path().join("nvidiactl"), "").unwrap();
        assert!(has_driver(dev.path()));
        assert!(!has_driver(&dev.path().join("absent")));
    }

    #[test]
    fn gpu_is_an_nvidia_display_controller() {
        for (vendor, class, expected) in [
            ("0x10de\n", "0x030200\n", true),
            ("0x10de\n", "0x030000\n", true),
            ("0x10de\n", "0x040300\n", false),
            ("0x1af4\n", "0x030000\n", false),
        ] {
            let devices = tempfile::tempdir().unwrap();
            let device = devices.path().join("0000:00:04.0");
            fs::create_dir(&device).unwrap();
            fs::write(device.join("vendor"), vendor).unwrap();
            fs::write(device.join("class"), class).unwrap();
            assert_eq!(has_device(devices.path()), expected, "{vendor} {class}");
        }
    }

    #[test]
    fn missing_library_is_unusable() {
        let gpus = collect(Some("/no/such/library.so".into()));
        assert!(gpus.expected);
        let Nvml::Unusable { reason } = gpus.nvml else {
            panic!("{gpus:?}");
        };
        assert!(reason.contains("/no/such/library.so"), "{reason}");
    }
}
