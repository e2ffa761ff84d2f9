//! What a request is for, and the model that it names.

use crate::latency::Purpose;

/// A request's purpose, and the model and version that it names, where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What the request is for.
    pub purpose: Purpose,
    /// Model that it names.
    pub model: Option<String>,
    /// Version that it names.
    pub version: Option<String>,
}

impl Route {
    /// A request that names no model.
    pub const fn of(purpose: Purpose) -> Self {
        Self {
            purpose,
            model: None,
            version: None,
        }
    }
}
