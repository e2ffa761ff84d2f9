//! Decides the purpose of paths and gRPC methods: the checked rules of one entry, or the default rules.
//!
//! The catalogue asks the entry's rules first, then the default rules.
//! Does not depend on: processes, and which server the rules belong to.

use crate::{
    catalogue::{
        file::{FileDefaultRules, FileServer},
        path::{CallPattern, PathPattern, PathQuery},
        route::{Purpose, Route},
    },
    protocol::grpc::{ModelName, NamedBy},
    usage::{UsageError, invalid},
};

/// Purposes of paths and gRPC methods.
#[derive(Debug, Default)]
pub struct Rules {
    /// Paths, in the order in which they are tried.
    paths: Vec<PathRule>,
    /// gRPC methods, in the order in which they are tried.
    calls: Vec<(Purpose, CallPattern)>,
}

/// Purpose of the paths that one pattern matches.
#[derive(Debug)]
struct PathRule {
    pattern: PathPattern,
    purpose: Purpose,
    /// Whether the body names the model.
    by_body: bool,
}

impl Rules {
    /// Checks the rules of a server's entry.
    pub fn of_server(file: &FileServer) -> Result<Self, UsageError> {
        use Purpose::{Admin, Inference, Internal};

        let mut rules = Self::default();
        for (key, purpose, by_body, patterns) in [
            ("server.internal", Internal, false, &file.internal),
            ("server.admin", Admin, false, &file.admin),
            (
                "server.inference_by_body",
                Inference,
                true,
                &file.inference_by_body,
            ),
            ("server.inference", Inference, false, &file.inference),
        ] {
            let patterns = patterns.as_deref().unwrap_or_default();
            rules.add_paths(key, purpose, by_body, patterns)?;
        }
        for (key, purpose, patterns) in [
            ("server.grpc_internal", Internal, &file.grpc_internal),
            ("server.grpc_inference", Inference, &file.grpc_inference),
            ("server.grpc_admin", Admin, &file.grpc_admin),
        ] {
            rules.add_calls(key, purpose, patterns.as_deref().unwrap_or_default())?;
        }
        Ok(rules.in_order())
    }

    /// Checks the default rules.
    pub fn of_defaults(file: &FileDefaultRules) -> Result<Self, UsageError> {
        use Purpose::{Admin, Inference, Internal};

        let mut rules = Self::default();
        for (key, purpose, by_body, patterns) in [
            ("default_rules.admin", Admin, false, &file.admin),
            (
                "default_rules.inference_by_body",
                Inference,
                true,
                &file.inference_by_body,
            ),
            ("default_rules.inference", Inference, false, &file.inference),
        ] {
            rules.add_paths(key, purpose, by_body, patterns)?;
        }
        rules.add_calls("default_rules.grpc_internal", Internal, &file.grpc_internal)?;
        rules.add_calls("default_rules.grpc_admin", Admin, &file.grpc_admin)?;
        Ok(rules.in_order())
    }

    /// Returns what the first matching path says; `named` is the model that the request's content names.
    pub fn route(&self, query: PathQuery<'_>, named: Option<&ModelName>) -> Option<Route> {
        self.paths.iter().find_map(|rule| {
            let found = rule.pattern.find(query)?;
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

    /// Returns what the first matching gRPC method says.
    pub fn purpose_of_call(&self, path: &str) -> Option<Purpose> {
        let mut calls = self.calls.iter();
        calls
            .find(|(_, pattern)| pattern.matches(path))
            .map(|(purpose, _)| *purpose)
    }

    /// Whether a gRPC method of this purpose matches, even if another one comes first.
    pub fn has_call(&self, purpose: Purpose, path: &str) -> bool {
        let mut calls = self.calls.iter();
        calls.any(|(own, pattern)| *own == purpose && pattern.matches(path))
    }

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

    /// Puts paths of a fixed length before those of any length.
    fn in_order(mut self) -> Self {
        self.paths.sort_by_key(|rule| rule.pattern.is_open());
        self
    }
}
