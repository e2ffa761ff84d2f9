//! Recognises inference servers by their command lines, and decides what each request to them is for.
//!
//! The data is `servers.toml` and the user's `[[server]]` entries; discovery and the pipeline ask the catalogue.
//! Does not depend on: procfs, sockets.

pub mod command;
pub mod entry;
pub mod example;
pub mod file;
pub mod memo;
pub mod options_file;
pub mod path;
pub mod route;
pub mod rules;
#[cfg(test)]
mod tests;
mod wrapper;

use std::sync::Arc;

use crate::{
    catalogue::{
        command::CommandLine,
        entry::{Entry, Role},
        example::{CommandExample, RequestExample},
        file::{Fallback, FileCatalogue, FileServer},
        options_file::OptionsFile,
        path::PathQuery,
        route::{ModelSource, Purpose, Route},
        rules::{Api, Rules},
    },
    protocol::{
        grpc::{self, ModelName, NamedBy},
        target,
    },
    usage::{UsageError, invalid},
};

/// The catalogue's file.
const SERVERS_TOML: &str = include_str!("servers.toml");

/// Every server that can be recognised.
#[derive(Debug)]
pub struct Catalogue {
    /// In the order in which they are tried.
    entries: Vec<Arc<Entry>>,
    apis: Vec<Api>,
    default_rules: Rules,
    /// Beginnings of the `User-Agent` of probes.
    probe_agents: Vec<String>,
}

/// The parts of a request that decide its purpose.
#[derive(Debug, Clone, Copy)]
pub struct RequestInfo<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Request target; for gRPC, the path of the method.
    pub target: &'a str,
    /// Whether it is a gRPC call.
    pub is_grpc: bool,
    /// Whether the server agreed to speak another protocol, such as WebSocket: the method then says nothing.
    pub is_upgraded: bool,
    /// Whether it arrived on a unix socket.
    pub on_unix: bool,
    /// `User-Agent` of the client; `None` if it gives none, or it was not copied.
    pub user_agent: Option<&'a str>,
    /// Model that its content names.
    pub named: Option<&'a ModelName>,
}

impl Catalogue {
    /// Checks the user's `own` entries, and puts them before the built-in ones.
    pub fn new(own: Vec<FileServer>) -> Result<Self, UsageError> {
        let built_in = Self::built_in();
        let own = own
            .into_iter()
            .map(|server| server.completed(built_in.server.iter()))
            .collect::<Result<Vec<_>, _>>()?;
        let apis = built_in.api.iter().map(Api::check);
        let apis = apis.collect::<Result<Vec<_>, _>>();
        let apis = apis.expect("a test checks the APIs");
        let mut entries = Vec::new();
        for server in &own {
            entries.push(Arc::new(Entry::check(server.clone(), &apis)?));
        }
        for server in built_in.server {
            let entry = Entry::check(server, &apis).expect("a test checks the built-in entries");
            entries.push(Arc::new(entry));
        }
        let default_rules = Rules::of_defaults(&built_in.default_rules, &apis)
            .expect("a test checks the default rules");
        let this = Self {
            entries,
            apis,
            default_rules,
            probe_agents: built_in.default_rules.probe_agents,
        };
        for server in &own {
            this.check_examples(server)?;
        }
        Ok(this)
    }

    /// Returns the built-in entries and the default rules, as written in `servers.toml`.
    pub fn built_in() -> FileCatalogue {
        toml::from_str(SERVERS_TOML).expect("a test reads the built-in entries")
    }

    /// Returns the server that a process with this command line belongs to, and what the process does for it.
    pub fn recognise(&self, line: &CommandLine) -> Option<(&Arc<Entry>, Role)> {
        self.entries
            .iter()
            .find_map(|entry| Some((entry, entry.role_of(line)?)))
    }

    /// Returns what a request is for, and the model that it names; `entry` is the server's, if it was recognised.
    pub fn route(&self, entry: Option<&Entry>, request: RequestInfo<'_>) -> Route {
        if request.on_unix && entry.is_some_and(|entry| entry.internal_unix) {
            return Route::of(Purpose::Internal);
        }
        if self.is_probe(entry, request.user_agent) {
            return Route::of(Purpose::Admin);
        }
        let call = match request.target {
            // The connection was already open when the agent started, so the path is unknown.
            "" if request.is_grpc => Some(purpose_of_unknown_call(entry, request.named)),
            target => grpc::is_call(target).then(|| self.purpose_of_call(entry, target)),
        };
        match call {
            Some(purpose) if request.is_grpc => {
                let named = request
                    .named
                    .filter(|named| purpose == Purpose::Inference && named.by == NamedBy::Message);
                Route {
                    model: named.map(|named| named.model.clone()),
                    model_source: named.map(source_of),
                    version: named.and_then(|named| named.version.clone()),
                    ..Route::of(purpose)
                }
            }
            // The path is that of a gRPC method, though the request was cut off before anything else showed it.
            Some(Purpose::Internal) => Route::of(Purpose::Internal),
            _ => self.route_of_path(entry, request),
        }
    }

    fn route_of_path(&self, entry: Option<&Entry>, request: RequestInfo<'_>) -> Route {
        let decodes_first = entry.is_some_and(|entry| entry.decodes_first);
        let is_never = match decodes_first {
            true => request.method == "OPTIONS",
            false => matches!(request.method, "OPTIONS" | "TRACE" | "CONNECT"),
        };
        if is_never {
            return Route::of(Purpose::Admin);
        }
        let segments = match decodes_first {
            true => target::segments_of_decoded(request.target),
            false => Some(target::segments_of(request.target)),
        };
        let Some(segments) = segments else {
            return Route::of(Purpose::Admin);
        };
        let query = PathQuery {
            method: if request.is_upgraded {
                "POST"
            } else {
                request.method
            },
            segments: &segments,
            target: request.target,
        };
        let by_entry = entry.and_then(|entry| entry.rules.route(query, request.named));
        let route = match (by_entry, entry.map(|entry| entry.fallback)) {
            (Some(route), _) => route,
            (None, Some(Fallback::Admin)) => Route::of(Purpose::Admin),
            (None, Some(Fallback::DefaultRules) | None) => {
                let by_default = self.default_rules.route(query, request.named);
                by_default.unwrap_or(Route::of(match request.method {
                    "POST" | "PUT" => Purpose::Inference,
                    _ => Purpose::Admin,
                }))
            }
        };
        let asks = route.operation.is_none() && route.purpose == Purpose::Inference;
        let by_any_api = || self.apis.iter().find_map(|api| api.operation(query));
        Route {
            operation: route.operation.or_else(|| asks.then(by_any_api).flatten()),
            ..route
        }
    }

    /// Whether a request asks for something that only inference servers have: by an API whose paths no other server has, or a
    /// gRPC method that a server's entry knows.
    pub fn is_plain(&self, request: RequestInfo<'_>) -> bool {
        if self.is_probe(None, request.user_agent) {
            return false;
        }
        if request.is_grpc {
            let mut entries = self.entries.iter();
            return grpc::is_call(request.target)
                && entries.any(|entry| entry.rules.has_call(Purpose::Inference, request.target))
                && self.purpose_of_call(None, request.target) == Purpose::Inference;
        }
        let segments = target::segments_of(request.target);
        let query = PathQuery {
            method: request.method,
            segments: &segments,
            target: request.target,
        };
        self.apis.iter().any(|api| api.is_plain(query))
    }

    /// Whether a request says nothing about its server, because a probe or a tool sends the like to every one.
    pub fn says_nothing(&self, request: RequestInfo<'_>) -> bool {
        let segments = target::segments_of(request.target);
        let query = PathQuery {
            method: request.method,
            segments: &segments,
            target: request.target,
        };
        let by_path = self.default_rules.route(query, None);
        self.is_probe(None, request.user_agent)
            || by_path.is_some_and(|route| route.purpose == Purpose::Admin)
            || self.default_rules.purpose_of_call(request.target) == Some(Purpose::Admin)
    }

    /// Whether the client is a probe, by the beginning of its `User-Agent`.
    fn is_probe(&self, entry: Option<&Entry>, user_agent: Option<&str>) -> bool {
        let own = entry.and_then(|entry| entry.probe_agents.as_ref());
        let known = own.unwrap_or(&self.probe_agents);
        user_agent.is_some_and(|agent| {
            known.iter().any(|known| {
                let start = agent.as_bytes().get(..known.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(known.as_bytes()))
            })
        })
    }

    /// Returns what a gRPC method is for: by its server's rules, by those of any server, by the default rules.
    fn purpose_of_call(&self, entry: Option<&Entry>, path: &str) -> Purpose {
        let of_entry = entry.and_then(|entry| entry.rules.purpose_of_call(path));
        let of_any = || {
            let has = |purpose| {
                let mut entries = self.entries.iter();
                entries.any(|entry| entry.rules.has_call(purpose, path))
            };
            [Purpose::Internal, Purpose::Inference, Purpose::Admin]
                .into_iter()
                .find(|purpose| has(*purpose))
        };
        of_entry
            .or_else(of_any)
            .or_else(|| self.default_rules.purpose_of_call(path))
            .unwrap_or(match entry.map(|entry| entry.fallback) {
                Some(Fallback::Admin) => Purpose::Admin,
                Some(Fallback::DefaultRules) | None => Purpose::Inference,
            })
    }

    /// Checks that an entry's examples are recognised as that entry, with the model and purpose that they state.
    fn check_examples(&self, server: &FileServer) -> Result<(), UsageError> {
        for (key, role, examples) in [
            ("server.examples", Role::Server, &server.examples),
            (
                "server.worker_examples",
                Role::Worker,
                &server.worker_examples,
            ),
            (
                "server.internal_examples",
                Role::Internal,
                &server.internal_examples,
            ),
        ] {
            for text in examples {
                let example =
                    CommandExample::parse(text).map_err(|err| invalid(key, text, err.into()))?;
                let found = self.recognise(&example.line);
                let found = found.map(|(entry, role)| {
                    let model = entry.model_in(&example.line, &OptionsFile::default());
                    (&*entry.name, role, model)
                });
                if found != Some((server.name.as_str(), role, example.model)) {
                    let found = match found {
                        None => "matches no server".into(),
                        Some((name, role, model)) => format!(
                            "matches a {} of {name:?} with model {:?}",
                            role.name(),
                            model.as_deref().unwrap_or("-")
                        ),
                    };
                    let reason = format!("{found}; correct the entry or the example");
                    return Err(invalid(key, text, reason));
                }
            }
        }
        let entry = self
            .entries
            .iter()
            .find(|entry| *entry.name == *server.name);
        self.check_requests(
            "server.request_examples",
            entry.map(|entry| &**entry),
            &server.request_examples,
        )
    }

    /// Checks that requests to the server of `entry` have the purpose, model and version that `examples` state.
    fn check_requests(
        &self,
        key: &str,
        entry: Option<&Entry>,
        examples: &[String],
    ) -> Result<(), UsageError> {
        for text in examples {
            let example =
                RequestExample::parse(text).map_err(|err| invalid(key, text, err.into()))?;
            for target in &example.targets {
                let found = self.route(
                    entry,
                    RequestInfo {
                        method: &example.method,
                        target,
                        is_grpc: example.is_grpc,
                        is_upgraded: false,
                        on_unix: false,
                        user_agent: None,
                        named: None,
                    },
                );
                let found = Route {
                    operation: None,
                    model_source: None,
                    by_body: false,
                    ..found
                };
                if found != example.expected {
                    let Route {
                        purpose,
                        model,
                        version,
                        ..
                    } = found;
                    let reason = format!(
                        "{target} is {} with model {:?}, version {:?}; correct the entry or the example",
                        purpose.name(),
                        model.as_deref().unwrap_or("-"),
                        version.as_deref().unwrap_or("-")
                    );
                    return Err(invalid(key, text, reason));
                }
            }
        }
        Ok(())
    }
}

/// Returns where the model of a gRPC call comes from.
fn source_of(named: &ModelName) -> ModelSource {
    match named.model == grpc::UNKNOWN_MODEL {
        true => ModelSource::Unknown,
        false => ModelSource::RequestBody,
    }
}

/// Returns what a gRPC call is for whose path is unknown: inference only if its message names a model.
fn purpose_of_unknown_call(entry: Option<&Entry>, named: Option<&ModelName>) -> Purpose {
    let is_named = named
        .is_some_and(|named| named.by == NamedBy::Message && named.model != grpc::UNKNOWN_MODEL);
    let has_internal = entry.is_some_and(|entry| entry.rules.has_internal_calls());
    match (is_named, has_internal) {
        (true, _) => Purpose::Inference,
        (false, true) => Purpose::Internal,
        (false, false) => Purpose::Admin,
    }
}
