//! Reports a bad option, configuration key or file, in one line that names the input and the remedy.
//!
//! Every module that parses user input returns this error. Does not depend on: any other module.

use std::io;

use regex::Regex;

/// Bad option, key or file: the agent exits with code 2.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A file cannot be read.
    #[error("{name} {path}: {source}; give the path of a readable {kind} file")]
    Unreadable {
        /// Flag or key.
        name: &'static str,
        /// What the file should be.
        kind: &'static str,
        /// The path as given.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what is expected.
    #[error(
        "{path}:{line}: {message}; see the configuration section of README.md for the known keys"
    )]
    Malformed {
        /// The path as given.
        path: String,
        /// Line, counted from 1.
        line: usize,
        /// What the parser said, in one line.
        message: String,
    },
    /// A value is out of its range or shape.
    #[error("{name} {value:?}: {reason}")]
    Invalid {
        /// Flag or key.
        name: String,
        /// The value as given.
        value: String,
        /// What is wrong and what would be right.
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
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A line is not in the format of Java's property files.
    #[error("{path}:{line}: {reason}; write \\\\ for a backslash")]
    PropertySyntax {
        /// Path of the file as given.
        path: String,
        /// Line, counted from 1.
        line: usize,
        /// Parser's reason.
        reason: String,
    },
    /// TorchServe's file leaves no address to listen on.
    #[error("{place}: {reason}; {remedy}")]
    Listen {
        /// File, and line if there is one.
        place: String,
        /// What is wrong.
        reason: String,
        /// What would be right.
        remedy: String,
    },
}

/// Refuses the value of an option or key.
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
        let detail = err.to_string();
        let last = detail
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        invalid(
            name,
            value,
            format!("not a regular expression: {last}; escape literal characters with \\"),
        )
    })
}
