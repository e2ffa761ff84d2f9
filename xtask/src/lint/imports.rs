//! Finds import cycles: files of product code that import each other, directly or through other files.
//!
//! Reads `use` declarations, inline paths and the words of macros. A `mod` declaration is no import, and test code does
//! not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Macro, Meta, UseTree, Visibility};

use crate::source::{self, SourceFile};

/// Folders of product code.
const FOLDERS: [&str; 3] = ["agent/src", "agent-ebpf/src", "xtask/src"];

/// A module's names from the root of its crate.
type Module = Vec<String>;

/// Which file imports which names from which other file.
#[derive(Default)]
struct Graph {
    imports: BTreeMap<(PathBuf, PathBuf), BTreeSet<String>>,
}

/// Returns a text for each import cycle in the product code below `repository`.
pub(crate) fn cycles(repository: &Path) -> Result<Vec<String>> {
    let mut graph = Graph::default();
    for folder in FOLDERS {
        for root in roots(&repository.join(folder))? {
            graph.add_crate(&source::files(&root, false)?);
        }
    }
    let cycles = graph.cycles();
    Ok(cycles
        .iter()
        .map(|files| graph.describe(files, repository))
        .collect())
}

/// Returns the root files of the crates in `folder`.
fn roots(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut roots = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry.context("list a folder")?.path();
        if path.is_dir() {
            roots.extend(self::roots(&path)?);
        } else if path.ends_with("lib.rs") || path.ends_with("main.rs") {
            roots.push(path);
        }
    }
    Ok(roots)
}

impl Graph {
    fn add_crate(&mut self, files: &[SourceFile]) {
        let mut modules = BTreeMap::new();
        for file in files {
            modules.insert(file.module.clone(), file.path.clone());
            add_inline(&file.items, &file.module, &file.path, &mut modules);
        }
        for file in files {
            let mut aliases = BTreeMap::new();
            // An alias may be made of another: the second pass finds those of the first.
            for _ in 0..2 {
                aliases = read(file, &modules, aliases).aliases;
            }
            for (module, name) in read(file, &modules, aliases).imports {
                let target = &modules[&module];
                if *target != file.path {
                    let edge = (file.path.clone(), target.clone());
                    self.imports.entry(edge).or_default().insert(name);
                }
            }
        }
    }

    /// Returns the sets of files in which each imports each, directly or not.
    fn cycles(&self) -> Vec<BTreeSet<&Path>> {
        let files: BTreeSet<&Path> = self
            .imports
            .keys()
            .map(|(from, _)| from.as_path())
            .collect();
        let reached: BTreeMap<&Path, BTreeSet<&Path>> = files
            .iter()
            .map(|&file| (file, self.reached(file)))
            .collect();
        let reaches =
            |from: &Path, to: &Path| reached.get(from).is_some_and(|set| set.contains(to));
        let mut cycles: Vec<BTreeSet<&Path>> = Vec::new();
        for &file in &files {
            if reaches(file, file) && !cycles.iter().any(|cycle| cycle.contains(file)) {
                let both_ways = |other: &&Path| reaches(file, other) && reaches(other, file);
                cycles.push(files.iter().copied().filter(both_ways).collect());
            }
        }
        cycles
    }

    /// Returns the files that `file` imports, directly or not.
    fn reached(&self, file: &Path) -> BTreeSet<&Path> {
        let mut reached = BTreeSet::new();
        let mut open = vec![file];
        while let Some(from) = open.pop() {
            let next = self.imports.keys().filter(|edge| edge.0 == from);
            for (_, to) in next {
                if reached.insert(to.as_path()) {
                    open.push(to);
                }
            }
        }
        reached
    }

    /// Returns the imports between `files`, one a line.
    fn describe(&self, files: &BTreeSet<&Path>, repository: &Path) -> String {
        let short = |path: &Path| {
            let path = path.strip_prefix(repository).unwrap_or(path);
            path.display().to_string()
        };
        let inside = self.imports.iter().filter(|((from, to), _)| {
            files.contains(from.as_path()) && files.contains(to.as_path())
        });
        let lines = inside.map(|((from, to), names)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("    {} -> {}: {}", short(from), short(to), names.join(", "))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Adds the modules that `items` declare with a body: they are in the file of `items`.
fn add_inline(
    items: &[Item],
    module: &[String],
    file: &Path,
    modules: &mut BTreeMap<Module, PathBuf>,
) {
    for item in items {
        if let Item::Mod(item) = item
            && let Some((_, items)) = &item.content
        {
            let path = [module, &[item.ident.to_string()]].concat();
            modules.insert(path.clone(), file.to_owned());
            add_inline(items, &path, file, modules);
        }
    }
}

fn read<'a>(
    file: &SourceFile,
    modules: &'a BTreeMap<Module, PathBuf>,
    aliases: BTreeMap<(Module, String), Module>,
) -> Reader<'a> {
    let mut reader = Reader {
        modules,
        scope: file.module.clone(),
        aliases,
        imports: BTreeSet::new(),
    };
    for item in &file.items {
        reader.visit_item(item);
    }
    reader
}

/// Reads the paths of a file.
struct Reader<'a> {
    modules: &'a BTreeMap<Module, PathBuf>,
    /// The module that is being read.
    scope: Module,
    /// Modules that `use` gives a name, by the scope and that name.
    aliases: BTreeMap<(Module, String), Module>,
    /// Names that are imported, with the modules that they come from.
    imports: BTreeSet<(Module, String)>,
}

impl Reader<'_> {
    /// Splits a path into the module that it leads to and the names behind it; `None` if it leads out of the crate.
    fn resolve<'p>(&self, path: &'p [String]) -> Option<(Module, &'p [String])> {
        let first = path.first()?;
        let child = [&self.scope[..], std::slice::from_ref(first)].concat();
        let (mut module, mut rest) = match first.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (self.scope.clone(), &path[1..]),
            "super" => (self.scope.clone(), path),
            _ if self.modules.contains_key(&child) => (child, &path[1..]),
            _ => {
                let alias = self.aliases.get(&(self.scope.clone(), first.clone()))?;
                (alias.clone(), &path[1..])
            }
        };
        while let Some((name, behind)) = rest.split_first() {
            if name == "super" {
                module.pop()?;
            } else {
                module.push(name.clone());
                if !self.modules.contains_key(&module) {
                    module.pop();
                    break;
                }
            }
            rest = behind;
        }
        Some((module, rest))
    }

    fn on_path(&mut self, path: &[String]) {
        if path.len() > 1
            && let Some((module, [name, ..])) = self.resolve(path)
        {
            self.imports.insert((module, name.clone()));
        }
    }

    fn on_use(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.on_use(&path.tree, &with(path.ident.to_string())),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.on_use(tree, before);
                }
            }
            UseTree::Glob(_) => self.on_path(&with("*".to_owned())),
            UseTree::Name(name) if name.ident == "self" => {
                let alias = before.last().cloned().unwrap_or_default();
                self.on_named(before, alias);
            }
            UseTree::Name(name) => {
                self.on_named(&with(name.ident.to_string()), name.ident.to_string());
            }
            UseTree::Rename(name) if name.ident == "self" => {
                self.on_named(before, name.rename.to_string());
            }
            UseTree::Rename(name) => {
                self.on_named(&with(name.ident.to_string()), name.rename.to_string());
            }
        }
    }

    /// Handles what `use` gives the name `alias`: naming a module imports nothing from it yet.
    fn on_named(&mut self, path: &[String], alias: String) {
        match self.resolve(path) {
            Some((module, [])) => {
                self.aliases.insert((self.scope.clone(), alias), module);
            }
            _ => self.on_path(path),
        }
    }

    /// Handles the paths among the words of a macro or an attribute.
    fn on_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.on_path(&path);
                        path.clear();
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.on_path(&path);
                    path.clear();
                    self.on_tokens(group.stream());
                }
                _ => {
                    self.on_path(&path);
                    path.clear();
                }
            }
        }
        self.on_path(&path);
    }
}

impl Visit<'_> for Reader<'_> {
    fn visit_item_use(&mut self, item: &ItemUse) {
        if item.leading_colon.is_none() {
            self.on_use(&item.tree, &[]);
        }
    }

    fn visit_item_mod(&mut self, item: &ItemMod) {
        self.scope.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.scope.pop();
    }

    fn visit_path(&mut self, path: &syn::Path) {
        if path.leading_colon.is_none() {
            let names: Vec<String> = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect();
            self.on_path(&names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &Macro) {
        visit::visit_path(self, &item.path);
        self.on_tokens(item.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.on_tokens(list.tokens.clone());
        }
    }

    /// The path of `pub(in path)` imports nothing.
    fn visit_visibility(&mut self, _: &Visibility) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the cycles of a crate with these files, as `FILE -> FILE: NAMES` lines.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut graph = Graph::default();
        for root in roots(dir.path()).unwrap() {
            graph.add_crate(&source::files(&root, false).unwrap());
        }
        let cycles = graph.cycles();
        let describe = |files| graph.describe(files, dir.path());
        cycles
            .iter()
            .flat_map(|files| {
                describe(files)
                    .lines()
                    .map(|line| line.trim().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod a; mod b; mod c;");

    #[test]
    fn files_that_import_each_other_are_a_cycle() {
        let cycle = ["a.rs -> b.rs: B", "b.rs -> a.rs: A"];
        for (a, b) in [
            ("use crate::b::B;", "use crate::a::A;"),
            ("use super::b::B;", "use super::a::{self, A};"),
            (
                "fn f() { crate::b::B::new(); }",
                "use crate::a; type X = a::A;",
            ),
            (
                "use crate::b as bee; static X: bee::B = 1;",
                "fn f(_: &dyn super::a::A) {}",
            ),
            (
                "fn f() { println!(\"{}\", crate::b::B); }",
                "#[arg(value = crate::a::A)] struct S;",
            ),
            (
                "impl T { fn f() { use crate::b; b::B() } }",
                "use crate::a::A as Renamed;",
            ),
        ] {
            let files = [ROOT, ("a.rs", a), ("b.rs", b), ("c.rs", "use crate::a::A;")];
            assert_eq!(found(&files), cycle, "{a} / {b}");
        }
    }

    #[test]
    fn a_way_through_a_third_file_is_a_cycle() {
        let files = [
            ROOT,
            ("a.rs", "use crate::b::*;"),
            ("b.rs", "use crate::c::C;"),
            ("c.rs", "use crate::a::A;"),
        ];
        let expected = ["a.rs -> b.rs: *", "b.rs -> c.rs: C", "c.rs -> a.rs: A"];
        assert_eq!(found(&files), expected);
    }

    #[test]
    fn a_parent_that_imports_from_its_child_must_not_be_imported_by_it() {
        let root = ("lib.rs", "mod a;");
        let child = ("a/child.rs", "use super::Parent;");
        let declared = [root, ("a/mod.rs", "mod child; struct Parent;"), child];
        assert_eq!(found(&declared), [""; 0]);
        let cycle = [
            "a/child.rs -> a/mod.rs: Parent",
            "a/mod.rs -> a/child.rs: Child",
        ];
        for text in [
            "mod child; use child::Child;",
            "mod child; fn f(_: child::Child) {}",
        ] {
            assert_eq!(found(&[root, ("a/mod.rs", text), child]), cycle, "{text}");
        }
    }

    #[test]
    fn tests_visibility_and_modules_by_name_import_nothing() {
        for a in [
            "#[cfg(test)] use crate::b::B;",
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "#[test] fn f() { crate::b::B; }",
            "impl T { #[cfg(test)] fn f() { crate::b::B; } }",
            "pub(in crate::b) fn f() {}",
            "use crate::b;",
            "use b::B; use ::b::C;",
        ] {
            let files = [
                ROOT,
                ("a.rs", a),
                ("b.rs", "use crate::a::A;"),
                ("c.rs", ""),
            ];
            assert_eq!(found(&files), [""; 0], "{a}");
        }
    }

    #[test]
    fn an_inline_module_belongs_to_its_file() {
        let a = "mod inner { use super::super::b::B; fn f() { super::g(); } } fn g() {}";
        let files = [
            ROOT,
            ("a.rs", a),
            ("b.rs", "use crate::a::inner::X;"),
            ("c.rs", ""),
        ];
        assert_eq!(found(&files), ["a.rs -> b.rs: B", "b.rs -> a.rs: X"]);
    }
}
