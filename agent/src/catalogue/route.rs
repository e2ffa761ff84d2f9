//! Says what a request is for, and which model it names.
//!
//! The catalogue makes routes; identity, observation and metrics use them.
//! Does not depend on: paths, servers.

use crate::protocol::genai::Operation;

/// A request's purpose, and the model and version that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What the request is for.
    pub purpose: Purpose,
    /// Model that it names; `None` if it names none.
    pub model: Option<String>,
    /// Where it names the model; `None` if it names none.
    pub model_source: Option<ModelSource>,
    /// Whether a body may name the model.
    pub by_body: bool,
    /// Version that it names; `None` if it names none.
    pub version: Option<String>,
    /// What it asks of a language model; `None` if its path does not say.
    pub operation: Option<Operation>,
}

impl Route {
    /// Returns the route of a request that names no model.
    pub const fn of(purpose: Purpose) -> Self {
        Self {
            purpose,
            model: None,
            model_source: None,
            by_body: false,
            version: None,
            operation: None,
        }
    }
}

/// Where the label `model` of a request comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelSource {
    /// The request's path.
    Path,
    /// The request's body, or the message of a gRPC call.
    RequestBody,
    /// The response's body.
    ResponseBody,
    /// The agent's configuration.
    Configuration,
    /// The command line of the server's process: a guess, because a server may have several models.
    CommandLine,
    /// The name of the server's process: a guess, which stands for whatever model it serves.
    ProcessName,
    /// Nothing: the label is `unknown`.
    Unknown,
}

impl ModelSource {
    /// Every source, in order.
    pub const ALL: [Self; 7] = [
        Self::Path,
        Self::RequestBody,
        Self::ResponseBody,
        Self::Configuration,
        Self::CommandLine,
        Self::ProcessName,
        Self::Unknown,
    ];

    /// Its name in metrics and in the request log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::RequestBody => "request_body",
            Self::ResponseBody => "response_body",
            Self::Configuration => "configuration",
            Self::CommandLine => "command_line",
            Self::ProcessName => "process_name",
            Self::Unknown => "unknown",
        }
    }
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A prediction: counts in the request families.
    Inference,
    /// Health, metrics, management: counts in `Requests2XX` and its siblings, not as inference.
    Admin,
    /// Between processes of one server: the client's own request counts already.
    Internal,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 3] = [Self::Inference, Self::Admin, Self::Internal];

    /// Its word in the catalogue's examples.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Admin => "admin",
            Self::Internal => "internal",
        }
    }
}
