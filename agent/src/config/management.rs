//! Chooses the address of TorchServe's management API: the one in its own file, else TorchServe's default.
//!
//! The agent asks it about workers whose model is unknown.
//! Does not depend on: the network.

use crate::{
    http::url::{HttpUrl, UrlError},
    torchserve::properties::TorchServeFile,
    usage::{UsageError, invalid},
};

/// Default address of TorchServe's management API.
const DEFAULT: &str = "http://127.0.0.1:8081";

/// Chooses the address; one that is not plain HTTP over TCP cannot be used, so the default applies.
pub(super) fn choose(file: Option<&TorchServeFile>) -> Result<HttpUrl, UsageError> {
    let address = file.map(|file| file.management_address.value.to_string());
    let address = address.filter(|address| address.starts_with("http://"));
    let address = address.as_deref().unwrap_or(DEFAULT);
    address.parse().map_err(|err: UrlError| {
        let reason = format!("{err}; write it like {DEFAULT}");
        invalid("management_address", address, reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchserves_own_address_is_used_if_it_is_plain_http() {
        for (text, expected) in [
            ("", "http://127.0.0.1:8081/"),
            (
                "management_address=http://127.0.0.1:9081\n",
                "http://127.0.0.1:9081/",
            ),
            (
                "management_address=https://127.0.0.1:9081\n",
                "http://127.0.0.1:8081/",
            ),
            (
                "management_address=unix:/run/ts\n",
                "http://127.0.0.1:8081/",
            ),
        ] {
            let file = TorchServeFile::parse("ts.properties", text.as_bytes()).unwrap();
            let chosen = choose(Some(&file)).unwrap().to_string();
            assert_eq!(chosen, expected, "{text}");
        }
    }
}
