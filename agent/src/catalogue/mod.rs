//! Who is who: the servers that are recognised, and what requests to them are for.
//!
//! The data is `servers.toml` and the user's own entries, in the grammar of `entry`. `command` takes command lines
//! apart, `path` has the patterns of paths. Pure: nothing here reads procfs or knows of sockets.

pub mod command;
pub mod entry;
pub mod path;
pub mod route;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    catalogue::{
        command::CommandLine,
        entry::{Entry, Fallback, FileCatalogue, FileServer, Role, Rules},
        path::PathQuery,
        route::{Purpose, Route},
    },
    protocol::{
        grpc::{self, ModelName, NamedBy},
        target,
    },
    usage::UsageError,
};

/// The entries that the agent comes with.
const BUILT_IN: &str = include_str!("servers.toml");

/// Every server that can be recognised.
#[derive(Debug)]
pub struct Catalogue {
    /// In the order in which they are tried.
    entries: Vec<Arc<Entry>>,
    guess: Rules,
}

/// A request, as far as its purpose depends on it.
#[derive(Debug, Clone, Copy)]
pub struct RequestInfo<'a> {
    /// Method of HTTP.
    pub method: &'a str,
    /// Request target; of gRPC, the path of the call.
    pub target: &'a str,
    /// Whether it is a call of gRPC.
    pub is_grpc: bool,
    /// Whether it came on a unix socket.
    pub on_unix: bool,
    /// Model that its content names.
    pub named: Option<&'a ModelName>,
}

impl Catalogue {
    /// The built-in entries behind the user's `own`.
    pub fn new(own: Vec<FileServer>) -> Result<Self, UsageError> {
        let built_in: FileCatalogue =
            toml::from_str(BUILT_IN).expect("a test reads the built-in catalogue");
        let mut entries = Vec::new();
        for server in own {
            let server = server.completed(built_in.server.iter())?;
            entries.push(Arc::new(server.check()?));
        }
        for server in built_in.server {
            let entry = server
                .check()
                .expect("a test checks the built-in catalogue");
            entries.push(Arc::new(entry));
        }
        let guess = built_in
            .guess
            .check()
            .expect("a test checks the built-in catalogue");
        Ok(Self { entries, guess })
    }

    /// The server that a process with this command line belongs to, and what it does there.
    pub fn recognise(&self, line: &CommandLine) -> Option<(&Arc<Entry>, Role)> {
        self.entries
            .iter()
            .find_map(|entry| Some((entry, entry.role_of(line)?)))
    }

    /// What a request is for, and the model that it names; `entry` is the server's, where it was recognised.
    pub fn route(&self, entry: Option<&Entry>, asked: RequestInfo<'_>) -> Route {
        if asked.on_unix && entry.is_some_and(|entry| entry.inner_unix) {
            return Route::of(Purpose::Internal);
        }
        let call = match asked.target {
            // Of a connection that is older than the watch: it may be an inference.
            "" if asked.is_grpc => Some(Purpose::Inference),
            target => grpc::is_call(target).then(|| self.purpose_of_call(entry, target)),
        };
        match call {
            Some(purpose) if asked.is_grpc => {
                let named = asked
                    .named
                    .filter(|named| purpose == Purpose::Inference && named.by == NamedBy::Message);
                Route {
                    purpose,
                    model: named.map(|named| named.model.clone()),
                    version: named.and_then(|named| named.version.clone()),
                }
            }
            // A call that was cut off before anything else of it told that it is one.
            Some(Purpose::Internal) => Route::of(Purpose::Internal),
            _ => self.route_of_path(entry, asked),
        }
    }

    fn route_of_path(&self, entry: Option<&Entry>, asked: RequestInfo<'_>) -> Route {
        let decodes_first = entry.is_some_and(|entry| entry.decodes_first);
        let is_never = match decodes_first {
            true => asked.method == "OPTIONS",
            false => matches!(asked.method, "OPTIONS" | "TRACE" | "CONNECT"),
        };
        if is_never {
            return Route::of(Purpose::Admin);
        }
        let segments = match decodes_first {
            true => target::segments_of_decoded(asked.target),
            false => Some(target::segments_of(asked.target)),
        };
        let Some(segments) = segments else {
            return Route::of(Purpose::Admin);
        };
        let request = PathQuery {
            method: asked.method,
            segments: &segments,
            target: asked.target,
        };
        let by_entry = entry.and_then(|entry| entry.rules.route(request, asked.named));
        if let Some(route) = by_entry {
            return route;
        }
        if entry.is_some_and(|entry| entry.rest == Fallback::Admin) {
            return Route::of(Purpose::Admin);
        }
        self.guess
            .route(request, asked.named)
            .unwrap_or(Route::of(Purpose::Inference))
    }

    /// What a call is for: by its server's rules, by those of any server, by the common ones.
    fn purpose_of_call(&self, entry: Option<&Entry>, path: &str) -> Purpose {
        let of_entry = entry.and_then(|entry| entry.rules.purpose_of_call(path));
        let of_any = || {
            let found = |wanted| {
                let mut calls = self.entries.iter().flat_map(|entry| &entry.rules.calls);
                calls.any(|(purpose, pattern)| *purpose == wanted && pattern.fits(path))
            };
            [Purpose::Internal, Purpose::Inference, Purpose::Admin]
                .into_iter()
                .find(|wanted| found(*wanted))
        };
        of_entry
            .or_else(of_any)
            .or_else(|| self.guess.purpose_of_call(path))
            .unwrap_or(match entry.map(|entry| entry.rest) {
                Some(Fallback::Admin) => Purpose::Admin,
                Some(Fallback::Guess) | None => Purpose::Inference,
            })
    }
}

impl Rules {
    /// What the first pattern that fits says.
    fn route(&self, request: PathQuery<'_>, named: Option<&ModelName>) -> Option<Route> {
        self.paths.iter().find_map(|rule| {
            let found = rule.pattern.find(request)?;
            let in_body = || {
                let named = named.filter(|named| rule.by_body && named.by == NamedBy::Body);
                named.map(|named| named.model.clone())
            };
            Some(Route {
                purpose: rule.purpose,
                model: found.model.or_else(in_body),
                version: found.version,
            })
        })
    }

    fn purpose_of_call(&self, path: &str) -> Option<Purpose> {
        let mut calls = self.calls.iter();
        calls
            .find(|(_, pattern)| pattern.fits(path))
            .map(|(purpose, _)| *purpose)
    }
}
