//! Builds the eBPF programs into `OUT_DIR/inferprobe-ebpf.gz`, which the loader embeds.
//!
//! Without a toolchain for them an empty file takes their place, so that unit tests and editors need none; a release
//! build fails instead. Installs nothing: `cargo xtask setup` does.

#[path = "../xtask/src/tools/toolchain.rs"]
mod toolchain;

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use aya_build::{Package, build_ebpf};
use flate2::{Compression, write::GzEncoder};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;
use toolchain::{Missing, Places, SKIP_ENV, TOOLCHAIN_ENV, Toolchain};

fn main() {
    println!("cargo::rerun-if-env-changed={TOOLCHAIN_ENV}");
    if env::var(SKIP_ENV).as_deref() == Ok("1") {
        return embed_nothing(&format!("{SKIP_ENV}=1"));
    }
    let places = Places::from_env();
    match Toolchain::find(&places) {
        Ok(found) => build(&found),
        Err(missing @ Missing::Wanted(_)) => println!("cargo::error={missing}"),
        Err(missing) if is_release() => {
            println!("cargo::error={missing}; run `cargo xtask setup`");
        }
        Err(missing) => {
            watch_for_toolchain(&places);
            embed_nothing(&missing.to_string());
        }
    }
}

/// Whether cargo builds with the profile `release`, or one that inherits from it.
fn is_release() -> bool {
    env::var("PROFILE").as_deref() == Ok("release")
}

/// Embeds an empty object, which the loader refuses, and warns with the `reason`.
fn embed_nothing(reason: &str) {
    // Not watched once the programs are built: commands with and without the variable then do not rebuild the agent.
    println!("cargo::rerun-if-env-changed={SKIP_ENV}");
    println!(
        "cargo::warning=the agent is built without the eBPF programs and cannot attach probes: {reason}; \
         `cargo xtask build` builds them"
    );
    let object = embedded();
    if let Err(err) = fs::write(&object, "") {
        println!("cargo::error=write {}: {err}", object.display());
    }
}

/// Returns the path of the file that the loader embeds.
fn embedded() -> PathBuf {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    out_dir.join("inferprobe-ebpf.gz")
}

/// Has cargo run this again when rustup or cargo has installed something.
fn watch_for_toolchain(places: &Places) {
    let installs = places.toolchains.with_file_name("update-hashes");
    for folder in places.bin_dirs.iter().take(1).chain([&installs]) {
        // cargo runs this before each build if it watches a path that does not exist.
        if folder.is_dir() {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
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
        println!("cargo::error=eBPF programs, built with toolchain {name}: {reason}");
        return;
    }
    let embedded = embedded();
    // aya-build writes the object there.
    let object = embedded.with_extension("");
    if let Err(err) = compress(&object, &embedded) {
        println!("cargo::error=embed {}: {err}", object.display());
    }
}

/// Writes what the loader embeds: the object compressed, and without its debug information. The compiler needs that to
/// write BTF; the kernel reads only BTF.
fn compress(object: &Path, embedded: &Path) -> Result<(), Box<dyn Error>> {
    let data = fs::read(object)?;
    let mut elf = Builder::read64(data.as_slice())?;
    for section in &mut elf.sections {
        let name = section.name.to_string();
        section.delete = name.trim_start_matches(".rel").starts_with(".debug_");
    }
    // LLVM keeps the names of sections and of symbols in one table; here each has its own.
    let names = elf.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    let mut compressed = GzEncoder::new(Vec::new(), Compression::best());
    compressed.write_all(&stripped)?;
    Ok(fs::write(embedded, compressed.finish()?)?)
}
