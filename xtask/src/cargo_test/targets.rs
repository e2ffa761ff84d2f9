//! The workspace's test targets, the names of their tests, and the choice of some of them by name.
//!
//! Reads sources, so that nothing has to be compiled for a choice.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;
use syn::Item;

use crate::source::{self, SourceFile};
use crate::{progress, workspace};

/// A program of tests that cargo builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) package: String,
    pub(crate) name: String,
    kind: Kind,
    /// Names of its tests with their modules, as the program itself lists them.
    tests: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lib,
    Bin,
    Test,
}

/// Tests to run with one `cargo test`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Options of cargo that select the package and its targets.
    pub(crate) targets: Vec<String>,
    /// What the names of the tests contain; all tests of the targets if empty.
    pub(crate) filters: Vec<String>,
}

impl Target {
    /// Whether this is an integration test; false for unit tests.
    pub(crate) fn is_integration(&self) -> bool {
        self.kind == Kind::Test
    }

    /// Returns the modules of its tests, each as `a::b`; the root is empty.
    pub(crate) fn modules(&self, filters: &[String]) -> Vec<&str> {
        let tests = self.tests.iter().filter(|test| {
            self.is_whole(filters) || filters.iter().any(|filter| test.contains(filter))
        });
        let mut modules: Vec<&str> = tests
            .map(|test| test.rsplit_once("::").map_or("", |(module, _)| module))
            .collect();
        modules.dedup();
        modules
    }

    /// Whether it has a top-level module `name` with tests.
    pub(crate) fn has_module(&self, name: &str) -> bool {
        self.tests.iter().any(|test| {
            test.split_once("::")
                .is_some_and(|(module, _)| module == name)
        })
    }

    /// Whether all of its tests are selected, because its own name matches.
    fn is_whole(&self, filters: &[String]) -> bool {
        filters.is_empty() || filters.iter().any(|filter| self.name.contains(filter))
    }

    /// The option of cargo that selects it.
    fn option(&self) -> Vec<String> {
        match self.kind {
            Kind::Lib => vec!["--lib".to_owned()],
            Kind::Bin => vec!["--bin".to_owned(), self.name.clone()],
            Kind::Test => vec!["--test".to_owned(), self.name.clone()],
        }
    }
}

/// Returns every test target of the workspace.
pub(crate) fn all() -> Result<Vec<Target>> {
    let mut command = workspace::cargo("metadata");
    command.args(["--no-deps", "--format-version", "1"]);
    let (text, done) = progress::output(&mut command)?;
    ensure!(done, "`{}` failed", progress::shown(&command));
    let metadata: Value = serde_json::from_str(&text).context("read the workspace's metadata")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut targets = Vec::new();
    for package in packages {
        for target in package["targets"].as_array().into_iter().flatten() {
            targets.extend(of_metadata(package, target)?);
        }
    }
    Ok(targets)
}

/// Returns the test target that `target` of cargo's metadata describes; `None` if it has no tests.
fn of_metadata(package: &Value, target: &Value) -> Result<Option<Target>> {
    let kind = match target["kind"][0].as_str() {
        Some("lib") => Kind::Lib,
        Some("bin") => Kind::Bin,
        Some("test") => Kind::Test,
        _ => return Ok(None),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if target["test"].as_bool() != Some(true) {
        return Ok(None);
    }
    let files = source::files(Path::new(&text(&target["src_path"])), true)?;
    Ok(Some(Target {
        package: text(&package["name"]),
        name: text(&target["name"]),
        kind,
        tests: files.iter().flat_map(tests_of_file).collect(),
    }))
}

/// Returns the targets that have a test which one of `filters` selects.
pub(crate) fn matching(targets: Vec<Target>, filters: &[String]) -> Vec<Target> {
    let is_selected = |target: &Target| !target.modules(filters).is_empty();
    targets.into_iter().filter(is_selected).collect()
}

/// Groups `targets` for as few runs of cargo as their packages and `filters` allow.
pub(crate) fn selections(targets: &[Target], filters: &[String]) -> Vec<Selection> {
    let mut selections: Vec<Selection> = Vec::new();
    for target in targets {
        let package = ["--package".to_owned(), target.package.clone()];
        let filters = if target.is_whole(filters) {
            &[]
        } else {
            filters
        };
        let same = selections.iter_mut().find(|selection| {
            selection.targets.starts_with(&package) && selection.filters == filters
        });
        match same {
            Some(selection) => selection.targets.extend(target.option()),
            None => selections.push(Selection {
                targets: [&package[..], &target.option()].concat(),
                filters: filters.to_vec(),
            }),
        }
    }
    selections
}

fn tests_of_file(file: &SourceFile) -> Vec<String> {
    let mut tests = Vec::new();
    collect(&file.items, &file.module, &mut tests);
    tests
}

fn collect(items: &[Item], module: &[String], tests: &mut Vec<String>) {
    let named = |name: &str| [module, &[name.to_owned()]].concat();
    for item in items {
        match item {
            Item::Fn(item) if item.attrs.iter().any(source::is_test) => {
                tests.push(named(&item.sig.ident.to_string()).join("::"));
            }
            Item::Mod(item) => {
                if let Some((_, items)) = &item.content {
                    collect(items, &named(&item.ident.to_string()), tests);
                }
            }
            Item::Macro(item) => {
                let names = tests_in_macro(item.mac.tokens.clone());
                tests.extend(names.iter().map(|name| named(name).join("::")));
            }
            _ => {}
        }
    }
}

/// Returns the names of the functions behind `#[test]` in the call of a macro, such as `proptest!`.
fn tests_in_macro(tokens: TokenStream) -> Vec<String> {
    let mut names = Vec::new();
    let (mut is_test, mut is_name) = (false, false);
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                is_test |= group.stream().to_string() == "test";
            }
            TokenTree::Ident(ident) if is_name => {
                if is_test {
                    names.push(ident.to_string());
                }
                (is_test, is_name) = (false, false);
            }
            TokenTree::Ident(ident) => is_name = ident == "fn",
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(package: &str, kind: Kind, name: &str, tests: &[&str]) -> Target {
        Target {
            package: package.to_owned(),
            name: name.to_owned(),
            kind,
            tests: tests.iter().map(|&test| test.to_owned()).collect(),
        }
    }

    fn workspace() -> Vec<Target> {
        vec![
            target(
                "a",
                Kind::Lib,
                "a",
                &["socket::unix_is_read", "tcp_is_read"],
            ),
            target(
                "t",
                Kind::Test,
                "kernel",
                &["unix::one", "unix::two", "accept::one"],
            ),
            target("t", Kind::Test, "unix_socket", &["three"]),
        ]
    }

    fn selected(filters: &[&str]) -> Vec<(String, String)> {
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        let targets = matching(workspace(), &filters);
        selections(&targets, &filters)
            .iter()
            .map(|selection| (selection.targets.join(" "), selection.filters.join(" ")))
            .collect()
    }

    fn pair(targets: &str, filters: &str) -> (String, String) {
        (targets.to_owned(), filters.to_owned())
    }

    #[test]
    fn a_filter_selects_targets_by_name_and_tests_by_name() {
        let expected = [
            pair("--package a --lib", "unix"),
            pair("--package t --test kernel", "unix"),
            pair("--package t --test unix_socket", ""),
        ];
        assert_eq!(selected(&["unix"]), expected);
        let expected = [pair("--package t --test kernel", "accept::")];
        assert_eq!(selected(&["accept::"]), expected);
        assert_eq!(selected(&["absent"]), []);
    }

    #[test]
    fn without_a_filter_targets_of_a_package_run_together() {
        let expected = [
            pair("--package a --lib", ""),
            pair("--package t --test kernel --test unix_socket", ""),
        ];
        assert_eq!(selected(&[]), expected);
    }

    #[test]
    fn modules_are_those_of_the_selected_tests() {
        let kernel = &workspace()[1];
        assert_eq!(kernel.modules(&["two".to_owned()]), ["unix"]);
        assert_eq!(kernel.modules(&["kernel".to_owned()]), ["unix", "accept"]);
        assert!(kernel.has_module("accept"));
        assert!(!kernel.has_module("one"));
    }

    #[test]
    fn tests_are_found_in_modules_and_macros() {
        let text = "fn helper() {} #[test] fn a() {} mod tests { #[tokio::test] async fn b() {} }\
                    proptest! { #![config(1)] #[test] fn c(x in 0..1) {} fn d() {} }";
        let file = SourceFile {
            module: vec!["m".to_owned()],
            path: "m.rs".into(),
            items: syn::parse_file(text).unwrap().items,
        };
        assert_eq!(tests_of_file(&file), ["m::a", "m::tests::b", "m::c"]);
    }
}
