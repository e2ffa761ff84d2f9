//! Checks the level of the agent's own log.
//!
//! Does not depend on: how it is set.

use crate::usage::{UsageError, invalid};

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Returns the level if there is one of this name.
pub(super) fn check(level: String) -> Result<String, UsageError> {
    if LEVELS.contains(&&*level) {
        return Ok(level);
    }
    let reason = format!("no such level; give one of {}", LEVELS.join(", "));
    Err(invalid("log_level", &level, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_are_accepted() {
        assert_eq!(check("debug".into()).unwrap(), "debug");
        let message = check("loud".into()).unwrap_err().to_string();
        assert_eq!(
            message,
            "log_level \"loud\": no such level; give one of error, warn, info, debug, trace"
        );
    }
}
