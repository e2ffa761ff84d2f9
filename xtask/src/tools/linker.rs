//! Checks the version of `bpf-linker`, and builds one with the distribution's LLVM.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{progress, workspace};

/// The oldest release that builds this project, which is also the one that set-up installs.
const VERSION: (u32, u32, u32) = (0, 13, 0);

/// The folder of LLVM in Debian's `llvm-22-dev`.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Returns why the linker at `path` cannot be used; `None` if it can.
pub(crate) fn unfit(path: &Path) -> Option<String> {
    let output = progress::output(Command::new(path).arg("--version"));
    let Ok((text, true)) = output else {
        return Some(format!("{} does not start", path.display()));
    };
    match parse_version(&text) {
        Some(version) if version >= VERSION => None,
        _ => Some(format!(
            "{} is {}, but {} or later is needed",
            path.display(),
            text.trim(),
            dotted(VERSION)
        )),
    }
}

/// Builds the linker and installs it into cargo's own folder, in place of an older one.
pub(crate) fn install() -> Result<()> {
    let package = format!("bpf-linker@{}", dotted(VERSION));
    progress::step(
        "build bpf-linker (takes a few minutes)",
        workspace::cargo("install")
            .args([&package, "--locked", "--force", "--no-default-features"])
            .args(["--features", "llvm-22"])
            .env("LLVM_PREFIX", LLVM_PREFIX),
    )
}

fn dotted((major, minor, patch): (u32, u32, u32)) -> String {
    format!("{major}.{minor}.{patch}")
}

/// Reads `bpf-linker 0.13.0`, and ignores what follows the numbers.
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text
        .split_whitespace()
        .nth(1)?
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse);
    Some((
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_whatever_follows_it() {
        for (text, expected) in [
            ("bpf-linker 0.13.0\n", Some((0, 13, 0))),
            ("bpf-linker 1.2.30-beta (LLVM 22)", Some((1, 2, 30))),
            ("bpf-linker 0.13", None),
            ("bpf-linker", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text:?}");
        }
    }
}
