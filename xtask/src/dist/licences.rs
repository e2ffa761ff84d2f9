//! Writes the licences of all crates that are linked into the agent and its eBPF programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::arch::Arch;
use crate::dist::parts::{self, Parts};
use crate::{progress, workspace};

/// The crates of this repository that are linked into the program.
const OWN: [&str; 2] = ["inferprobe", "inferprobe-ebpf"];
/// What rustc builds eBPF programs for.
const EBPF_TARGET: &str = "bpfel-unknown-none";
/// How names of licence files begin, in upper case.
const FILES: [&str; 4] = ["LICEN", "COPYING", "UNLICENSE", "NOTICE"];

/// What is vendored: name and version, licence, and the file with its text.
const VENDORED: [(&str, &str, &str); 1] =
    [("uPlot 1.6.32", "MIT", "agent/page/vendor/uPlot-LICENSE")];

/// A crate of somebody else, or what is vendored.
struct Crate {
    /// Name and version.
    name: String,
    /// Its licences, as its metadata names them.
    licence: String,
    authors: String,
    /// The texts that it comes with.
    texts: Vec<String>,
}

/// Writes `third-party-licences.txt` and its compressed form into the folder of `parts`.
pub(crate) fn write(parts: &Parts) -> Result<()> {
    let text = document(&crates(parts.arch)?);
    let path = parts.folder.join("third-party-licences.txt");
    parts::gzip(text.as_bytes(), &path.with_extension("txt.gz"))?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Returns the text: a list of crates, then each licence text once, with the crates that it holds for.
fn document(crates: &[Crate]) -> String {
    let mut text =
        "inferprobe contains these crates and scripts, under the licences named here.\n\n"
            .to_owned();
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in crates {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}: {}", one.name, one.licence);
        for licence in &one.texts {
            users.entry(licence).or_default().push(&one.name);
        }
        if one.texts.is_empty() {
            let _ = writeln!(text, "    comes without a text; by {}", one.authors);
        }
    }
    for (licence, names) in users {
        let _ = write!(
            text,
            "\n{}\n{}:\n\n{}\n",
            "-".repeat(80),
            names.join(", "),
            licence.trim_end()
        );
    }
    text
}

/// Returns the crates that are linked into the program of `arch` and into its eBPF programs, sorted by name.
fn crates(arch: Arch) -> Result<Vec<Crate>> {
    let mut crates = crates_for(arch.target())?;
    crates.extend(crates_for(EBPF_TARGET)?);
    for (name, licence, path) in VENDORED {
        let path = workspace::root().join(path);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        crates.push(Crate {
            name: name.into(),
            licence: licence.into(),
            authors: String::new(),
            texts: vec![text],
        });
    }
    crates.sort_by(|a, b| a.name.cmp(&b.name));
    crates.dedup_by(|a, b| a.name == b.name);
    Ok(crates)
}

fn crates_for(target: &str) -> Result<Vec<Crate>> {
    let mut command = workspace::cargo("metadata");
    command.args(["--format-version", "1", "--filter-platform", target]);
    // The eBPF side's own crates.
    command.args(["--features", "inferprobe-ebpf/program"]);
    let (text, done) = progress::output(&mut command)?;
    ensure!(done, "`{}` failed", progress::shown(&command));
    let metadata: Value = serde_json::from_str(&text).context("read cargo's metadata")?;
    let linked = linked(&metadata);
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut crates = Vec::new();
    for package in packages {
        let is_linked = linked.contains(package["id"].as_str().unwrap_or_default());
        if is_linked && !package["source"].is_null() {
            crates.push(of_package(package)?);
        }
    }
    Ok(crates)
}

/// Returns the ids of all packages that the own ones need in the end, but not to build or to test.
fn linked(metadata: &Value) -> BTreeSet<&str> {
    let list =
        |value: &'static str, of: &'_ Value| of[value].as_array().cloned().unwrap_or_default();
    let nodes = metadata["resolve"]["nodes"].as_array();
    let nodes: BTreeMap<&str, &Value> = nodes
        .into_iter()
        .flatten()
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let own = packages.filter(|package| {
        package["source"].is_null() && OWN.iter().any(|name| package["name"] == **name)
    });
    let mut linked = BTreeSet::new();
    let mut open: Vec<&str> = own.filter_map(|package| package["id"].as_str()).collect();
    while let Some(id) = open.pop() {
        if !linked.insert(id) {
            continue;
        }
        let Some(node) = nodes.get(id) else { continue };
        for needed in node["deps"].as_array().into_iter().flatten() {
            let is_linked = list("dep_kinds", needed)
                .iter()
                .any(|kind| kind["kind"].is_null());
            if let Some(id) = needed["pkg"].as_str().filter(|_| is_linked) {
                open.push(id);
            }
        }
    }
    linked
}

fn of_package(package: &Value) -> Result<Crate> {
    let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
    let manifest = text("manifest_path");
    let folder = Path::new(&manifest).parent().unwrap_or(Path::new("."));
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.context("list a crate's files")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_uppercase();
        if path.is_file() && FILES.iter().any(|start| name.starts_with(start)) {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
    };
    let authors = package["authors"].as_array().into_iter().flatten();
    let authors: Vec<&str> = authors.filter_map(Value::as_str).collect();
    Ok(Crate {
        name: format!("{} {}", text("name"), text("version")),
        licence: text("license"),
        authors: authors.join(", "),
        texts: paths.iter().map(read).collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crates_that_are_linked_in_count() {
        let metadata = serde_json::json!({
            "packages": [
                {"id": "own", "name": "inferprobe", "source": null},
                {"id": "xtask", "name": "xtask", "source": null},
            ],
            "resolve": {"nodes": [
                {"id": "own", "deps": [
                    {"pkg": "a", "dep_kinds": [{"kind": null}]},
                    {"pkg": "build", "dep_kinds": [{"kind": "build"}, {"kind": "dev"}]},
                ]},
                {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": "build"}, {"kind": null}]}]},
                {"id": "xtask", "deps": [{"pkg": "c", "dep_kinds": [{"kind": null}]}]},
            ]},
        });
        let linked = linked(&metadata);
        assert_eq!(linked.into_iter().collect::<Vec<_>>(), ["a", "b", "own"]);
    }

    #[test]
    fn a_text_is_printed_once_for_all_its_crates() {
        let one = |name: &str, texts: &[&str]| Crate {
            name: name.to_owned(),
            licence: "MIT".to_owned(),
            authors: "somebody".to_owned(),
            texts: texts.iter().map(|&text| text.to_owned()).collect(),
        };
        let text = document(&[
            one("a 1", &["permission\n"]),
            one("b 2", &["permission\n"]),
            one("c 3", &[]),
        ]);
        assert_eq!(text.matches("permission").count(), 1);
        assert!(text.contains("a 1, b 2:\n\npermission\n"), "{text}");
        assert!(
            text.contains("c 3: MIT\n    comes without a text; by somebody\n"),
            "{text}"
        );
    }

    #[test]
    fn the_agents_own_crates_have_known_licences() {
        let crates = crates(Arch::Amd64).unwrap();
        assert!(crates.iter().any(|one| one.name.starts_with("aya-ebpf ")));
        for one in &crates {
            assert!(!one.licence.is_empty(), "{}", one.name);
            assert!(
                !one.licence.contains("GPL"),
                "{}: {}",
                one.name,
                one.licence
            );
        }
    }
}
