//! Says how long windows are, and how many are kept.
//!
//! Does not depend on: what is in a window.

/// Length of a window, ns.
pub const WINDOW_NS: u64 = 5_000_000_000;
/// Windows that are kept of each model: six minutes.
pub const WINDOWS: usize = 72;
