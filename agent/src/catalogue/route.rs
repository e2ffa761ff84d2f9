//! What a request is for, and the model that it names.

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

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A prediction: counts in the request families.
    Inference,
    /// Health, metrics, management: counts in `Requests2XX` and its like, and apart from inference.
    Admin,
    /// Between processes of one server: a request of its own counts it already.
    Internal,
}
