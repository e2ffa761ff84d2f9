//! `inferprobe doctor`: what this host allows the agent to measure, what will be missing, and what would bring it back.
//!
//! Looks, attaches the probes for a moment, and changes nothing.

mod filesystems;
mod gpus;
mod host;
mod losses;
mod lost_hooks;
mod probing;
mod processes;
mod security;
mod table;
mod weak_hooks;

use std::{fmt, path::PathBuf};

use serde::Serialize;

use crate::doctor::{
    gpus::Gpus,
    host::Host,
    losses::{Loss, Weight},
    probing::Probing,
};
use crate::{cli::DoctorArgs, config::parse_rung, kernel::ladder::Rung, usage::UsageError};

/// A checked `doctor` command.
#[derive(Debug, Clone)]
pub struct Options {
    json: bool,
    nvml_library: Option<PathBuf>,
    rung: Option<Rung>,
}

impl Options {
    /// Checks the command line.
    pub fn check(args: &DoctorArgs) -> Result<Self, UsageError> {
        Ok(Self {
            json: args.json,
            nvml_library: args.nvml_library.clone(),
            rung: args.rung.as_deref().map(parse_rung).transpose()?,
        })
    }
}

/// What was found on this host.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The one kind of hook that the probes were held to.
    #[serde(serialize_with = "rung_name")]
    pub rung: Option<Rung>,
    /// The host, and the agent's place in it.
    pub host: Host,
    /// NVIDIA GPUs.
    pub gpus: Gpus,
    /// What came of attaching the probes.
    #[serde(rename = "probes")]
    pub probing: Probing,
}

fn rung_name<S: serde::Serializer>(rung: &Option<Rung>, serializer: S) -> Result<S::Ok, S::Error> {
    rung.map(Rung::name).serialize(serializer)
}

/// Facts and what follows from them.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of the agent.
    pub version: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub facts: Facts,
    /// What will be missing from the metrics, the heaviest first.
    pub missing: Vec<Loss>,
    /// What it comes to.
    pub outcome: Outcome,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All is measured.
    All,
    /// Some is lost.
    Some,
    /// No request is measured.
    Nothing,
}

impl Outcome {
    fn of(losses: &[Loss]) -> Self {
        match losses.iter().map(|loss| loss.weight).min() {
            Some(Weight::Everything) => Self::Nothing,
            Some(Weight::Some) => Self::Some,
            Some(Weight::Option) | None => Self::All,
        }
    }

    /// Exit code of the command.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::All => 0,
            Self::Some => 1,
            Self::Nothing => 2,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All is measured (exit code 0).",
            Self::Some => "Some is lost (exit code 1).",
            Self::Nothing => "No request can be measured (exit code 2).",
        })
    }
}

impl Report {
    fn conclude(facts: Facts) -> Self {
        let missing = losses::losses(&facts);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            outcome: Outcome::of(&missing),
            missing,
            facts,
        }
    }
}

/// Looks at this host; the text to print, and what it comes to.
pub fn examine(options: &Options) -> Result<(String, Outcome), serde_json::Error> {
    let report = Report::conclude(Facts {
        rung: options.rung,
        host: host::look(),
        gpus: gpus::look(options.nvml_library.clone()),
        probing: probing::attempt(options.rung),
    });
    let text = match options.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => table::table(&report),
    };
    Ok((text, report.outcome))
}

#[cfg(test)]
mod tests;
