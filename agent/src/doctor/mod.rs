//! `inferprobe doctor`: what this host allows the agent to measure, what will be missing, and what would bring it back.
//!
//! Looks, attaches the probes for a moment, and changes nothing.

mod degraded_hooks;
mod diagnosis;
pub mod facts;
pub mod finding;
mod missing_hooks;
mod render;
pub mod report;

use std::path::PathBuf;

use crate::{
    bpf::attach_mode::AttachMode,
    cli::DoctorArgs,
    config::parse_rung,
    doctor::{
        facts::{Facts, gpus, host, probing},
        report::{Outcome, Report},
    },
    usage::UsageError,
};

/// A checked `doctor` command.
#[derive(Debug, Clone)]
pub struct Options {
    json: bool,
    nvml_library: Option<PathBuf>,
    rung: Option<AttachMode>,
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
        false => render::table(&report),
    };
    Ok((text, report.outcome))
}

#[cfg(test)]
mod tests;
