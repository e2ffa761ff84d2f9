//! Describes what the programs must report besides request times.
//!
//! The loader and its self-test follow these options.
//! Does not depend on: the loader.

use crate::bpf::attach_mode::AttachMode;

/// What the programs must report besides request times.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// First bytes of requests and responses; if false, no program reads the memory of a process.
    pub payload: bool,
    /// Bytes of a request that are copied, head and body.
    pub copied_bytes: u32,
    /// When connections were accepted.
    pub accept_wait: bool,
    /// What TLS libraries encrypt and decrypt.
    pub plaintext: bool,
    /// The only attach mode to use; `None` for the best available mode of each hook.
    pub attach_mode: Option<AttachMode>,
}
