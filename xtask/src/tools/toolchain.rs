//! Finds the compiler and linker for the bpf target on this machine; starts no program.
//!
//! Compiled into `xtask` and into `agent/build.rs`, so that both make the same choice. Therefore it uses only `std`.
//! `setup.rs` installs what is missing.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Names the rustup toolchain to use in place of the one found.
pub(crate) const TOOLCHAIN_ENV: &str = "INFERPROBE_BPF_TOOLCHAIN";

/// Set to `1`, builds the agent without the eBPF programs unless they are built already, and so needs no toolchain.
pub(crate) const SKIP_ENV: &str = "INFERPROBE_SKIP_EBPF";

/// The rustup toolchain that set-up links to a distribution's compiler.
pub(crate) const LINKED_NAME: &str = "bpf";

/// Where to look for both.
#[derive(Debug)]
pub(crate) struct Places {
    /// Value of `INFERPROBE_BPF_TOOLCHAIN`; `None` if it is unset or empty.
    pub(crate) wanted: Option<String>,
    /// rustup's folder of toolchains.
    pub(crate) toolchains: PathBuf,
    /// Folders that may hold `bpf-linker`, in order.
    pub(crate) bin_dirs: Vec<PathBuf>,
}

/// A compiler and a linker that together build eBPF programs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// rustup's name for the compiler.
    pub(crate) name: String,
    /// The `bpf-linker` that rustc will find first.
    pub(crate) linker: PathBuf,
}

/// What is missing to build the eBPF programs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The toolchain that `INFERPROBE_BPF_TOOLCHAIN` names is absent or has no sources of `core`.
    Wanted(String),
    /// No nightly or linked toolchain has the sources of `core`.
    Compiler,
    /// There is a compiler, but no `bpf-linker`.
    Linker,
}

impl Places {
    /// Returns the places that the environment names.
    pub(crate) fn from_env() -> Self {
        let home = env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        let folder = |name: &str, default: &str| {
            env::var_os(name).map_or_else(|| home.join(default), PathBuf::from)
        };
        let path = env::var_os("PATH").unwrap_or_default();
        // rustup puts cargo's folder before PATH for every program that it starts.
        let bin_dirs = std::iter::once(folder("CARGO_HOME", ".cargo").join("bin"))
            .chain(env::split_paths(&path))
            .collect();
        Self {
            wanted: env::var(TOOLCHAIN_ENV).ok().filter(|name| !name.is_empty()),
            toolchains: folder("RUSTUP_HOME", ".rustup").join("toolchains"),
            bin_dirs,
        }
    }
}

impl Toolchain {
    /// Finds the wanted toolchain, else the linked one, else the newest nightly, with the sources of `core`.
    pub(crate) fn find(places: &Places) -> Result<Self, Missing> {
        let names = installed(&places.toolchains);
        let name = match &places.wanted {
            Some(wanted) => names
                .into_iter()
                .find(|name| name == wanted || name.starts_with(&format!("{wanted}-")))
                .ok_or_else(|| Missing::Wanted(wanted.clone()))?,
            None => names
                .into_iter()
                .find(|name| name == LINKED_NAME || name.starts_with("nightly"))
                .ok_or(Missing::Compiler)?,
        };
        let linker = find_program(&places.bin_dirs, "bpf-linker").ok_or(Missing::Linker)?;
        Ok(Self { name, linker })
    }

    /// Whether the compiler accepts unstable flags without `RUSTC_BOOTSTRAP`.
    pub(crate) fn is_nightly(&self) -> bool {
        self.name.starts_with("nightly")
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted(name) => write!(
                f,
                "{TOOLCHAIN_ENV}={name}: rustup has no such toolchain with the sources of core; \
                 unset it, or name one that has its rust-src component"
            ),
            Self::Compiler => f.write_str(
                "the eBPF programs need a Rust toolchain with the sources of core, but there is none",
            ),
            Self::Linker => f.write_str("the eBPF programs need bpf-linker, but it is not on PATH"),
        }
    }
}

/// Returns the first file called `name` in `dirs`.
pub(crate) fn find_program(dirs: &[PathBuf], name: &str) -> Option<PathBuf> {
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Returns the toolchains with a compiler and the sources of `core`: the linked one, then the others by name, last name
/// first, so that an undated nightly is before the dated ones.
fn installed(toolchains: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(toolchains)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| has_core_source(&toolchains.join(name)))
        .collect();
    names.sort_by(|a, b| (b == LINKED_NAME, b).cmp(&(a == LINKED_NAME, a)));
    names
}

fn has_core_source(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file()
        && sysroot.join("bin/rustc").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a machine with these toolchains, each with or without the sources of `core`, and perhaps a linker.
    fn machine(toolchains: &[(&str, bool)], linker: bool) -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: PathBuf| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let places = Places {
            wanted: None,
            toolchains: dir.path().join("toolchains"),
            bin_dirs: vec![dir.path().join("empty"), dir.path().join("bin")],
        };
        for (name, core) in toolchains {
            let sysroot = places.toolchains.join(name);
            file(sysroot.join("bin/rustc"));
            if *core {
                file(sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs"));
            }
        }
        if linker {
            file(dir.path().join("bin/bpf-linker"));
        }
        (dir, places)
    }

    fn chosen(toolchains: &[(&str, bool)], wanted: Option<&str>) -> Result<String, Missing> {
        let (_dir, mut places) = machine(toolchains, true);
        places.wanted = wanted.map(str::to_owned);
        Toolchain::find(&places).map(|found| found.name)
    }

    #[test]
    fn the_linked_toolchain_is_preferred_to_the_newest_nightly() {
        let nightlies = [
            ("nightly-2026-01-01-x86_64", true),
            ("nightly-2026-03-01-x86_64", true),
            ("stable-x86_64", true),
        ];
        let found = chosen(&nightlies, None).unwrap();
        assert_eq!(found, "nightly-2026-03-01-x86_64");
        let with_undated = [&nightlies[..], &[("nightly-x86_64", true)]].concat();
        assert_eq!(chosen(&with_undated, None).unwrap(), "nightly-x86_64");
        let with_linked = [&with_undated[..], &[("bpf", true)]].concat();
        assert_eq!(chosen(&with_linked, None).unwrap(), "bpf");
    }

    #[test]
    fn a_toolchain_without_the_sources_of_core_is_ignored() {
        let toolchains = [
            ("bpf", false),
            ("nightly-x86_64", false),
            ("stable-x86_64", true),
        ];
        assert_eq!(chosen(&toolchains, None), Err(Missing::Compiler));
    }

    #[test]
    fn the_wanted_toolchain_is_used_or_named_as_missing() {
        let toolchains = [("bpf", true), ("nightly-x86_64", true), ("mine", false)];
        assert_eq!(
            chosen(&toolchains, Some("nightly")).unwrap(),
            "nightly-x86_64"
        );
        let missing = Err(Missing::Wanted("mine".to_owned()));
        assert_eq!(chosen(&toolchains, Some("mine")), missing);
    }

    #[test]
    fn a_compiler_without_a_linker_is_not_enough() {
        let (_dir, places) = machine(&[("bpf", true)], false);
        assert_eq!(Toolchain::find(&places), Err(Missing::Linker));
    }
}
