//! Compares the documentation with the code's tables. Its links, words and lengths are checked by `cargo xtask lint`.
//!
//! `UPDATE_GOLDEN=1` rewrites the text between `<!-- generated:NAME -->` and `<!-- /generated -->`.

mod blocks;
mod pages;

use std::{collections::BTreeSet, fs, path::Path};

use clap::CommandFactory as _;
use inferprobe::{
    cli::Cli,
    exchange::event::{Loss, Unfinished},
    metrics::families::{AUTOSCALE_FAMILIES, FAMILIES},
};
use inferprobe_ebpf::abi::DropReason;

use crate::pages::{Page, pages};

/// The page that names the tests of each kind of fault.
const FAULTS: &str = "docs/internals/faults.md";

#[test]
fn generated_text_is_that_of_the_code() {
    let mut found = BTreeSet::new();
    for page in pages() {
        for (name, text) in page.generated() {
            let expected = blocks::render(name);
            let expected = expected.unwrap_or_else(|| panic!("{}: no table {name}", page.path));
            assert!(
                text == expected,
                "{}: {name} is out of date, first difference: {:?}; run with UPDATE_GOLDEN=1 and review the diff",
                page.path,
                text.lines()
                    .zip(expected.lines())
                    .find(|(old, new)| old != new)
            );
            found.insert(name.to_owned());
        }
    }
    let expected: BTreeSet<String> = blocks::names().into_iter().collect();
    assert_eq!(found, expected, "tables of the documentation");
}

#[test]
fn every_family_option_and_reason_is_documented() {
    let families = FAMILIES.iter().chain(AUTOSCALE_FAMILIES);
    let mut names: Vec<String> = families.map(|family| family.name.to_owned()).collect();
    for command in Cli::command().get_subcommands() {
        let options = command.get_arguments().filter_map(|arg| arg.get_long());
        names.extend(options.map(|long| format!("--{long}")));
    }
    names.extend(Loss::ALL.map(|loss| loss.name().to_owned()));
    names.extend(Unfinished::ALL.map(|reason| reason.name().to_owned()));
    names.extend(DropReason::ALL.map(|reason| reason.name().to_owned()));
    let is_documented = |name: &String| {
        let code = format!("`{name}`");
        pages().iter().any(|page: &Page| page.text.contains(&code))
    };
    names.retain(|name| !is_documented(name));
    assert!(names.is_empty(), "not in docs/: {names:?}");
}

#[test]
fn every_kind_of_fault_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join(FAULTS)).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let mut count = 0;
    for row in rows.filter(|row| !row.starts_with("| Kind of fault")) {
        let tests: Vec<(&str, &str)> = row
            .split('`')
            .filter_map(|code| code.split_once("::"))
            .collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for (file, name) in tests {
            let source = fs::read_to_string(root.join(file)).unwrap_or_default();
            let is_test = |(at, _): (usize, &str)| source[..at].trim_end().ends_with("#[test]");
            let found = source.match_indices(&format!("fn {name}(")).any(is_test);
            assert!(found, "{file} has no test {name}");
            count += 1;
        }
    }
    assert!(count > 50, "only {count} tests are named");
}
