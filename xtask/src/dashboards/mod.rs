//! Writes the Grafana dashboards in `deploy/grafana` from a description in Rust, and checks them against Grafana's types.
//!
//! `boards` says what they show, `board` and `panel` build them, `schema` has the types.

mod board;
mod boards;
mod check;
mod panel;
mod schema;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::workspace;

/// Writes the dashboards, or compares them with Grafana's types.
pub(crate) fn run(check: bool) -> Result<()> {
    if check {
        return check::run(&files());
    }
    for (path, text) in files() {
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Returns path and text of each dashboard.
fn files() -> Vec<(PathBuf, String)> {
    let folder = workspace::root().join("deploy/grafana");
    boards::all()
        .into_iter()
        .map(|(name, dashboard)| {
            let text =
                serde_json::to_string_pretty(&dashboard).expect("a dashboard has plain keys");
            (folder.join(format!("{name}.json")), text + "\n")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_committed_dashboards_are_what_the_generator_writes() {
        for (path, text) in files() {
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == text,
                "{} differs: run `cargo xtask dashboards`",
                path.display()
            );
        }
        let expected: BTreeSet<PathBuf> = files().into_iter().map(|(path, _)| path).collect();
        let folder = fs::read_dir(workspace::root().join("deploy/grafana")).unwrap();
        let found: BTreeSet<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn no_dashboard_names_a_data_source_or_has_an_id() {
        for (path, text) in files() {
            let board: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(board.get("uid"), None, "{}", path.display());
            let uids = text.lines().filter(|line| line.contains("\"uid\":"));
            for line in uids {
                assert!(line.contains("${datasource}"), "{}: {line}", path.display());
            }
            // A rate over a fixed time is wrong as soon as the scrape interval is another.
            let fixed = text.lines().filter(|line| line.contains("rate("));
            for line in fixed {
                assert!(line.contains("[$__rate_interval]"), "{line}");
            }
        }
    }
}
