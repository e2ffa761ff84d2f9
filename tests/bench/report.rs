//! Formats the table: measures in sections, with their targets.
//!
//! Does not depend on: what is measured.

use std::fmt::Write as _;

/// Rows that were measured together.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    /// What the rows have in common.
    pub(crate) title: String,
    /// The rows, in order.
    pub(crate) rows: Vec<Row>,
}

/// One measure.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    name: String,
    value: String,
    detail: String,
    target: Option<Target>,
}

#[derive(Debug, Clone)]
struct Target {
    text: String,
    met: bool,
}

impl Row {
    /// A measure without a target; `value` has its unit.
    pub(crate) fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            detail: String::new(),
            target: None,
        }
    }

    /// Adds what helps to read the value.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds a target that `measured` should not exceed, in `unit`.
    #[must_use]
    pub(crate) fn at_most(mut self, measured: f64, limit: f64, unit: &str) -> Self {
        self.target = Some(Target {
            text: format!("<= {limit} {unit}"),
            met: measured <= limit,
        });
        self
    }

    /// Adds a target that `measured` should reach.
    #[must_use]
    pub(crate) fn at_least(mut self, measured: f64, limit: f64) -> Self {
        self.target = Some(Target {
            text: format!(">= {limit}"),
            met: measured >= limit,
        });
        self
    }
}

/// Returns the sections as text, in columns.
pub(crate) fn table(sections: &[Section]) -> String {
    let rows = || sections.iter().flat_map(|section| &section.rows);
    let width = |column: fn(&Row) -> &str| {
        let widths = rows().map(|row| column(row).chars().count());
        widths.max().unwrap_or(0)
    };
    let names = width(|row| &row.name);
    let values = width(|row| &row.value);
    let targets = width(|row| row.target.as_ref().map_or("", |target| &target.text));
    let mut text = String::new();
    for section in sections {
        line(&mut text, &format!("\n{}", section.title));
        for row in &section.rows {
            let (target, verdict) = match &row.target {
                None => ("", ""),
                Some(target) if target.met => (target.text.as_str(), "met"),
                Some(target) => (target.text.as_str(), "MISSED"),
            };
            let Row {
                name,
                value,
                detail,
                ..
            } = row;
            line(
                &mut text,
                &format!(
                    "  {name:<names$}  {value:>values$}  {target:<targets$}  {verdict:<6}  {detail}"
                ),
            );
        }
    }
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("writing to a String succeeds");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_target_is_marked_in_aligned_columns() {
        let rows = vec![
            Row::new("a", "1 ns").at_most(1.0, 150.0, "ns"),
            Row::new("longer", "200 ns").at_most(200.0, 150.0, "ns"),
            Row::new("ratio", "0.98")
                .at_least(0.98, 0.97)
                .detail("of two"),
            Row::new("plain", "7 s"),
        ];
        let title = "first".to_owned();
        assert_eq!(
            table(&[Section { title, rows }]),
            "
first
  a         1 ns  <= 150 ns  met
  longer  200 ns  <= 150 ns  MISSED
  ratio     0.98  >= 0.97    met     of two
  plain      7 s
"
        );
    }
}
