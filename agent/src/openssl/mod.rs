//! Finds OpenSSL in processes: in which mapped files its functions are, and where probes on them cost least.
//!
//! `mapped` lists what a process has mapped, `library` looks for the functions in a file, and `prologue` reads how they begin.
//! Does not depend on: how probes are attached, which processes are watched.

pub mod library;
pub mod mapped;
pub mod prologue;
