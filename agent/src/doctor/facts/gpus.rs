//! NVIDIA GPUs of this host, and whether NVML reads them.
//!
//! Does not know which figures come of it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde::Serialize;

use crate::collectors::gpu;

/// Longest wait for NVML: with a broken driver a call into it may never return.
const LIMIT: Duration = Duration::from_secs(5);
const NVIDIA: &str = "0x10de";
/// First byte of a display controller's class; a GPU without a display has it too.
const DISPLAY_CLASS: &str = "0x03";

/// What there is, and what NVML says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// Whether the host has an NVIDIA GPU, or the driver of one.
    pub present: bool,
    /// Whether the library was named, which says that there should be one.
    pub expected: bool,
    /// What NVML came to.
    pub nvml: Nvml,
}

/// What NVML came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Nvml {
    /// It is loaded.
    Loaded {
        /// GPUs that it reads.
        read: u32,
        /// What it says of those that it does not read.
        refused: Vec<String>,
    },
    /// It is not, and this is why.
    Unusable {
        /// What the loader or the library said.
        reason: String,
    },
}

/// Looks at this host; `library` stands in for the system's NVML.
pub(crate) fn look(library: Option<PathBuf>) -> Gpus {
    Gpus {
        present: has_driver(Path::new("/dev")) || has_device(Path::new("/sys/bus/pci/devices")),
        expected: library.is_some(),
        nvml: ask(library),
    }
}

fn ask(library: Option<PathBuf>) -> Nvml {
    let unusable = |reason: &str| Nvml::Unusable {
        reason: reason.into(),
    };
    let (tell, told) = mpsc::channel();
    let asking = thread::Builder::new().name("nvml".into()).spawn(move || {
        // Nobody listens any more once the limit has passed.
        let _ = tell.send(gpu::look(library.as_deref()));
    });
    if let Err(err) = asking {
        return unusable(&format!("cannot start a thread: {err}"));
    }
    match told.recv_timeout(LIMIT) {
        Ok(Ok(seen)) => Nvml::Loaded {
            read: seen.read,
            refused: seen.refused,
        },
        Ok(Err(err)) => unusable(&err.to_string()),
        Err(_) => unusable(&format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// Whether `dev` has a file of NVIDIA's driver.
fn has_driver(dev: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dev) else {
        return false;
    };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    names
        .into_iter()
        .any(|name| name.as_encoded_bytes().starts_with(b"nvidia"))
}

/// Whether the folder of PCI devices has a GPU of NVIDIA's.
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
    fn a_driver_is_known_by_its_files() {
        let dev = tempfile::tempdir().unwrap();
        fs::write(dev.path().join("null"), "").unwrap();
        assert!(!has_driver(dev.path()));
        fs::write(dev.path().join("nvidiactl"), "").unwrap();
        assert!(has_driver(dev.path()));
        assert!(!has_driver(&dev.path().join("absent")));
    }

    #[test]
    fn a_gpu_is_a_display_controller_of_nvidias() {
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
    fn a_library_that_is_not_there_is_unusable() {
        let gpus = look(Some("/no/such/library.so".into()));
        assert!(gpus.expected);
        let Nvml::Unusable { reason } = gpus.nvml else {
            panic!("{gpus:?}");
        };
        assert!(reason.contains("/no/such/library.so"), "{reason}");
    }
}
