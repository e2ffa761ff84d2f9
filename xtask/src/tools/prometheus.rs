//! Provides a real Prometheus for the tests: `prometheus` and `promtool` from PATH, or in the build output.
//!
//! Installs nothing on the system, because Debian's package would start a server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tools::debian;
use crate::tools::toolchain::Places;
use crate::workspace;

const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// Returns a folder with both programs; fetches them from Debian's package if there is none.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("tools/prometheus");
    let known = std::iter::once(dir.clone()).chain(Places::from_env().bin_dirs);
    if let Some(dir) = known.into_iter().find(|dir| has_all(dir)) {
        return Ok(dir);
    }
    if !debian::is_here() {
        bail!(
            "the tests need Prometheus, which set-up can fetch only on Debian and Ubuntu; \
             put prometheus and promtool into one folder on PATH"
        );
    }
    let scratch = workspace::target_dir().join("tools/prometheus.unpacked");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| format!("clear {}", scratch.display()))?;
    }
    debian::unpack(&["prometheus"], &scratch)?;
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    for program in PROGRAMS {
        fs::rename(scratch.join("usr/bin").join(program), dir.join(program))
            .with_context(|| format!("take {program} out of Debian's package"))?;
    }
    fs::remove_dir_all(&scratch).with_context(|| format!("clear {}", scratch.display()))?;
    Ok(dir)
}

fn has_all(dir: &Path) -> bool {
    PROGRAMS.iter().all(|program| dir.join(program).is_file())
}
