//! Builds the bench beside the agent's release binary, and runs it as root.

use std::ffi::OsString;

use anyhow::Result;

use crate::privilege::Privilege;
use crate::tools::python_frameworks;
use crate::{build, progress, workspace};

/// Builds the agent and the bench, and runs the bench with `bench_args`; it finds the agent and its example in its own
/// folder.
pub(crate) fn run(bench_args: &[OsString]) -> Result<()> {
    let binary = build::agent()?.with_file_name("bench");
    progress::step(
        "build the bench",
        workspace::cargo_release().args(["--package", "inferprobe-tests", "--bins"]),
    )?;
    progress::step(
        "build the example that drains prepared records",
        workspace::cargo_release().args(["--package", "inferprobe", "--example", "drain"]),
    )?;
    let privilege = Privilege::obtain(
        "The bench loads programs into the kernel",
        &binary.to_string_lossy(),
    )?;
    progress::step(
        "bench",
        privilege
            .command(&binary)
            .args(bench_args)
            .arg("--frameworks")
            .arg(python_frameworks::ensure()?),
    )
}
