//! Names the running test.

use std::{env, thread};

/// Returns the path of the test that runs on this thread, such as `accept::tracefs_in_debugfs_is_found`; outside of
/// tests, the name of the program.
pub(crate) fn running_test() -> String {
    // Test runners name the thread of a test after it.
    match thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => {
            let program = env::current_exe().unwrap_or_default();
            let name = program.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }
    }
}
