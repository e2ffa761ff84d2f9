//! Splits a request target into path segments and query parameters.
//!
//! Both the catalogue's patterns and the rules for language models match on these.
//! Does not depend on: any other module.

/// Returns the segments of a target's path, each decoded by itself, without empty ones.
pub fn segments_of(target: &str) -> Vec<String> {
    let segments = path_of(target).split('/');
    segments
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect()
}

/// Returns the segments of a target's path, decoded before it is split and without trailing slashes; `None` if one is
/// empty, or the path does not begin with a slash.
pub fn segments_of_decoded(target: &str) -> Option<Vec<String>> {
    let path = decode(target.split(['?', '#']).next().unwrap_or_default());
    let path = path.strip_prefix('/')?.trim_end_matches('/');
    let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    (!segments.iter().any(String::is_empty)).then_some(segments)
}

/// Returns the path of a request target: without scheme and authority, query and fragment.
pub fn path_of(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some(("http" | "https", rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => target,
    };
    target.split(['?', '#']).next().unwrap_or_default()
}

/// Returns the value of a query parameter of a request target.
pub fn query_value(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        .map(decode)
}

fn decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment)
        .decode_utf8_lossy()
        .into_owned()
}
