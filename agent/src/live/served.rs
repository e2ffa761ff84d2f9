//! Spells an identity.
//!
//! Does not depend on: anything else.

use crate::{api::Served, identity::Identity};

/// Returns the labels of an identity.
pub(super) fn served(identity: &Identity) -> Served {
    Served {
        model: identity.model.to_string(),
        version: identity.version.to_string(),
        server: identity.server.to_string(),
    }
}
