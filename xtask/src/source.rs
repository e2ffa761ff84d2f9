//! The source files of a crate, found by following `mod` declarations from its root.
//!
//! Does not depend on: what a file is read for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Block, ImplItem, Item, ItemImpl, ItemMod, ItemTrait, Stmt, TraitItem};

/// A file of a crate.
pub(crate) struct SourceFile {
    /// Names of the modules from the root to this file; empty for the root.
    pub(crate) module: Vec<String>,
    pub(crate) path: PathBuf,
    pub(crate) items: Vec<Item>,
}

/// Reads the crate whose root file is `root`; without `tests`, leaves out what is compiled only for unit tests.
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
    let mut parsed = syn::parse_file(&text).with_context(|| format!("parse {}", path.display()))?;
    if !tests {
        WithoutTests.visit_file_mut(&mut parsed);
    }
    let mut declared = Vec::new();
    declarations(&parsed.items, folder, &module, &mut declared);
    files.push(SourceFile {
        module,
        path: path.to_owned(),
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
    declared: &mut Vec<(Vec<String>, PathBuf)>,
) {
    for item in items {
        let Item::Mod(item) = item else { continue };
        let name = item.ident.to_string();
        let path = [module, std::slice::from_ref(&name)].concat();
        match &item.content {
            Some((_, items)) => declarations(items, &folder.join(name), &path, declared),
            // A file that is named belongs to another crate.
            None if item.attrs.iter().any(|it| it.path().is_ident("path")) => {}
            None => declared.push((path, folder.to_owned())),
        }
    }
}

/// Removes what is compiled only for unit tests.
struct WithoutTests;

impl VisitMut for WithoutTests {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(is_product);
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, item: &mut ItemMod) {
        if let Some((_, items)) = &mut item.content {
            items.retain(is_product);
        }
        visit_mut::visit_item_mod_mut(self, item);
    }

    fn visit_item_impl_mut(&mut self, item: &mut ItemImpl) {
        item.items.retain(|item| match item {
            ImplItem::Const(item) => !is_test_only(&item.attrs),
            ImplItem::Fn(item) => !is_test_only(&item.attrs),
            ImplItem::Type(item) => !is_test_only(&item.attrs),
            _ => true,
        });
        visit_mut::visit_item_impl_mut(self, item);
    }

    fn visit_item_trait_mut(&mut self, item: &mut ItemTrait) {
        item.items
            .retain(|item| !matches!(item, TraitItem::Fn(item) if is_test_only(&item.attrs)));
        visit_mut::visit_item_trait_mut(self, item);
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        block
            .stmts
            .retain(|statement| !matches!(statement, Stmt::Item(item) if !is_product(item)));
        visit_mut::visit_block_mut(self, block);
    }
}

fn is_product(item: &Item) -> bool {
    let attributes = match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return true,
    };
    !is_test_only(attributes)
}

/// Whether an item is compiled only for unit tests: it has `#[cfg(test)]` or `#[test]`.
fn is_test_only(attributes: &[Attribute]) -> bool {
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
    use syn::Ident;
    use syn::visit::Visit;

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

    /// Whether something is still called `a` in `text` without its unit tests.
    fn names_a(text: &str) -> bool {
        struct Finder(bool);
        impl Visit<'_> for Finder {
            fn visit_ident(&mut self, ident: &Ident) {
                self.0 |= ident == "a";
            }
        }
        let mut product = syn::parse_file(text).unwrap();
        WithoutTests.visit_file_mut(&mut product);
        let mut finder = Finder(false);
        finder.visit_file(&product);
        finder.0
    }

    #[test]
    fn code_for_unit_tests_is_left_out() {
        for (text, stays) in [
            ("#[cfg(test)] mod a {}", false),
            ("#[test] fn a() {}", false),
            ("#[tokio::test] async fn a() {}", false),
            ("#[cfg(test)] use a::B;", false),
            ("#[cfg(not(test))] fn a() {}", true),
            ("#[cfg(target_os = \"linux\")] fn a() {}", true),
        ] {
            for text in [
                text.to_owned(),
                format!("mod outer {{ {text} }}"),
                format!("fn outer() {{ {text} }}"),
            ] {
                assert_eq!(names_a(&text), stays, "{text}");
            }
        }
        assert!(!names_a("impl A { #[cfg(test)] fn a() {} }"));
        assert!(!names_a("trait A { #[cfg(test)] fn a() {} }"));
    }
}
