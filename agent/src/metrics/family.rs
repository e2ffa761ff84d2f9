//! Describes one family of the exposition: name, type, unit, labels, group and help.
//!
//! `families` has the table of all of them. Does not depend on: values.

use std::borrow::Cow;

/// What a family's samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

impl Kind {
    /// Name of the type in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a family is about; the documentation has one table for each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Families that TorchServe defines.
    TorchServe,
    /// Requests of every server.
    Requests,
    /// TorchServe's workers.
    Workers,
    /// Streamed responses.
    Streams,
    /// Language models.
    GenAi,
    /// TLS.
    Tls,
    /// What the threads of servers wait for.
    Starvation,
    /// What servers say of themselves.
    Engines,
    /// GPUs, beyond TorchServe's three families.
    Gpu,
    /// What is measured, and what was lost.
    Coverage,
    /// The agent.
    Agent,
    /// The agent's process.
    Process,
    /// The command `autoscale`.
    Autoscale,
}

impl Group {
    /// Every group, in the order of the documentation.
    pub const ALL: [Self; 13] = [
        Self::TorchServe,
        Self::Requests,
        Self::Workers,
        Self::Streams,
        Self::GenAi,
        Self::Tls,
        Self::Starvation,
        Self::Engines,
        Self::Gpu,
        Self::Coverage,
        Self::Agent,
        Self::Process,
        Self::Autoscale,
    ];

    /// Name of the group in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TorchServe => "torchserve",
            Self::Requests => "requests",
            Self::Workers => "workers",
            Self::Streams => "streams",
            Self::GenAi => "gen-ai",
            Self::Tls => "tls",
            Self::Starvation => "starvation",
            Self::Engines => "engines",
            Self::Gpu => "gpu",
            Self::Coverage => "coverage",
            Self::Agent => "agent",
            Self::Process => "process",
            Self::Autoscale => "autoscale",
        }
    }
}

/// One family of the exposition.
#[derive(Debug)]
pub struct Family {
    /// Name in the text format.
    pub name: &'static str,
    /// Type in the text format.
    pub kind: Kind,
    /// Unit: TorchServe's word in its families, the base unit in the others, else empty.
    pub unit: &'static str,
    /// Label names, in the order in which samples carry their values.
    pub labels: &'static [&'static str],
    /// What it is about.
    pub group: Group,
    /// What the documentation adds to the help; empty if there is nothing to add.
    pub note: &'static str,
    /// Text of the HELP line; empty if TorchServe has the text.
    help: &'static str,
}

impl Family {
    /// Describes a family of TorchServe.
    pub(super) const fn torchserve(
        name: &'static str,
        kind: Kind,
        unit: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            kind,
            unit,
            labels,
            group: Group::TorchServe,
            note: "",
            help: "",
        }
    }

    /// Describes a family of the agent.
    pub(super) const fn own(
        name: &'static str,
        kind: Kind,
        unit: &'static str,
        labels: &'static [&'static str],
        group: Group,
        help: &'static str,
        note: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            unit,
            labels,
            group,
            note,
            help,
        }
    }

    /// Returns whether TorchServe defines this family.
    pub fn is_torchserve(&self) -> bool {
        self.group == Group::TorchServe
    }

    /// Returns the text of the HELP line.
    pub fn help(&self) -> Cow<'static, str> {
        if !self.is_torchserve() {
            return Cow::Borrowed(self.help);
        }
        let (kind, unit) = (self.kind.name(), self.unit);
        Cow::Owned(format!(
            "Torchserve prometheus {kind} metric with unit: {unit}"
        ))
    }

    /// Returns the name in OpenMetrics, where a counter's samples end in `_total` and its family does not.
    pub fn openmetrics_name(&self) -> &'static str {
        match (self.is_torchserve(), self.kind) {
            (false, Kind::Counter) => self.name.strip_suffix("_total").unwrap_or(self.name),
            _ => self.name,
        }
    }

    /// Returns whether `name`, which a scrape asks for, is the name of this family or of one of its samples.
    pub fn has_name(&self, name: &str) -> bool {
        if name == self.name || name == self.openmetrics_name() {
            return true;
        }
        self.kind == Kind::Histogram
            && name
                .strip_prefix(self.name)
                .is_some_and(|suffix| matches!(suffix, "_bucket" | "_sum" | "_count"))
    }
}
