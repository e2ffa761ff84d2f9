//! The grammar of the catalogue's entries, and its checks: text to [`Entry`].
//!
//! Every error is one line that names the entry, the key and the remedy. Knows no server by name.

use regex::Regex;
use serde::Deserialize;

use crate::{
    catalogue::{
        command::CommandLine,
        path::{CallPattern, PathPattern},
        route::Purpose,
    },
    usage::{UsageError, invalid, parse_regex},
};

/// Longest model name that is taken from a command line, bytes.
const NAME_CAP: usize = 256;

/// One `[[server]]` as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileServer {
    name: String,
    like: Option<String>,
    process: Option<Vec<String>>,
    worker_process: Option<Vec<String>>,
    inner_process: Option<Vec<String>>,
    inner_children: Option<bool>,
    inner_unix: Option<bool>,
    spawned: Option<bool>,
    model_options: Option<Vec<String>>,
    model_pattern: Option<String>,
    decodes_first: Option<bool>,
    rest: Option<Fallback>,
    inference: Option<Vec<String>>,
    inference_by_body: Option<Vec<String>>,
    admin: Option<Vec<String>>,
    inner: Option<Vec<String>>,
    grpc_inference: Option<Vec<String>>,
    grpc_admin: Option<Vec<String>>,
    grpc_inner: Option<Vec<String>>,
}

/// The catalogue's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileCatalogue {
    /// The entries, in the order in which they are tried.
    pub server: Vec<FileServer>,
    /// What paths are for where no entry says.
    pub guess: FileGuess,
}

/// The `[guess]` of the catalogue's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileGuess {
    inference: Vec<String>,
    inference_by_body: Vec<String>,
    admin: Vec<String>,
    grpc_admin: Vec<String>,
    grpc_inner: Vec<String>,
}

/// What a request is for that no pattern of the entry fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// About the server.
    Admin,
    /// What the rules for unknown servers say.
    #[default]
    Guess,
}

/// What a process of a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes requests.
    Server,
    /// It does the work for a server of TorchServe's kind, which hands requests on to it in frames.
    Worker,
    /// It takes requests from other processes of the server alone.
    Internal,
}

/// A server that can be recognised.
#[derive(Debug)]
pub struct Entry {
    /// Label `server`.
    pub name: String,
    /// Whether it hands requests on to workers that are recognised too.
    pub is_frontend: bool,
    /// Whether all that its processes start serves itself alone.
    pub inner_children: bool,
    /// Whether it is asked on unix sockets by itself alone.
    pub inner_unix: bool,
    /// Whether its children that Python's `multiprocessing` started anew serve as it does.
    pub spawned: bool,
    /// Whether it decodes a path before it splits it, as TorchServe does.
    pub decodes_first: bool,
    /// What is for what no rule says.
    pub rest: Fallback,
    /// What its paths are for.
    pub rules: Rules,
    /// Patterns of its processes, by what they do; the first that fits counts.
    processes: Vec<(Role, Regex)>,
    model_options: Vec<String>,
    model_pattern: Option<Regex>,
}

/// What paths and calls are for.
#[derive(Debug, Default)]
pub struct Rules {
    /// Paths, those first that are tried first.
    pub paths: Vec<PathRule>,
    /// Methods of gRPC.
    pub calls: Vec<(Purpose, CallPattern)>,
}

/// What one pattern of paths is for.
#[derive(Debug)]
pub struct PathRule {
    /// The paths.
    pub pattern: PathPattern,
    /// What they are for.
    pub purpose: Purpose,
    /// Whether the body names the model.
    pub by_body: bool,
}

impl FileServer {
    /// Name of the entry, as given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes what this entry does not say from the one of `known` that it is like.
    pub fn completed<'a>(
        mut self,
        mut known: impl Iterator<Item = &'a Self>,
    ) -> Result<Self, UsageError> {
        let Some(like) = self.like.take() else {
            return Ok(self);
        };
        let Some(base) = known.find(|entry| entry.name == like) else {
            let reason = "no server of the catalogue has that name; README.md lists them";
            return Err(invalid("server.like", &like, reason.into()));
        };
        let base = base.clone();
        macro_rules! complete {
            ($($key:ident)*) => { Self {
                name: self.name,
                like: None,
                process: self.process,
                $($key: self.$key.or(base.$key),)*
            } };
        }
        Ok(complete!(
            worker_process inner_process inner_children inner_unix spawned model_options model_pattern decodes_first
            rest inference inference_by_body admin inner grpc_inference grpc_admin grpc_inner
        ))
    }

    /// Checks the entry.
    pub fn check(self) -> Result<Entry, UsageError> {
        if self.name.trim().is_empty() {
            let reason = "is empty; give the server a name";
            return Err(invalid("server.name", &self.name, reason.into()));
        }
        let mut processes = Vec::new();
        for (key, role, patterns) in [
            ("server.worker_process", Role::Worker, &self.worker_process),
            ("server.inner_process", Role::Internal, &self.inner_process),
            ("server.process", Role::Server, &self.process),
        ] {
            if let Some(patterns) = patterns {
                processes.extend(process_pattern(key, patterns)?.map(|regex| (role, regex)));
            }
        }
        if !processes.iter().any(|(role, _)| *role == Role::Server) {
            let reason = "has no process; give at least one pattern of its command line";
            return Err(invalid("[[server]]", &self.name, reason.into()));
        }
        let model_pattern = match &self.model_pattern {
            None => None,
            Some(pattern) => {
                let regex = parse_regex("server.model_pattern", pattern)?;
                if regex.captures_len() != 2 {
                    let reason =
                        "has not one group; put the model in ( ) and other groups in (?: )";
                    return Err(invalid("server.model_pattern", pattern, reason.into()));
                }
                Some(regex)
            }
        };
        let mut rules = Rules::default();
        for (key, purpose, by_body, patterns) in [
            ("server.inner", Purpose::Internal, false, &self.inner),
            ("server.admin", Purpose::Admin, false, &self.admin),
            (
                "server.inference_by_body",
                Purpose::Inference,
                true,
                &self.inference_by_body,
            ),
            (
                "server.inference",
                Purpose::Inference,
                false,
                &self.inference,
            ),
        ] {
            rules.add_paths(
                key,
                purpose,
                by_body,
                patterns.as_deref().unwrap_or_default(),
            )?;
        }
        for (key, purpose, patterns) in [
            ("server.grpc_inner", Purpose::Internal, &self.grpc_inner),
            (
                "server.grpc_inference",
                Purpose::Inference,
                &self.grpc_inference,
            ),
            ("server.grpc_admin", Purpose::Admin, &self.grpc_admin),
        ] {
            rules.add_calls(key, purpose, patterns.as_deref().unwrap_or_default())?;
        }
        Ok(Entry {
            name: self.name,
            is_frontend: self.worker_process.is_some(),
            inner_children: self.inner_children.unwrap_or_default(),
            inner_unix: self.inner_unix.unwrap_or_default(),
            spawned: self.spawned.unwrap_or_default(),
            decodes_first: self.decodes_first.unwrap_or_default(),
            rest: self.rest.unwrap_or_default(),
            rules: rules.in_order(),
            processes,
            model_options: self.model_options.unwrap_or_default(),
            model_pattern,
        })
    }
}

impl FileGuess {
    /// Checks the rules.
    pub fn check(&self) -> Result<Rules, UsageError> {
        let mut rules = Rules::default();
        rules.add_paths("guess.admin", Purpose::Admin, false, &self.admin)?;
        rules.add_paths(
            "guess.inference_by_body",
            Purpose::Inference,
            true,
            &self.inference_by_body,
        )?;
        rules.add_paths(
            "guess.inference",
            Purpose::Inference,
            false,
            &self.inference,
        )?;
        rules.add_calls("guess.grpc_inner", Purpose::Internal, &self.grpc_inner)?;
        rules.add_calls("guess.grpc_admin", Purpose::Admin, &self.grpc_admin)?;
        Ok(rules.in_order())
    }
}

impl Rules {
    fn add_paths(
        &mut self,
        key: &str,
        purpose: Purpose,
        by_body: bool,
        patterns: &[String],
    ) -> Result<(), UsageError> {
        for text in patterns {
            let pattern =
                PathPattern::parse(text).map_err(|reason| invalid(key, text, reason.into()))?;
            self.paths.push(PathRule {
                pattern,
                purpose,
                by_body,
            });
        }
        Ok(())
    }

    fn add_calls(
        &mut self,
        key: &str,
        purpose: Purpose,
        patterns: &[String],
    ) -> Result<(), UsageError> {
        for text in patterns {
            let pattern =
                CallPattern::parse(text).map_err(|reason| invalid(key, text, reason.into()))?;
            self.calls.push((purpose, pattern));
        }
        Ok(())
    }

    /// Puts paths of a known length before open ones.
    fn in_order(mut self) -> Self {
        self.paths.sort_by_key(|rule| rule.pattern.is_open());
        self
    }
}

impl Entry {
    /// What a process with this command line does for the server; `None` if it is none of its processes.
    pub fn role_of(&self, line: &CommandLine) -> Option<Role> {
        let mut processes = self.processes.iter();
        processes
            .find(|(_, regex)| regex.is_match(&line.command))
            .map(|(role, _)| *role)
    }

    /// The model that a process serves, if its command line says so.
    pub fn model_in(&self, line: &CommandLine) -> Option<String> {
        let by_option = || self.model_options.iter().find_map(|name| line.option(name));
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

/// One pattern for all of these: each begins at the program's name and ends with a word.
fn process_pattern(key: &str, patterns: &[String]) -> Result<Option<Regex>, UsageError> {
    for pattern in patterns {
        let empty = parse_regex(key, pattern)?.is_match("");
        if empty {
            let reason = "fits every process; name the program that it begins with";
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

    fn read(text: &str) -> Result<Entry, String> {
        let file: FileServer = toml::from_str(text).map_err(|err| err.message().to_owned())?;
        let base: FileServer = toml::from_str(
            "name = \"base\"\nprocess = [\"b\"]\ninference = [\"POST /x\"]\nrest = \"admin\"",
        )
        .unwrap();
        file.completed(std::iter::once(&base))
            .and_then(FileServer::check)
            .map_err(|err| err.to_string())
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
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
                "server.process \".*\": fits every process",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\nmodel_pattern = \"a\"",
                "server.model_pattern \"a\": has not one group",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\nadmin = [\"/x\"]",
                "server.admin \"/x\": has no method",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\ngrpc_inner = [\"x\"]",
                "server.grpc_inner \"x\": is no path of gRPC",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\nrest = \"x\"",
                "unknown variant `x`",
            ),
            (
                "name = \"a\"\nprocess = [\"a\"]\nlike = \"x\"",
                "server.like \"x\": no server",
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
    fn an_entry_takes_from_its_like_what_it_does_not_say() {
        let entry = read("name = \"a\"\nprocess = [\"a\"]\nlike = \"base\"").unwrap();
        assert_eq!((entry.name.as_str(), entry.rest), ("a", Fallback::Admin));
        assert_eq!(entry.rules.paths.len(), 1);
        let entry =
            read("name = \"a\"\nprocess = [\"a\"]\nlike = \"base\"\ninference = []").unwrap();
        assert!(entry.rules.paths.is_empty());
    }

    #[test]
    fn a_pattern_begins_at_the_program_and_ends_with_a_word() {
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
