//! Runs `inferprobe doctor`: reports what this host lets the agent measure, what will be missing, and how to fix that.
//!
//! Reads the host's files, attaches the probes for a moment, and changes no setting.
//! Does not depend on: how requests are measured.

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
    config::parse_attach_mode,
    doctor::{
        facts::{Facts, gpus, host, pods, probing, tls},
        report::{Outcome, Report},
    },
    usage::UsageError,
};

/// A checked `doctor` command.
#[derive(Debug, Clone)]
pub struct Options {
    json: bool,
    nvml_library: Option<PathBuf>,
    host_root: PathBuf,
    attach_mode: Option<AttachMode>,
}

impl Options {
    /// Checks the command line.
    pub fn check(args: &DoctorArgs) -> Result<Self, UsageError> {
        Ok(Self {
            json: args.json,
            nvml_library: args.nvml_library.clone(),
            host_root: args.host_root.clone().unwrap_or_else(|| "/".into()),
            attach_mode: args
                .attach_mode
                .as_deref()
                .map(parse_attach_mode)
                .transpose()?,
        })
    }
}

/// Examines this host; returns the text to print, and the outcome.
pub fn examine(options: &Options) -> Result<(String, Outcome), serde_json::Error> {
    let report = Report::conclude(Facts {
        attach_mode: options.attach_mode,
        host: host::collect(),
        pods: pods::collect(&options.host_root),
        gpus: gpus::collect(options.nvml_library.clone()),
        probing: probing::attempt(options.attach_mode),
        tls: tls::collect(),
    });
    let text = match options.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => render::table(&report),
    };
    Ok((text, report.outcome))
}

#[cfg(test)]
mod tests;
