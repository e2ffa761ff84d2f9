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
            version: None,
            operation: None,
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
