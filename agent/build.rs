//! Builds the eBPF half into `OUT_DIR/inferprobe-ebpf`, for the loader to embed.
//!
//! Installs nothing: `cargo xtask setup` does.

#[path = "../xtask/src/tools/toolchain.rs"]
mod toolchain;

use std::env;

use aya_build::{Package, build_ebpf};
use toolchain::{Missing, Places, TOOLCHAIN_ENV, Toolchain};

fn main() {
    println!("cargo::rerun-if-env-changed={TOOLCHAIN_ENV}");
    match Toolchain::find(&Places::from_env()) {
        Ok(found) => build(&found),
        Err(missing @ Missing::Wanted(_)) => println!("cargo::error={missing}"),
        Err(missing) => println!("cargo::error={missing}; run `cargo xtask setup`"),
    }
}

fn build(found: &Toolchain) {
    println!("cargo::rerun-if-changed={}", found.linker.display());
    // SAFETY: the build script has one thread at this point.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
    if !found.is_nightly() {
        // SAFETY: the build script has one thread at this point.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    let package = Package {
        name: "inferprobe-ebpf",
        root_dir: "../agent-ebpf",
        features: &["program"],
        ..Package::default()
    };
    let name = found.name.as_str();
    if let Err(err) = build_ebpf([package], aya_build::Toolchain::Custom(name)) {
        // cargo takes one line per message.
        let reason = format!("{err:#}").replace('\n', " ");
        println!("cargo::error=eBPF half, built with toolchain {name}: {reason}");
    }
}
