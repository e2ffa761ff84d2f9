//! Makes a machine able to build the eBPF programs: uses what is installed, and gets what is missing from Debian.
//!
//! `tools/toolchain.rs` decides which parts are used. Nothing changes on a machine that has them all.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::arch::Arch;
use crate::tools::toolchain::{LINKED_NAME, Missing, Places, Toolchain, find_program};
use crate::tools::{
    browser, debian, grafana, linker, package_tools, prometheus, python_servers, qemu, tmux,
    torchserve,
};
use crate::{progress, vm};

/// A compiler of this project's Rust version with the sources of `core`, and the libraries that `bpf-linker` needs.
const PACKAGES: [&str; 7] = [
    "rustc-web",
    "rust-web-src",
    "cargo-web",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];

/// The prefix that Debian's compiler is installed under.
const DEBIAN_SYSROOT: &str = "/usr";

/// Remedy if Debian's packages are unavailable.
const BY_HAND: &str = "run `rustup toolchain install nightly --component rust-src` and `cargo install bpf-linker`, \
                       then try again";

/// Sets up, and prints one line for each part that will be used.
pub(crate) fn run(for_tests: bool) -> Result<()> {
    let toolchain = ensure()?;
    eprintln!(
        "set up: eBPF toolchain {}, linker {}",
        toolchain.name,
        toolchain.linker.display()
    );
    if for_tests {
        eprintln!("set up: Prometheus in {}", prometheus::ensure()?.display());
        eprintln!("set up: TorchServe in {}", torchserve::ensure()?.display());
        eprintln!(
            "set up: Python servers in {}",
            python_servers::ensure()?.display()
        );
        eprintln!("set up: {}", tmux::ensure()?.display());
        eprintln!("set up: {}", browser::ensure()?.program.display());
        eprintln!(
            "set up: Grafana's types in {}",
            grafana::ensure()?.folder().display()
        );
        package_tools::set_up();
        match vm::lack(Arch::Amd64) {
            None => {
                let emulator = qemu::find(&vm::emulator(Arch::Amd64), Arch::Amd64)?;
                eprintln!("set up: virtual machines with {emulator}");
            }
            Some(lack) => eprintln!("set up: no virtual machines: {lack}"),
        }
    }
    Ok(())
}

/// Returns a toolchain for the eBPF programs; installs it first if there is none.
pub(crate) fn ensure() -> Result<Toolchain> {
    let places = Places::from_env();
    let lack = match Toolchain::find(&places) {
        Ok(found) => match linker::unfit(&found.linker) {
            None => return Ok(found),
            // The user installed the linker beside a nightly, for an LLVM that set-up does not know.
            Some(unfit) if found.is_nightly() => {
                bail!("{unfit}; run `cargo install bpf-linker --force`")
            }
            Some(unfit) => unfit,
        },
        Err(wanted @ Missing::Wanted(_)) => bail!("{wanted}"),
        Err(missing) => missing.to_string(),
    };
    if !debian::is_here() {
        bail!("{lack}; set-up can install it only on Debian and Ubuntu, so {BY_HAND}");
    }
    eprintln!("==> {lack}");
    if let Err(err) = install(&places) {
        bail!("{err:#}; without Debian's packages, {BY_HAND}");
    }
    match Toolchain::find(&places) {
        Ok(found) => Ok(found),
        Err(missing) => bail!("{missing} even after set-up; {BY_HAND}"),
    }
}

/// Installs what is missing, in the order in which the parts need each other.
fn install(places: &Places) -> Result<()> {
    if find_program(&places.bin_dirs, "rustup").is_none() {
        bail!("rustup is not on PATH; install Rust with rustup (https://rustup.rs)");
    }
    let missing = debian::missing(&PACKAGES)?;
    if !missing.is_empty() {
        debian::install(
            "The eBPF programs need a compiler from Debian packages",
            &missing,
        )?;
    }
    check_rust_version()?;
    let linker = find_program(&places.bin_dirs, "bpf-linker");
    if linker.is_none_or(|path| linker::unfit(&path).is_some()) {
        linker::install()?;
    }
    let linked = fs::read_link(places.toolchains.join(LINKED_NAME));
    if !linked.is_ok_and(|sysroot| sysroot == Path::new(DEBIAN_SYSROOT)) {
        progress::check(Command::new("rustup").args([
            "toolchain",
            "link",
            LINKED_NAME,
            DEBIAN_SYSROOT,
        ]))?;
    }
    Ok(())
}

/// Fails if the distribution's compiler is older than this workspace needs.
fn check_rust_version() -> Result<()> {
    let rustc = Path::new(DEBIAN_SYSROOT).join("bin/rustc");
    let (text, _) = progress::output(Command::new(rustc).arg("--version"))?;
    let needed = env!("CARGO_PKG_RUST_VERSION");
    if parse_version(&text) < parse_version(&format!("rustc {needed}")) {
        bail!(
            "the packages contain {}, but {needed} or later is needed; enable Debian's security updates for apt-get",
            text.trim()
        );
    }
    Ok(())
}

/// Reads the major and minor number of `rustc 1.96.0 (...)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_versions_compare_by_number() {
        let old = parse_version("rustc 1.9.0 (abc 2016-05-18)");
        let new = parse_version("rustc 1.95");
        assert_eq!((old, new), (Some((1, 9)), Some((1, 95))));
        assert!(old < new);
        assert!(parse_version("") < old);
    }
}
