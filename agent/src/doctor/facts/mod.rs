//! Collects the facts about this host from which the findings follow.
//!
//! Each file covers one part of the host.
//! Does not depend on: the findings.

pub mod filesystems;
pub mod gpus;
pub mod host;
pub mod pods;
pub mod probing;
pub mod processes;
pub mod security;
pub mod tls;

use serde::Serialize;

use crate::{
    bpf::attach_mode::AttachMode,
    doctor::facts::{gpus::Gpus, host::Host, pods::Pods, probing::Probing, tls::ServerTls},
};

/// Facts about this host.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The mode of `--attach-mode`; `None` for the best of each hook.
    #[serde(serialize_with = "attach_mode_name")]
    pub attach_mode: Option<AttachMode>,
    /// The host, and the agent's place in it.
    pub host: Host,
    /// Names of pods.
    pub pods: Pods,
    /// NVIDIA GPUs.
    pub gpus: Gpus,
    /// Outcome of attaching the probes.
    #[serde(rename = "probes")]
    pub probing: Probing,
    /// What TLS leaves to see of each server that runs.
    pub tls: Vec<ServerTls>,
}

fn attach_mode_name<S: serde::Serializer>(
    mode: &Option<AttachMode>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    mode.map(AttachMode::name).serialize(serializer)
}
