//! Finds the program under test.

use std::path::PathBuf;

use crate::process::binary;

/// Returns the path of the program under test.
pub fn agent_binary() -> PathBuf {
    binary("inferprobe", Some("INFERPROBE_BIN"))
}
