//! Gathers what this host is and has: the facts that findings follow from.
//!
//! Each file looks at one part of the host. Does not depend on: what follows from the facts.

pub mod filesystems;
pub mod gpus;
pub mod host;
pub mod probing;
pub mod processes;
pub mod security;

use serde::Serialize;

use crate::{
    bpf::attach_mode::AttachMode,
    doctor::facts::{gpus::Gpus, host::Host, probing::Probing},
};

/// What was found on this host.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The one kind of hook that the probes were held to.
    #[serde(serialize_with = "rung_name")]
    pub rung: Option<AttachMode>,
    /// The host, and the agent's place in it.
    pub host: Host,
    /// NVIDIA GPUs.
    pub gpus: Gpus,
    /// What came of attaching the probes.
    #[serde(rename = "probes")]
    pub probing: Probing,
}

fn rung_name<S: serde::Serializer>(
    rung: &Option<AttachMode>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    rung.map(AttachMode::name).serialize(serializer)
}
