//! The source files of a crate, found by following `mod` declarations from its root.
//!
//! Does not depend on: what a file is read for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::{Attribute, Item};

/// A file of a crate.
pub(crate) struct SourceFile {
    /// Names of the modules from the root to this file; empty for the root.
    pub(crate) module: Vec<String>,
    pub(crate) items: Vec<Item>,
}

/// Reads the crate whose root file is `root`; with `tests`, also what is compiled only for unit tests.
pub(crate) fn files(root: &Path, tests: bool) -> Result<Vec<SourceFile>> {
    let folder = root.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    read(root, folder, Vec::new(), tests, &mut files)?;
    Ok(files)
}

/// Reads the file `path` and those that it declares; modules of `path` are in `folder`.
fn read(
    path: &Path,
    folder: &Path,
    module: Vec<String>,
    tests: bool,
    files: &mut Vec<SourceFile>,
) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let parsed = syn::parse_file(&text).with_context(|| format!("parse {}", path.display()))?;
    let mut declared = Vec::new();
    declarations(&parsed.items, folder, &module, tests, &mut declared);
    files.push(SourceFile {
        module,
        items: parsed.items,
    });
    for (module, folder) in declared {
        let name = module.last().expect("a declared module has a name").clone();
        let flat = folder.join(format!("{name}.rs"));
        let nested = folder.join(&name).join("mod.rs");
        let path = if flat.is_file() { flat } else { nested };
        read(&path, &folder.join(name), module, tests, files)?;
    }
    Ok(())
}

/// Collects the modules that `items` declare without a body, each with the folder that its file is in.
fn declarations(
    items: &[Item],
    folder: &Path,
    module: &[String],
    tests: bool,
    declared: &mut Vec<(Vec<String>, PathBuf)>,
) {
    for item in items {
        let Item::Mod(item) = item else { continue };
        if !tests && is_test_only(&item.attrs) {
            continue;
        }
        let name = item.ident.to_string();
        let path = [module, std::slice::from_ref(&name)].concat();
        match &item.content {
            Some((_, items)) => declarations(items, &folder.join(name), &path, tests, declared),
            None => declared.push((path, folder.to_owned())),
        }
    }
}

/// Whether an item is compiled only for unit tests: it has `#[cfg(test)]` or `#[test]`.
pub(crate) fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg_test = attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"));
        is_cfg_test || is_test(attribute)
    })
}

/// Whether an attribute marks a test: `#[test]`, `#[tokio::test]` and the like.
pub(crate) fn is_test(attribute: &Attribute) -> bool {
    let last = attribute.path().segments.last();
    last.is_some_and(|segment| segment.ident == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_both_styles_and_below_inline_modules() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("lib.rs", "mod a; mod b { mod c; } #[cfg(test)] mod d;"),
            ("a/mod.rs", "mod e;"),
            ("a/e.rs", "mod f;"),
            ("a/e/f.rs", ""),
            ("b/c.rs", ""),
            ("d.rs", ""),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let modules = |tests| {
            let files = files(&dir.path().join("lib.rs"), tests).unwrap();
            let names = files.iter().map(|file| file.module.join("::"));
            names.collect::<Vec<_>>()
        };
        assert_eq!(modules(false), ["", "a", "a::e", "a::e::f", "b::c"]);
        assert_eq!(modules(true), ["", "a", "a::e", "a::e::f", "b::c", "d"]);
    }

    #[test]
    fn an_attribute_of_cfg_test_or_test_marks_test_code() {
        for (text, expected) in [
            ("#[cfg(test)] mod a {}", true),
            ("#[test] fn a() {}", true),
            ("#[tokio::test] async fn a() {}", true),
            ("#[cfg(not(test))] fn a() {}", false),
            ("#[cfg(target_os = \"linux\")] fn a() {}", false),
        ] {
            let attributes = match syn::parse_str::<Item>(text).unwrap() {
                Item::Mod(item) => item.attrs,
                Item::Fn(item) => item.attrs,
                _ => panic!("{text}"),
            };
            assert_eq!(is_test_only(&attributes), expected, "{text}");
        }
    }
}
