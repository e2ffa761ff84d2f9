//! The table of a comparison: one line for each figure, printed, and kept where `INFERPROBE_REPORT` says.

use std::{fs::OpenOptions, io::Write as _};

/// Names the file that lines are added to.
const FILE: &str = "INFERPROBE_REPORT";

/// Adds a line of Markdown: what was compared and when, what the judge said, what the agent said, and what is allowed.
pub fn row(scenario: &str, figure: &str, theirs: &str, ours: &str, bound: &str) {
    let line = format!("| {scenario} | {figure} | {theirs} | {ours} | {bound} |\n");
    print!("{line}");
    if let Some(path) = std::env::var_os(FILE) {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the file of the report can be written");
    }
}
