//! Reads the pages of the documentation, and brings their generated text up to date if asked to.
//!
//! Does not depend on: the content of the tables.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::blocks;

const BEGIN: &str = "\n<!-- generated:";
const BEGIN_END: &str = " -->\n";
const END: &str = "<!-- /generated -->";

/// One page.
pub(crate) struct Page {
    /// Path from the root of the repository.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl Page {
    /// Returns name and text of each generated part.
    pub(crate) fn generated(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.split(BEGIN).skip(1).map(|rest| {
            let (name, rest) = self.split(rest, BEGIN_END);
            let (text, _) = self.split(rest, END);
            (name, text)
        })
    }

    /// Returns the text with every generated part rendered anew.
    fn regenerated(&self) -> String {
        let mut parts = self.text.split(BEGIN);
        let mut text = parts.next().unwrap_or_default().to_owned();
        for rest in parts {
            let (name, rest) = self.split(rest, BEGIN_END);
            let (_, rest) = self.split(rest, END);
            let table = blocks::render(name);
            let table = table.unwrap_or_else(|| panic!("{}: no table {name}", self.path));
            for part in [BEGIN, name, BEGIN_END, &table, END, rest] {
                text.push_str(part);
            }
        }
        text
    }

    fn split<'a>(&self, text: &'a str, mark: &str) -> (&'a str, &'a str) {
        text.split_once(mark)
            .unwrap_or_else(|| panic!("{}: {mark:?} is missing after {BEGIN:?}", self.path))
    }
}

/// Returns the root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the pages in `docs/`; with `UPDATE_GOLDEN` set, after bringing their generated text up to date.
pub(crate) fn pages() -> &'static [Page] {
    static PAGES: OnceLock<Vec<Page>> = OnceLock::new();
    PAGES.get_or_init(|| {
        let mut paths = Vec::new();
        find(&root().join("docs"), "docs", &mut paths);
        paths.into_iter().map(read).collect()
    })
}

fn read(path: String) -> Page {
    let file = root().join(&path);
    let text = fs::read_to_string(&file).unwrap_or_else(|err| panic!("read {path}: {err}"));
    let mut page = Page { path, text };
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = page.regenerated();
        if text != page.text {
            fs::write(&file, &text).expect("write a page");
            page.text = text;
        }
    }
    page
}

fn find(folder: &Path, name: &str, paths: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("list a folder of pages")
        .map(|entry| entry.expect("read an entry").path())
        .collect();
    entries.sort();
    for entry in entries {
        let file_name = entry.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("{name}/{file_name}");
        if entry.is_dir() {
            find(&entry, &path, paths);
        } else if path.ends_with(".md") {
            paths.push(path);
        }
    }
}
