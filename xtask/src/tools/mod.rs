//! Programs that the commands need: finding them on this machine, and fetching what is missing.

pub(crate) mod apt;
mod archives;
pub(crate) mod arm64;
pub(crate) mod browser;
pub(crate) mod cargo_tools;
pub(crate) mod debian;
pub(crate) mod glibc;
pub(crate) mod grafana;
pub(crate) mod helm;
pub(crate) mod linker;
pub(crate) mod llama;
pub(crate) mod node;
pub(crate) mod package_tools;
pub(crate) mod podman;
pub(crate) mod prometheus;
mod python;
pub(crate) mod python_frameworks;
pub(crate) mod python_servers;
pub(crate) mod qemu;
pub(crate) mod rootfs;
pub(crate) mod tmux;
pub(crate) mod toolchain;
pub(crate) mod torchserve;
pub(crate) mod vllm;
