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

/// Largest difference of two times, seconds, or as a share of the server's own.
const LIMIT_S: f64 = 0.001;
const LIMIT_SHARE: f64 = 0.05;

/// Reports two numbers that must be equal, and fails if they are not.
pub fn equal(scenario: &str, value: &str, theirs: f64, ours: f64) {
    row(
        scenario,
        value,
        &theirs.to_string(),
        &ours.to_string(),
        "equal",
    );
    assert_eq!(ours, theirs, "{value}");
}

/// Reports two mean times; returns whether they are as close as they must be.
pub fn close(scenario: &str, value: &str, theirs_s: f64, ours_s: f64) -> bool {
    let limit_s = LIMIT_S.max(LIMIT_SHARE * theirs_s);
    let ms = |seconds: f64| format!("{:.3} ms", 1e3 * seconds);
    row(scenario, value, &ms(theirs_s), &ms(ours_s), "1 ms or 5 %");
    (ours_s - theirs_s).abs() <= limit_s
}

/// Appends a line to a file that other processes append to.
pub(crate) fn append_line(path: &Path, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.unwrap_or_else(|err| panic!("append to {}: {err}", path.display()));
}
