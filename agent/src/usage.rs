//! Reports a bad option, configuration key or file, in one line that names the input and the remedy.
//!
//! Every module that parses user input returns this error. Does not depend on: any other module.

use std::io;

use regex_lite::Regex;

/// Bad option, key or file: the agent exits with code 2.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A file cannot be read.
    #[error("{name} {path}: cannot read it: {source}; give the path of a readable {kind} file")]
    Unreadable {
        /// Flag or key.
        name: &'static str,
        /// What the file should be.
        kind: &'static str,
        /// The path as given.
        path: String,
        /// Reason of the operating system.
        source: io::Error,
    },
    /// The configuration file has an unknown key, a wrong type, or is not TOML.
    #[error("{path}:{line}: {message}; docs/configuration.md lists the keys")]
    Malformed {
        /// The path as given.
        path: String,
        /// Line, counted from 1.
        line: usize,
        /// Reason of the parser, in one line.
        message: String,
    },
    /// A value is out of range or has the wrong form.
    #[error("{name} {value:?}: {reason}")]
    Invalid {
        /// Flag or key.
        name: String,
        /// The value as given.
        value: String,
        /// Fault and remedy.
        reason: String,
    },
    /// A line of a properties file has a value that TorchServe would not accept.
    #[error("{path}:{line}: {key} {value:?}: {reason}")]
    Property {
        /// Path of the file as given.
        path: String,
        /// Line, counted from 1.
        line: usize,
        /// Key.
        key: String,
        /// The value as given.
        value: String,
        /// Fault and remedy.
        reason: String,
    },
    /// A line is not in the format of Java properties files.
    #[error("{path}:{line}: {reason}; write \\\\ for a backslash")]
    PropertySyntax {
        /// Path of the file as given.
        path: String,
        /// Line, counted from 1.
        line: usize,
        /// Parser's reason.
        reason: String,
    },
    /// TorchServe's file leaves no free address to listen on.
    #[error("{place}: {reason}; {remedy}")]
    Listen {
        /// File, and line if there is one.
        place: String,
        /// Fault.
        reason: String,
        /// Remedy.
        remedy: String,
    },
}

/// Makes the error for the value of an option or key; `reason` names fault and remedy.
pub(crate) fn invalid(name: &str, value: &str, reason: String) -> UsageError {
    UsageError::Invalid {
        name: name.into(),
        value: value.into(),
        reason,
    }
}

/// Compiles a regular expression that the user wrote.
pub(crate) fn parse_regex(name: &str, value: &str) -> Result<Regex, UsageError> {
    Regex::new(value).map_err(|err| {
        let reason = format!("not a regular expression: {err}; escape literal characters with \\");
        invalid(name, value, reason)
    })
}
