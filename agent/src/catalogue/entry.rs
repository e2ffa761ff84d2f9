//! Checks one server's entry and recognises its processes: `FileServer` to [`Entry`].
//!
//! Every error is one line that names the entry, the key and the remedy.
//! Does not depend on: which servers exist.

use std::sync::Arc;

use regex_lite::Regex;

use crate::{
    catalogue::{
        command::{ArgumentSyntax, CommandLine},
        file::{Fallback, FileServer},
        options_file::OptionsFile,
        rules::{Api, Rules},
    },
    usage::{UsageError, invalid, parse_regex},
};

/// Stands in `model_options` for the argument that `model_argument` finds.
const ARGUMENT: &str = "ARGUMENT";
/// Longest model name that a command line may give, bytes.
const NAME_CAP: usize = 256;

/// What a process of a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It receives requests of clients.
    Server,
    /// It does the work for a frontend such as TorchServe's, which dispatches requests to it in frames.
    Worker,
    /// It receives only requests of other processes of the same server.
    Internal,
}

impl Role {
    /// Its words in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server process",
            Self::Worker => "worker",
            Self::Internal => "internal process",
        }
    }
}

/// A server that can be recognised.
#[derive(Debug)]
pub struct Entry {
    /// Label `server`.
    pub name: Arc<str>,
    /// Whether it dispatches requests to workers that are recognised too.
    pub is_frontend: bool,
    /// Whether every request to children of its processes is internal.
    pub internal_children: bool,
    /// Whether every request on a unix socket is internal.
    pub internal_unix: bool,
    /// Whether its children that Python's `multiprocessing` started anew serve as it does.
    pub spawned: bool,
    /// Whether it percent-decodes a path before it splits it, as TorchServe does.
    pub decodes_first: bool,
    /// Purpose of what no rule matches.
    pub fallback: Fallback,
    /// Purposes of its paths and gRPC methods.
    pub rules: Rules,
    /// Beginnings of the `User-Agent` of probes; `None`: those of the default rules.
    pub probe_agents: Option<Vec<String>>,
    /// Patterns of its processes by role; the first that matches counts.
    processes: Vec<(Role, Regex)>,
    model_options: Vec<String>,
    model_argument: ArgumentSyntax,
    config_option: Option<String>,
    model_pattern: Option<Regex>,
}

impl Entry {
    /// Checks an entry as written; `apis` are those that it may name.
    pub fn check(file: FileServer, apis: &[Api]) -> Result<Self, UsageError> {
        if file.name.trim().is_empty() {
            let reason = "is empty; give the server a name";
            return Err(invalid("server.name", &file.name, reason.into()));
        }
        let mut processes = Vec::new();
        for (key, role, patterns) in [
            ("server.worker_process", Role::Worker, &file.worker_process),
            (
                "server.internal_process",
                Role::Internal,
                &file.internal_process,
            ),
            ("server.process", Role::Server, &file.process),
        ] {
            if let Some(patterns) = patterns {
                processes.extend(process_pattern(key, patterns)?.map(|regex| (role, regex)));
            }
        }
        if !processes.iter().any(|(role, _)| *role == Role::Server) {
            let reason = "has no process; give at least one pattern of its command line";
            return Err(invalid("[[server]]", &file.name, reason.into()));
        }
        let rules = Rules::of_server(&file, apis)?;
        Ok(Self {
            name: file.name.into(),
            is_frontend: file.worker_process.is_some(),
            internal_children: file.internal_children.unwrap_or_default(),
            internal_unix: file.internal_unix.unwrap_or_default(),
            spawned: file.spawned.unwrap_or_default(),
            decodes_first: file.decodes_first.unwrap_or_default(),
            fallback: file.fallback.unwrap_or_default(),
            rules,
            probe_agents: file.probe_agents,
            processes,
            model_options: file.model_options.unwrap_or_default(),
            model_argument: file.model_argument.unwrap_or_default(),
            config_option: file.config_option,
            model_pattern: file
                .model_pattern
                .as_deref()
                .map(model_pattern)
                .transpose()?,
        })
    }

    /// Returns what a process with this command line does for the server; `None` if it is not one of its processes.
    pub fn role_of(&self, line: &CommandLine) -> Option<Role> {
        let mut processes = self.processes.iter();
        processes
            .find(|(_, regex)| regex.is_match(&line.command) || regex.is_match(&line.program))
            .map(|(role, _)| *role)
    }

    /// Returns the path of the file that holds more options.
    pub fn options_file<'a>(&self, line: &'a CommandLine) -> Option<&'a str> {
        line.option(self.config_option.as_ref()?)
    }

    /// Returns the model that a command line names, or else its file of `options`.
    pub fn model_in(&self, line: &CommandLine, options: &OptionsFile) -> Option<String> {
        let by_option = || {
            self.model_options
                .iter()
                .find_map(|name| match name.as_str() {
                    ARGUMENT => line.argument(&self.model_argument),
                    name => line.option(name).or_else(|| options.value(name)),
                })
        };
        let by_pattern = || {
            let found = self.model_pattern.as_ref()?.captures(&line.command)?;
            found.get(1).map(|group| group.as_str())
        };
        by_option()
            .or_else(by_pattern)
            .filter(|model| (1..=NAME_CAP).contains(&model.len()))
            .map(str::to_owned)
    }
}

/// Compiles the pattern that finds the model.
fn model_pattern(pattern: &str) -> Result<Regex, UsageError> {
    let regex = parse_regex("server.model_pattern", pattern)?;
    if regex.captures_len() != 2 {
        let reason =
            "needs exactly one group; put the model in ( ) and write other groups as (?: )";
        return Err(invalid("server.model_pattern", pattern, reason.into()));
    }
    Ok(regex)
}

/// Compiles the patterns into one, which matches from the program's name to the end of a word.
fn process_pattern(key: &str, patterns: &[String]) -> Result<Option<Regex>, UsageError> {
    for pattern in patterns {
        let empty = parse_regex(key, pattern)?.is_match("");
        if empty {
            let reason = "matches every process; begin with the name of the program";
            return Err(invalid(key, pattern, reason.into()));
        }
    }
    if patterns.is_empty() {
        return Ok(None);
    }
    let grouped: Vec<String> = patterns
        .iter()
        .map(|pattern| format!("(?:{pattern})"))
        .collect();
    let all = format!(r"^(?:{})(?:\s|$)", grouped.join("|"));
    parse_regex(key, &all).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{
        path::PathQuery,
        route::{Purpose, Route},
    };

    fn read(text: &str) -> Result<Entry, String> {
        let file: FileServer = toml::from_str(text).map_err(|err| err.message().to_owned())?;
        let base: FileServer = toml::from_str(
            "name = \"base\"\nprocess = [\"b\"]\ninference = [\"POST /x\"]\nrest = \"admin\"",
        )
        .unwrap();
        file.completed(std::iter::once(&base))
            .and_then(|file| Entry::check(file, &[]))
            .map_err(|err| err.to_string())
    }

    #[test]
    fn an_error_names_the_key_and_the_remedy() {
        for (text, start) in [
            ("process = [\"a\"]", "missing field `name`"),
            ("name = \"a\"\nproces = [\"a\"]", "unknown field `proces`"),
            ("name = \"a\"", "[[server]] \"a\": has no process"),
            (
                "name = \"a\"\nprocess = []",
                "[[server]] \"a\": has no process",
            ),
            (
                "name = \" \"\nprocess = [\"a\"]",
                "server.name \" \": is empty",
            ),
            (
                "name = \"a\"\nprocess = [\"(\"]",
                "server.process \"(\": not a regular expression",
            ),
            (
                "name = \"a\"\nprocess = [\".*\"]",
                "server.process \".*\": matches every process",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\nmodel_pattern = \"a\"",
                "server.model_pattern \"a\": needs exactly one group",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\nadmin = [\"/x\"]",
                "server.admin \"/x\": has no method",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\ngrpc_inner = [\"x\"]",
                "server.grpc_internal \"x\": is not a gRPC method",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\nrest = \"x\"",
                "unknown variant `x`",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\napis = [\"x\"]",
                "server.apis \"x\": is not a known API",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\nlike = \"x\"",
                "server.like \"x\": is not a built-in server",
            ),
        ] {
            let message = read(text).unwrap_err();
            assert!(
                message.starts_with(start),
                "{message:?} does not start with {start:?}"
            );
            assert!(!message.contains('\n'), "{message:?}");
        }
    }

    #[test]
    fn a_key_that_is_left_out_comes_from_the_entry_named_by_like() {
        let entry = read("name = \"a\"\nprocess = [\"a\"]\nlike = \"base\"").unwrap();
        assert_eq!((&*entry.name, entry.fallback), ("a", Fallback::Admin));
        let request = |entry: &Entry| {
            let request = PathQuery {
                method: "POST",
                segments: &["x".to_owned()],
                target: "/x",
            };
            entry.rules.route(request, None)
        };
        assert_eq!(request(&entry), Some(Route::of(Purpose::Inference)));
        let entry =
            read("name = \"a\"\nprocess = [\"a\"]\nlike = \"base\"\ninference = []").unwrap();
        assert_eq!(request(&entry), None);
    }

    #[test]
    fn a_pattern_matches_from_the_program_to_the_end_of_a_word() {
        let entry = read("name = \"a\"\nprocess = ['serve|run x', 'y']").unwrap();
        for (line, expected) in [
            (&b"/bin/serve\0a"[..], true),
            (b"run\0x", true),
            (b"y", true),
            (b"server", false),
            (b"run\0xy", false),
            (b"a\0serve", false),
        ] {
            let line = CommandLine::parse(line).unwrap();
            assert_eq!(entry.role_of(&line).is_some(), expected, "{line:?}");
        }
    }
}
