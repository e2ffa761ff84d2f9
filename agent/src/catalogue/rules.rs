//! Decides the purpose of paths and gRPC methods: the checked rules of one entry, or the default rules.
//!
//! The catalogue asks the entry's rules first, then the default rules.
//! Does not depend on: processes, and which server the rules belong to.

use crate::{
    catalogue::{
        file::{FileApi, FileDefaultRules, FileServer},
        path::{CallPattern, PathPattern, PathQuery},
        route::{ModelSource, Purpose, Route},
    },
    protocol::{
        genai::Operation,
        grpc::{ModelName, NamedBy},
    },
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
#[derive(Debug, Clone)]
struct PathRule {
    pattern: PathPattern,
    purpose: Purpose,
    /// Whether the body names the model.
    by_body: bool,
    /// What it asks of a language model.
    operation: Option<Operation>,
    /// Whether a match shows that a listener is an inference server.
    is_plain: bool,
}

/// The paths of one API.
#[derive(Debug)]
pub struct Api {
    name: String,
    paths: Vec<PathRule>,
}

impl Api {
    /// Checks an API as written.
    pub fn check(file: &FileApi) -> Result<Self, UsageError> {
        use Purpose::{Admin, Inference};

        let mut rules = Rules::default();
        for (key, purpose, operation, patterns) in [
            ("api.admin", Admin, None, &file.admin),
            ("api.chat", Inference, Some(Operation::Chat), &file.chat),
            (
                "api.text_completion",
                Inference,
                Some(Operation::TextCompletion),
                &file.text_completion,
            ),
            (
                "api.embeddings",
                Inference,
                Some(Operation::Embeddings),
                &file.embeddings,
            ),
            (
                "api.generate_content",
                Inference,
                Some(Operation::GenerateContent),
                &file.generate_content,
            ),
            ("api.inference", Inference, None, &file.inference),
        ] {
            let first = rules.paths.len();
            rules.add_paths(key, purpose, file.model_in_body, patterns)?;
            for rule in &mut rules.paths[first..] {
                rule.operation = operation;
                rule.is_plain = file.plain && purpose == Inference;
            }
        }
        rules.paths.sort_by_key(|rule| rule.pattern.is_open());
        Ok(Self {
            name: file.name.clone(),
            paths: rules.paths,
        })
    }

    /// Returns what a request asks of a language model; `None` if no path of this API says.
    pub fn operation(&self, query: PathQuery<'_>) -> Option<Operation> {
        let asked = self.paths.iter().filter(|rule| rule.operation.is_some());
        let mut found = asked.filter(|rule| rule.pattern.find(query).is_some());
        found.next()?.operation
    }

    /// Whether a request is for inference by a path that only inference servers have.
    pub fn is_plain(&self, query: PathQuery<'_>) -> bool {
        let found = |rule: &&PathRule| rule.pattern.find(query).is_some();
        self.paths
            .iter()
            .find(found)
            .is_some_and(|rule| rule.is_plain)
    }
}

impl Rules {
    /// Checks the rules of a server's entry, and adds those of the APIs that it names.
    pub fn of_server(file: &FileServer, apis: &[Api]) -> Result<Self, UsageError> {
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
        rules.paths.sort_by_key(|rule| rule.pattern.is_open());
        for (key, purpose, patterns) in [
            ("server.grpc_internal", Internal, &file.grpc_internal),
            ("server.grpc_inference", Inference, &file.grpc_inference),
            ("server.grpc_admin", Admin, &file.grpc_admin),
        ] {
            rules.add_calls(key, purpose, patterns.as_deref().unwrap_or_default())?;
        }
        rules.add_apis(
            "server.apis",
            file.apis.as_deref().unwrap_or_default(),
            apis,
        )?;
        Ok(rules)
    }

    /// Checks the default rules.
    pub fn of_defaults(file: &FileDefaultRules, apis: &[Api]) -> Result<Self, UsageError> {
        use Purpose::{Admin, Internal};

        let mut rules = Self::default();
        rules.add_apis("default_rules.apis", &file.apis, apis)?;
        rules.add_paths("default_rules.admin", Admin, false, &file.admin)?;
        rules.add_calls("default_rules.grpc_internal", Internal, &file.grpc_internal)?;
        rules.add_calls("default_rules.grpc_admin", Admin, &file.grpc_admin)?;
        Ok(rules)
    }

    /// Returns what the first matching path says; `named` is the model that the request's content names.
    pub fn route(&self, query: PathQuery<'_>, named: Option<&ModelName>) -> Option<Route> {
        self.paths.iter().find_map(|rule| {
            let found = rule.pattern.find(query)?;
            let in_body = || {
                let named = named.filter(|named| rule.by_body && named.by == NamedBy::Body);
                named.map(|named| named.model.clone())
            };
            let in_path = found.model.map(|model| (model, ModelSource::Path));
            let named = in_path.or_else(|| Some((in_body()?, ModelSource::RequestBody)));
            let (model, model_source) = named.unzip();
            Some(Route {
                model,
                model_source,
                by_body: rule.by_body,
                version: found.version,
                operation: rule.operation,
                ..Route::of(rule.purpose)
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

    /// Whether some gRPC methods are internal.
    pub fn has_internal_calls(&self) -> bool {
        let mut calls = self.calls.iter();
        calls.any(|(purpose, _)| *purpose == Purpose::Internal)
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
                operation: None,
                is_plain: false,
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

    /// Adds the paths of the APIs with these names.
    fn add_apis(&mut self, key: &str, names: &[String], apis: &[Api]) -> Result<(), UsageError> {
        for name in names {
            let Some(api) = apis.iter().find(|api| api.name == *name) else {
                let reason = "is not a known API; docs/servers.md lists them";
                return Err(invalid(key, name, reason.into()));
            };
            self.paths.extend_from_slice(&api.paths);
        }
        Ok(())
    }
}
