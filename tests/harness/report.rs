//! Prints the table of a comparison, one line for each value, and appends it to the file that `INFERPROBE_REPORT`
//! names.

use std::{fs::OpenOptions, io::Write as _, path::Path};

/// Names the file to which lines are appended.
const FILE: &str = "INFERPROBE_REPORT";

/// Adds a line of Markdown: scenario and value, what TorchServe reports, what the agent reports, and the allowed
/// difference.
pub fn row(scenario: &str, value: &str, theirs: &str, ours: &str, bound: &str) {
    let line = format!("| {scenario} | {value} | {theirs} | {ours} | {bound} |");
    println!("{line}");
    if let Some(path) = std::env::var_os(FILE) {
        append_line(Path::new(&path), &line);
    }
}

/// Appends a line to a file that other processes append to.
pub(crate) fn append_line(path: &Path, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.unwrap_or_else(|err| panic!("append to {}: {err}", path.display()));
}
