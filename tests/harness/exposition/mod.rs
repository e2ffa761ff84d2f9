//! Parses the Prometheus text format, version 0.0.4, strictly: what a lenient scraper accepts may be an error here.

mod check;
mod parse;

use std::fmt;

/// A page of metrics that breaks no rule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposition {
    /// Families in the order of the page.
    pub families: Vec<Family>,
}

/// One metric family.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Name, as in its HELP and TYPE lines.
    pub name: String,
    /// Text of the HELP line, unescaped.
    pub help: String,
    /// Word of the TYPE line.
    pub kind: Kind,
    /// Samples in the order of the page.
    pub samples: Vec<Sample>,
}

/// Types of families. Summaries are not in use, so they are errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name on the line: that of the family, or with `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// Labels in the order of the line, values unescaped.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

/// A broken rule, and the line that breaks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// The rule, and what was found.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl Sample {
    /// Returns the value of the label `name`.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(label, _)| label == name)
            .map(|(_, value)| value.as_str())
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|(name, value)| self.label(name) == Some(value))
    }
}

impl Exposition {
    /// Parses a whole page.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        parse::page(text)
    }

    /// Returns the family called `name`.
    pub fn family(&self, name: &str) -> Option<&Family> {
        self.families.iter().find(|family| family.name == name)
    }

    /// Returns every sample called `name` that has all of `labels`.
    pub fn samples<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.families
            .iter()
            .flat_map(|family| &family.samples)
            .filter(move |sample| sample.name == name && sample.has(labels))
    }

    /// Returns the sum of every sample called `name` that has all of `labels`; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).map(|sample| sample.value).sum()
    }
}
