//! Formats the list of listeners as a table, and says what could not be read.
//!
//! Does not depend on: how the list is made.

use std::fmt::Write as _;

use crate::commands::servers::report::{Report, Row};

const HEAD: [&str; 5] = ["PID", "COMMAND", "LISTENS ON", "WATCHED AS", "WHY"];
/// Widest command, characters.
const COMMAND_CAP: usize = 40;
/// Widest place, characters.
const PLACE_CAP: usize = 40;

/// Returns the table and what follows from it.
pub(super) fn render(report: &Report) -> String {
    let rows: Vec<[String; 5]> = report.listeners.iter().map(cells).collect();
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in std::iter::once(&HEAD.map(str::to_owned)).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for note in notes(report) {
        let _ = writeln!(text, "\n{note}");
    }
    text
}

fn cells(row: &Row) -> [String; 5] {
    let unknown = || "?".to_owned();
    let pid = match (row.pid, row.processes) {
        (None, _) => unknown(),
        (Some(pid), 0 | 1) => pid.to_string(),
        (Some(pid), more) => format!("{pid} (+{})", more - 1),
    };
    let why = match &row.option {
        Some(option) => format!("{}; {option} watches it", row.why),
        None => row.why.clone(),
    };
    [
        pid,
        row.command
            .as_deref()
            .map_or_else(unknown, |command| cut(command, COMMAND_CAP)),
        cut(&row.listens, PLACE_CAP),
        row.server.clone().unwrap_or_else(|| "-".into()),
        why,
    ]
}

fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if report.unread_processes > 0 {
        notes.push(format!(
            "{} processes of other users could not be read, so the process of some listeners is unknown; run it as root, with CAP_SYS_PTRACE",
            report.unread_processes
        ));
    }
    if !report.every_namespace {
        notes.push(
            "Listeners in other network namespaces, such as those of containers, may be missing; run it as root, with CAP_SYS_PTRACE".into(),
        );
    }
    notes
}

/// Returns one line of at most `cap` characters.
fn cut(text: &str, cap: usize) -> String {
    let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
    match text.chars().count() > cap {
        true => text
            .chars()
            .take(cap - 1)
            .map(printable)
            .chain(['…'])
            .collect(),
        false => text.chars().map(printable).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: Option<u32>, server: Option<&str>) -> Row {
        Row {
            pid,
            processes: 2,
            command: pid.map(|_| format!("python\n{}", "x".repeat(50))),
            listens: "127.0.0.1:8000".into(),
            port: Some(8000),
            server: server.map(str::to_owned),
            why: "because".into(),
            option: server.is_none().then(|| "--watch-port 8000".into()),
        }
    }

    #[test]
    fn a_row_has_one_line_and_says_what_would_watch_it() {
        let report = Report {
            listeners: vec![row(Some(7), Some("vllm")), row(None, None)],
            unread_processes: 3,
            every_namespace: false,
        };
        let text = render(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("PID"), "{text}");
        assert!(lines[1].starts_with("7 (+1)  python xxx"), "{text}");
        assert!(
            lines[1].ends_with("…  127.0.0.1:8000  vllm        because"),
            "{text}"
        );
        assert!(lines[2].starts_with("?"), "{text}");
        assert!(
            lines[2].ends_with("because; --watch-port 8000 watches it"),
            "{text}"
        );
        assert_eq!(text.matches("run it as root").count(), 2);
        let whole = Report {
            listeners: Vec::new(),
            unread_processes: 0,
            every_namespace: true,
        };
        assert_eq!(render(&whole).lines().count(), 1);
    }
}
