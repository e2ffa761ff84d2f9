//! Says what the programs report beside the times of requests.
//!
//! The loader and its self-test both follow these. Does not depend on: the loader.

use crate::bpf::attach_mode::AttachMode;

/// What the programs are to tell beside the times of requests.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The beginnings of requests and answers: without it no program reads the memory of a process.
    pub payload: bool,
    /// When connections were accepted.
    pub accept_wait: bool,
    /// The one kind of hook that may be used; `None`: the best that works, each.
    pub rung: Option<AttachMode>,
}
