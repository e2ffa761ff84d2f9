//! Sends HTTP requests: `url` is an address, `client` one request to it.
//!
//! Does not depend on: what is asked, and of which server.

pub mod client;
pub mod url;
