//! A stand-in for NVML, which the agent loads as if it were the driver's library.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A stand-in for NVML that the test controls.
pub struct Nvml(TempDir);

impl Nvml {
    /// Builds it, in a target folder of its own in `folder`: a test's `CARGO_TARGET_TMPDIR`.
    pub fn new(folder: &Path) -> Self {
        let target = folder.join("nvml-stub");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "nvml-stub", "--target-dir"])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("CARGO_BUILD_TARGET")
            .status()
            .expect("cargo can be started");
        assert!(built.success(), "cargo build --package nvml-stub");
        let nvml = Self(TempDir::new().expect("a folder for the library"));
        fs::copy(target.join("debug/libnvml_stub.so"), nvml.library())
            .expect("the library was built");
        nvml
    }

    /// Returns its path, for the option `--nvml-library`.
    pub fn library(&self) -> PathBuf {
        self.0.path().join("libnvml.so")
    }

    /// Replaces the control file atomically.
    pub fn control(&self, control: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, control).expect("the folder is ours");
        fs::rename(new, self.0.path().join("libnvml.so.control")).expect("the folder is ours");
    }
}
