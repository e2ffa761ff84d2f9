//! Holds the page at `/`: one document with its style and its scripts, which requests nothing from elsewhere.
//!
//! Its policy names the hashes of style and script: a browser runs nothing else, whatever a client calls its model.
//! Does not depend on: what the page shows.

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::Compression;
use hyper::{
    HeaderMap,
    body::Bytes,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use sha2::{Digest as _, Sha256};

use crate::exporter::response::{TextResponse, accepts_gzip, compress, compressed_response};

const BODY: &str = include_str!("../../page/page.html");
const STYLE: &str = concat!(
    include_str!("../../page/vendor/uPlot.min.css"),
    include_str!("../../page/page.css"),
);
/// The scripts, in an order in which each one uses only those before it.
const SCRIPT: &str = concat!(
    include_str!("../../page/vendor/uPlot.iife.min.js"),
    "\n(() => {\n",
    include_str!("../../page/format.js"),
    include_str!("../../page/dom.js"),
    include_str!("../../page/heat.js"),
    include_str!("../../page/strip.js"),
    include_str!("../../page/models.js"),
    include_str!("../../page/requests.js"),
    include_str!("../../page/charts.js"),
    include_str!("../../page/gpus.js"),
    include_str!("../../page/main.js"),
    "})();\n",
);

/// The page, as it is sent.
struct Page {
    plain: Bytes,
    gzip: Bytes,
    policy: HeaderValue,
}

/// Made when the first browser asks.
static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>inferprobe</title>\
         <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body>\n{BODY}<script>{SCRIPT}</script></body></html>\n"
    );
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    Page {
        gzip: compress(&text, Compression::best()),
        plain: text.into(),
        policy: policy.parse().expect("a policy is ASCII"),
    }
});

/// Returns the page.
pub(super) fn respond(headers: &HeaderMap) -> TextResponse {
    let gzip = accepts_gzip(headers);
    let body = match gzip {
        true => PAGE.gzip.clone(),
        false => PAGE.plain.clone(),
    };
    let mut response = compressed_response("text/html; charset=utf-8", body, gzip);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, PAGE.policy.clone());
    for (name, value) in [
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns the hash of a style or script, as a policy writes it.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> &'static str {
        str::from_utf8(&PAGE.plain).unwrap()
    }

    fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
        let (_, rest) = text.split_once(start).unwrap();
        rest.split_once(end).unwrap().0
    }

    #[test]
    fn policy_names_the_hashes_of_what_the_browser_sees() {
        let policy = PAGE.policy.to_str().unwrap();
        for (start, end, directive) in [
            ("<script>", "</script>", "script-src"),
            ("<style>", "</style>", "style-src"),
        ] {
            let expected = format!("{directive} '{}'", hash(between(page(), start, end)));
            assert!(policy.contains(&expected), "{policy}");
        }
        assert!(policy.starts_with("default-src 'none'; "));
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn page_is_small_and_names_no_other_address() {
        assert!(PAGE.gzip.len() < 60 << 10, "{}", PAGE.gzip.len());
        let own = page().replace(include_str!("../../page/vendor/uPlot.iife.min.js"), "");
        for outside in ["http:", "https:", "//cdn", "@import", "url("] {
            // A comment that begins with two slashes is none.
            assert!(!own.contains(outside), "{outside}");
        }
    }

    #[test]
    fn text_of_clients_is_never_parsed() {
        for parses in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
        ] {
            assert!(!page().contains(parses), "{parses}");
        }
    }
}
