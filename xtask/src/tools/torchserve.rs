//! Provides a real TorchServe for the tests: Java, a Python environment and model archives, in the build output.
//!
//! A stub replaces PyTorch, because the frontend, the worker protocol and the metrics need no tensors. Does not depend
//! on: how the tests start a TorchServe.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools::toolchain::Places;
use crate::tools::{debian, python};
use crate::{progress, workspace};

/// The releases that the tests are written for.
const PYTHON_PACKAGES: [&str; 6] = [
    "torchserve==0.12.0",
    "torch-model-archiver==0.12.0",
    "psutil==5.9.8",
    "pyyaml==6.0.1",
    "packaging==23.2",
    "grpcio==1.85.1",
];

/// The oldest Java that TorchServe's frontend supports.
const JAVA_MAJOR: u32 = 17;

/// The models of the archives; both have the same handler.
const MODELS: [&str; 2] = ["tiny", "twin"];

const HANDLER: &str = include_str!("../../../tests/torchserve/handler.py");
const TORCH_STUB: &str = include_str!("../../../tests/torchserve/torch/__init__.py");

/// Returns the folder with `java`, `venv` and `models`; makes what is missing or has another recipe.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("tools/torchserve");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    ensure_java(&dir.join("java"))?;
    let recipe = [&PYTHON_PACKAGES[..], &MODELS, &[TORCH_STUB, HANDLER]].concat();
    python::once(&dir, &recipe, || {
        make_venv(&dir.join("venv"))?;
        make_archives(&dir)
    })?;
    Ok(dir)
}

/// Makes `link` lead to the home of a Java that is new enough; installs one if there is none.
fn ensure_java(link: &Path) -> Result<()> {
    if link.join("bin/java").is_file() {
        return Ok(());
    }
    let home = match find_java() {
        Some(home) => home,
        None => {
            if !debian::is_here() {
                bail!(
                    "the tests need Java {JAVA_MAJOR} or later, which set-up can install only on Debian and Ubuntu; \
                     put java on PATH or set JAVA_HOME"
                );
            }
            debian::install(
                "The tests need TorchServe, and so Java",
                &["openjdk-17-jre-headless"],
            )?;
            find_java().context("find the Java that apt-get has installed")?
        }
    };
    match fs::remove_file(link) {
        Err(err) if err.kind() != ErrorKind::NotFound => {
            return Err(err).with_context(|| format!("clear {}", link.display()));
        }
        _ => {}
    }
    symlink(&home, link).with_context(|| format!("link {} to {}", link.display(), home.display()))
}

/// Returns the home of the first Java that is new enough, in JAVA_HOME, on PATH and in Debian's folder.
fn find_java() -> Option<PathBuf> {
    let named = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let installed = fs::read_dir("/usr/lib/jvm")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    named
        .into_iter()
        .chain(Places::from_env().bin_dirs)
        .chain(installed)
        .filter_map(|dir| fs::canonicalize(dir.join("java")).ok())
        .find(|java| {
            progress::output(Command::new(java).arg("--version"))
                .is_ok_and(|(text, _)| java_major(&text).is_some_and(|major| major >= JAVA_MAJOR))
        })
        .and_then(|java| Some(java.parent()?.parent()?.to_owned()))
}

/// Reads the 17 of `openjdk 17.0.15 2025-04-15`; releases before 9 have no `--version`.
fn java_major(text: &str) -> Option<u32> {
    let version = text.split_whitespace().nth(1)?;
    version
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Makes the Python environment from nothing, with the stub in place of PyTorch.
fn make_venv(venv: &Path) -> Result<()> {
    python::make_venv(venv, "TorchServe", &PYTHON_PACKAGES)?;
    let (packages, _) = progress::output(Command::new(venv.join("bin/python")).args([
        "-c",
        "import sysconfig; print(sysconfig.get_paths()['purelib'])",
    ]))?;
    let stub = Path::new(packages.trim()).join("torch");
    fs::create_dir_all(&stub).with_context(|| format!("create {}", stub.display()))?;
    fs::write(stub.join("__init__.py"), TORCH_STUB)
        .with_context(|| format!("write the stub of PyTorch into {}", stub.display()))
}

fn make_archives(dir: &Path) -> Result<()> {
    let models = dir.join("models");
    fs::create_dir_all(&models).with_context(|| format!("create {}", models.display()))?;
    let handler = dir.join("handler.py");
    fs::write(&handler, HANDLER).with_context(|| format!("write {}", handler.display()))?;
    for model in MODELS {
        progress::check(
            Command::new(dir.join("venv/bin/torch-model-archiver"))
                .args(["--model-name", model, "--version", "1.0", "--force"])
                .arg("--handler")
                .arg(&handler)
                .arg("--export-path")
                .arg(&models),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_java_is_read() {
        for (text, expected) in [
            ("openjdk 17.0.15 2025-04-15\nOpenJDK Runtime", Some(17)),
            ("java 21-ea 2023-09-19", Some(21)),
            ("openjdk", None),
            ("", None),
        ] {
            assert_eq!(java_major(text), expected, "{text:?}");
        }
    }
}
