//! The workspace's root, its folder of build output, and cargo started in it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::toolchain::SKIP_ENV;

/// Returns the repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the repository's root")
}

/// Returns the folder of build output: `CARGO_TARGET_DIR`, relative to where xtask was started, else `target`.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => std::path::absolute(&dir).unwrap_or_else(|_| dir.into()),
        None => root().join("target"),
    }
}

/// Returns the cargo that started xtask, with a subcommand, in the repository's root.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command
        .arg(subcommand)
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target_dir());
    command
}

/// Returns `cargo build --release`, always with the eBPF programs.
pub(crate) fn cargo_release() -> Command {
    let mut command = cargo("build");
    command.arg("--release").env_remove(SKIP_ENV);
    command
}
