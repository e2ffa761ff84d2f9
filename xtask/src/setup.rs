//! Making a machine able to build the eBPF half: what is there is taken, what is missing comes from Debian's packages.
//!
//! Where the parts are found is `toolchain.rs`'s business; both leave a working machine as it is.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::arch::Arch;
use crate::progress;
use crate::tools::toolchain::{LINKED_NAME, Missing, Places, Toolchain, find_program};
use crate::tools::{debian, linker, prometheus, python_servers, torchserve};
use crate::vm::{self, qemu};

/// A compiler of this project's Rust version with the sources of `core`, and what `bpf-linker` is built against.
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

/// What to do where Debian's packages cannot be had.
const BY_HAND: &str = "run `rustup toolchain install nightly --component rust-src` and `cargo install bpf-linker`, \
                       then try again";

/// Sets up, and says in one line what will be used.
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
        match vm::lack(Arch::Amd64) {
            None => {
                let emulator = qemu::find(&vm::emulator(Arch::Amd64), Arch::Amd64)?;
                eprintln!("set up: virtual machines by {emulator}");
            }
            Some(lack) => eprintln!("set up: no virtual machines, {lack}"),
        }
    }
    Ok(())
}

/// A toolchain for the eBPF half, installed first where there is none.
pub(crate) fn ensure() -> Result<Toolchain> {
    let places = Places::from_env();
    let lack = match Toolchain::find(&places) {
        Ok(found) => match linker::unfit(&found.linker) {
            None => return Ok(found),
            // A linker beside a nightly was put there by its owner, for an LLVM that set-up does not know.
            Some(unfit) if found.is_nightly() => {
                bail!("{unfit}; run `cargo install bpf-linker --force`")
            }
            Some(unfit) => unfit,
        },
        Err(wanted @ Missing::Wanted(_)) => bail!("{wanted}"),
        Err(missing) => missing.to_string(),
    };
    if !debian::is_here() {
        bail!("{lack}, and set-up can install only on Debian and Ubuntu; {BY_HAND}");
    }
    eprintln!("==> {lack}");
    if let Err(err) = install(&places) {
        bail!("{err:#}; or, without Debian's packages, {BY_HAND}");
    }
    match Toolchain::find(&places) {
        Ok(found) => Ok(found),
        Err(missing) => bail!("{missing} even after set-up; {BY_HAND}"),
    }
}

/// Brings in what is missing, in the order in which the parts need each other.
fn install(places: &Places) -> Result<()> {
    if find_program(&places.bin_dirs, "rustup").is_none() {
        bail!("rustup is not on PATH; install Rust with rustup (https://rustup.rs)");
    }
    let missing = debian::missing(&PACKAGES)?;
    if !missing.is_empty() {
        debian::install(
            "The eBPF half needs a compiler from Debian packages",
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

/// Refuses a distribution's compiler that is older than this workspace asks for.
fn check_rust_version() -> Result<()> {
    let rustc = Path::new(DEBIAN_SYSROOT).join("bin/rustc");
    let (text, _) = progress::output(Command::new(rustc).arg("--version"))?;
    let needed = env!("CARGO_PKG_RUST_VERSION");
    if parse_version(&text) < parse_version(&format!("rustc {needed}")) {
        bail!(
            "the packages bring {}, and {needed} or later is needed; enable Debian's security updates for apt-get",
            text.trim()
        );
    }
    Ok(())
}

/// Reads major and minor of `rustc 1.96.0 (...)`.
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
