//! Checks the pages of the documentation: their length, their links, and the paths that ARCHITECTURE.md names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::lint::markdown::{self, Block};

/// Pages in the root of the repository; those of [`FOLDER`] join them.
const ROOT_PAGES: [&str; 3] = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"];
const FOLDER: &str = "docs";
/// Raw results, which may be of any length.
const RESULTS: &str = "docs/results";
/// Most lines of README.md, and of a page in [`FOLDER`], generated blocks not counted.
const README_LINES: usize = 200;
const PAGE_LINES: usize = 300;
/// The page whose code spans name paths.
const MAP: &str = "ARCHITECTURE.md";
/// Folders that those paths begin with.
const TOP_FOLDERS: [&str; 6] = [
    "agent/",
    "agent-ebpf/",
    "deploy/",
    "docs/",
    "tests/",
    "xtask/",
];
/// Head of the first column of the table whose paths are relative to the folder that a row before it names in bold.
const MAP_COLUMN: &str = "| Path |";

/// Returns the paths of all pages, relative to `repository`.
pub(crate) fn pages(repository: &Path) -> Result<Vec<PathBuf>> {
    let root = ROOT_PAGES.iter().map(PathBuf::from);
    let mut pages: Vec<PathBuf> = root
        .filter(|page| repository.join(page).is_file())
        .collect();
    let mut folders = vec![PathBuf::from(FOLDER)];
    while let Some(folder) = folders.pop() {
        let path = repository.join(&folder);
        let entries = fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
        for entry in entries {
            let entry = entry.context("list a folder")?;
            let page = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(page);
            } else if page.extension().is_some_and(|extension| extension == "md") {
                pages.push(page);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// Returns a line for each page that is too long, each link that leads nowhere, and each path that does not exist.
pub(crate) fn findings(repository: &Path) -> Result<Vec<String>> {
    let mut texts = BTreeMap::new();
    for page in pages(repository)? {
        let path = repository.join(&page);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        texts.insert(page, text);
    }
    let mut findings = Vec::new();
    for (page, text) in &texts {
        findings.extend(too_long(page, text));
        for (line, target) in markdown::links(text) {
            if let Some(why) = broken(repository, page, &target) {
                findings.push(format!("{}:{line}: link {target}: {why}", page.display()));
            }
        }
    }
    if let Some(text) = texts.get(Path::new(MAP)) {
        findings.extend(missing_paths(repository, text));
    }
    Ok(findings)
}

fn too_long(page: &Path, text: &str) -> Option<String> {
    let cap = match page.to_str() {
        Some("README.md") => README_LINES,
        _ if page.starts_with(FOLDER) && !page.starts_with(RESULTS) => PAGE_LINES,
        _ => return None,
    };
    let lines = markdown::lines(text);
    let generated = Some(Block::Generated);
    let count = lines.iter().filter(|line| line.block != generated).count();
    (count > cap).then(|| {
        format!(
            "{}: {count} lines outside of generated blocks, at most {cap} are allowed",
            page.display()
        )
    })
}

/// Returns why the link `target` of `page` leads nowhere; `None` if it leads somewhere, or out of the repository.
fn broken(repository: &Path, page: &Path, target: &str) -> Option<&'static str> {
    let is_address = target.contains("://") || target.starts_with("mailto:");
    if is_address {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = match path {
        "" => page.to_owned(),
        path => normal(&page.parent().unwrap_or(Path::new("")).join(path)),
    };
    let file = repository.join(file);
    if !file.exists() {
        return Some("no such file");
    }
    let has_anchor = || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        markdown::anchors(&text).contains(anchor)
    };
    (!anchor.is_empty() && !has_anchor()).then_some("no such heading")
}

/// Returns `path` without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            component => normal.push(component),
        }
    }
    normal
}

/// Returns a line for each path in the page [`MAP`] that does not exist.
fn missing_paths(repository: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut base: Option<&str> = None;
    let mut is_map = false;
    for line in markdown::lines(text).iter().filter(|line| !line.is_code) {
        is_map = line.text.starts_with(MAP_COLUMN) || (is_map && line.text.starts_with('|'));
        let cell = line.text.trim_start_matches('|').split('|').next();
        let cell = cell.filter(|_| is_map).unwrap_or_default();
        let of_cell = markdown::code_spans(cell);
        if cell.trim_start().starts_with("**") {
            base = of_cell.first().copied();
        }
        let mut missing = Vec::new();
        let mut folder = "";
        for span in of_cell {
            let places = ["", base.unwrap_or_default()].map(|place| repository.join(place));
            let found = places
                .iter()
                .any(|place| place.join(span).exists() || place.join(folder).join(span).exists());
            if !found {
                missing.push(span);
            }
            if span.ends_with('/') {
                folder = span;
            }
        }
        let of_rest = markdown::code_spans(&line.text[cell.len()..]);
        missing.extend(
            of_rest
                .into_iter()
                .filter(|span| is_path(span) && !repository.join(span).exists()),
        );
        let number = line.number;
        let describe = |span| format!("{MAP}:{number}: {span}: no such path");
        findings.extend(missing.into_iter().map(describe));
    }
    findings
}

/// Whether a code span is a path from the root of the repository, and not a pattern.
fn is_path(span: &str) -> bool {
    TOP_FOLDERS.iter().any(|folder| span.starts_with(folder)) && !span.contains(['*', '{', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with these files.
    fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("docs")).unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        findings(repository(files).path()).unwrap()
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let page = "# Here\n[a](docs/a.md#there) [b](#here) [c](https://example.org/x#y) [d](docs)";
        let other = "# There\n[up](../README.md#here) [gone](gone.md) [no](#here)";
        let expected = [
            "docs/a.md:2: link gone.md: no such file",
            "docs/a.md:2: link #here: no such heading",
        ];
        assert_eq!(
            found(&[("README.md", page), ("docs/a.md", other)]),
            expected
        );
    }

    #[test]
    fn a_page_has_a_cap_without_its_generated_blocks() {
        let long = "line\n".repeat(PAGE_LINES);
        let generated = format!("{long}<!-- generated:x -->\n{long}<!-- /generated -->\n");
        let files = [
            ("README.md", "line\n".repeat(README_LINES + 1)),
            ("docs/a.md", generated),
            ("docs/b/c.md", format!("{long}one more\n")),
            ("docs/results/d.md", format!("{long}one more\n")),
        ];
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (*path, text.as_str()))
            .collect();
        let expected = [
            "README.md: 201 lines outside of generated blocks, at most 200 are allowed",
            "docs/b/c.md: 301 lines outside of generated blocks, at most 300 are allowed",
        ];
        assert_eq!(found(&files), expected);
    }

    #[test]
    fn paths_of_the_map_exist() {
        let map = "| Path | What |\n|---|---|\n| **`agent/src/`** `a.rs` | the `xyz` |\n\
                   | `b/` `c.rs` `gone.rs` | see `agent/src/a.rs` and `agent/src/lost.rs` |\n\n\
                   `agent/src/{a,b}.rs`, `other.rs` and `agent/src/left.rs`.\n";
        let files = [
            ("ARCHITECTURE.md", map),
            ("agent/src/a.rs", ""),
            ("agent/src/b/c.rs", ""),
        ];
        let expected = [
            "ARCHITECTURE.md:4: gone.rs: no such path",
            "ARCHITECTURE.md:4: agent/src/lost.rs: no such path",
            "ARCHITECTURE.md:6: agent/src/left.rs: no such path",
        ];
        assert_eq!(found(&files), expected);
    }
}
