//! Parses and matches the patterns of HTTP requests and gRPC methods, and finds the model and version in a path.
//!
//! `rules` gives each pattern its purpose.
//! Does not depend on: which server a pattern belongs to.

use crate::protocol::target::query_value;

/// HTTP methods and a path, parts of which may name a model and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// Empty: every method.
    methods: Vec<String>,
    segments: Vec<Segment>,
    /// Index of the first segment `**`.
    any_depth: Option<usize>,
    /// Query parameter that is required and names the model.
    parameter: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Exactly this text.
    Text(String),
    /// Anything between two texts.
    Between(String, Slot, String),
    /// `**`: any number of segments, also none.
    AnyDepth,
}

/// Meaning of the variable part of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Model,
    Version,
    Any,
}

/// Model and version that a pattern found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Model in the path or query; `None` if the pattern has none.
    pub model: Option<String>,
    /// Version in the path; `None` if the pattern has none.
    pub version: Option<String>,
}

/// The parts of a request that patterns match.
#[derive(Debug, Clone, Copy)]
pub struct PathQuery<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Percent-decoded segments of the path.
    pub segments: &'a [String],
    /// Request target, for its query.
    pub target: &'a str,
}

impl PathPattern {
    /// Parses a pattern; the error names the fault and the remedy.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some((methods, path)) = text.split_once(' ') else {
            return Err(
                "has no method; write one before the path, such as \"POST /infer\", or * for every method",
            );
        };
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let Some(path) = path.strip_prefix('/') else {
            return Err("has no path; begin it with /");
        };
        let methods = match methods {
            "*" => Vec::new(),
            _ => methods.split('|').map(str::to_owned).collect(),
        };
        let is_method = |method: &String| {
            !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase())
        };
        if !methods.iter().all(is_method) {
            return Err(
                "has an invalid method; write methods in capitals, such as \"POST|PUT /infer\"",
            );
        }
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let segments: Vec<Segment> = segments.map(segment).collect::<Result<_, _>>()?;
        let parameter = match query {
            None => None,
            Some(query) => match query.strip_suffix("={model}") {
                Some(name) => Some(name.to_owned()),
                None => return Err("has a query other than ?name={model}; remove it"),
            },
        };
        let any_depth = segments
            .iter()
            .position(|segment| *segment == Segment::AnyDepth);
        Ok(Self {
            methods,
            segments,
            any_depth,
            parameter,
        })
    }

    /// Whether it matches paths of any length; such a pattern is tried after the others.
    pub fn is_open(&self) -> bool {
        self.any_depth.is_some()
    }

    /// Returns what it finds in a request; `None` if it does not match.
    pub fn find(&self, query: PathQuery<'_>) -> Option<Found> {
        // Most patterns do not match, and most of those because of their length.
        if self.any_depth.is_none() && self.segments.len() != query.segments.len() {
            return None;
        }
        if !self.methods.is_empty() && !self.methods.iter().any(|method| method == query.method) {
            return None;
        }
        let mut found = Found::default();
        match self.any_depth {
            None => match_segments(&self.segments, query.segments, &mut found)?,
            Some(at) => {
                let (before, after) = (&self.segments[..at], &self.segments[at + 1..]);
                match_segments(before, query.segments.get(..at)?, &mut found)?;
                match_tail(after, &query.segments[at..], &mut found)?;
            }
        }
        if let Some(name) = &self.parameter {
            found.model = Some(query_value(query.target, name)?);
        }
        Some(found)
    }
}

fn segment(text: &str) -> Result<Segment, &'static str> {
    if text == "**" {
        return Ok(Segment::AnyDepth);
    }
    let slots = [
        ("{model}", Slot::Model),
        ("{version}", Slot::Version),
        ("*", Slot::Any),
    ];
    let parts = slots
        .iter()
        .find_map(|(name, slot)| Some((text.split_once(name)?, *slot)));
    let Some(((before, after), slot)) = parts else {
        return match text.contains(['{', '}']) {
            true => Err("has braces other than {model} and {version}; write * for any segment"),
            false => Ok(Segment::Text(text.to_owned())),
        };
    };
    if [before, after]
        .iter()
        .any(|part| part.contains(['{', '}', '*']))
    {
        return Err("has a segment with two variable parts; keep one");
    }
    Ok(Segment::Between(before.to_owned(), slot, after.to_owned()))
}

/// Matches the segments after a `**`, which takes those of `given` that are too many; further `**` may follow.
fn match_tail(pattern: &[Segment], given: &[String], found: &mut Found) -> Option<()> {
    let Some(at) = pattern
        .iter()
        .position(|segment| *segment == Segment::AnyDepth)
    else {
        let skipped = given.len().checked_sub(pattern.len())?;
        return match_segments(pattern, &given[skipped..], found);
    };
    // If the part up to the next `**` fits at one place, then no later place leaves more to the rest.
    let (part, rest) = (&pattern[..at], &pattern[at + 1..]);
    let places = 0..=given.len().checked_sub(at)?;
    let place = places
        .into_iter()
        .find(|place| match_segments(part, &given[*place..place + at], found).is_some())?;
    match_tail(rest, &given[place + at..], found)
}

fn match_segments(pattern: &[Segment], given: &[String], found: &mut Found) -> Option<()> {
    if pattern.len() != given.len() {
        return None;
    }
    for (segment, given) in pattern.iter().zip(given) {
        match segment {
            Segment::Text(text) if text == given => {}
            Segment::Text(_) | Segment::AnyDepth => return None,
            Segment::Between(before, slot, after) => {
                let value = given.strip_prefix(&**before)?.strip_suffix(&**after)?;
                match slot {
                    Slot::Any => {}
                    Slot::Model | Slot::Version if value.is_empty() => return None,
                    Slot::Model => found.model = Some(value.to_owned()),
                    Slot::Version => found.version = Some(value.to_owned()),
                }
            }
        }
    }
    Some(())
}

/// A gRPC method by its whole path, or by a prefix and `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallPattern {
    path: String,
    is_prefix: bool,
}

impl CallPattern {
    /// Parses a pattern; the error names the fault and the remedy.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (path, is_prefix) = match text.strip_suffix('*') {
            Some(path) => (path, true),
            None => (text, false),
        };
        if !path.starts_with('/') || path.contains(['*', ' ', '{']) {
            return Err(
                "is not a gRPC method; write it as \"/package.Service/Method\" or \"/package.*\"",
            );
        }
        Ok(Self {
            path: path.to_owned(),
            is_prefix,
        })
    }

    /// Whether it matches the path of a gRPC method.
    pub fn matches(&self, path: &str) -> bool {
        match self.is_prefix {
            true => path.starts_with(&*self.path),
            false => path == self.path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        pattern: &str,
        method: &str,
        target: &str,
    ) -> Option<(Option<String>, Option<String>)> {
        let segments = crate::protocol::target::segments_of(target);
        let query = PathQuery {
            method,
            segments: &segments,
            target,
        };
        let found = PathPattern::parse(pattern).unwrap().find(query)?;
        Some((found.model, found.version))
    }

    #[test]
    fn a_pattern_finds_model_and_version() {
        let model = |name: &str| Some((Some(name.to_owned()), None));
        let both =
            |name: &str, version: &str| Some((Some(name.to_owned()), Some(version.to_owned())));
        for (pattern, target, expected) in [
            ("POST /infer", "/infer?x=/y", Some((None, None))),
            ("POST /", "/", Some((None, None))),
            ("POST /", "/x", None),
            ("POST /infer", "/infer/x", None),
            (
                "POST /v1/models/{model}:predict",
                "/v1/models/a:b%20c:predict",
                model("a:b c"),
            ),
            (
                "POST /v1/models/{model}:predict",
                "/v1/models/:predict",
                None,
            ),
            (
                "POST /v2/models/{model}/versions/{version}/infer",
                "/v2/models/m/versions/3/infer",
                both("m", "3"),
            ),
            ("POST /p/{model}/{version}/**", "/p/m/1/x/y", both("m", "1")),
            ("POST /p/{model}/{version}/**", "/p/m", None),
            ("POST /**/render", "/v1/chat/render", Some((None, None))),
            ("POST /**/render", "/render", Some((None, None))),
            ("POST /a/**/a", "/a", None),
            ("POST /**/-/**", "/x/-/y/z", Some((None, None))),
            ("POST /**/-/**", "/-", Some((None, None))),
            ("POST /**/-/**", "/x/y", None),
            ("POST /a/**/{model}:b/**/c", "/a/x/m:b/y/z/c", model("m")),
            ("POST /a/**/{model}:b/**/c", "/a/x/m:b/y/z/d", None),
            ("POST /**/a/**/a/**/a", "/a/a", None),
            ("POST /**/a/**/a/**/a", "/a/x/a/a", Some((None, None))),
            ("POST /update*", "/update", Some((None, None))),
            ("POST /update*", "/updated/x", None),
            ("POST /*/x", "http://h:1/y/x#z", Some((None, None))),
            (
                "POST /invocations?model_name={model}",
                "/invocations?a=b&model_name=t%20t",
                model("t t"),
            ),
            ("POST /invocations?model_name={model}", "/invocations", None),
        ] {
            assert_eq!(
                found(pattern, "POST", target),
                expected,
                "{pattern} {target}"
            );
        }
    }

    #[test]
    fn a_pattern_matches_only_its_methods() {
        for (pattern, method, expected) in [
            ("POST|PUT /a", "PUT", true),
            ("POST|PUT /a", "GET", false),
            ("* /a", "FOO", true),
        ] {
            assert_eq!(
                found(pattern, method, "/a").is_some(),
                expected,
                "{pattern} {method}"
            );
        }
    }

    #[test]
    fn an_invalid_pattern_is_an_error_with_a_remedy() {
        for (text, start) in [
            ("/a", "has no method"),
            ("POST a", "has no path"),
            ("post /a", "has an invalid method"),
            ("POST| /a", "has an invalid method"),
            ("POST /{name}", "has braces"),
            ("POST /{model}{version}", "has a segment"),
            ("POST /a*b*c", "has a segment"),
            ("POST /**/a*b*c/**", "has a segment"),
            ("POST /a?b=c", "has a query"),
        ] {
            let reason = PathPattern::parse(text).unwrap_err();
            assert!(reason.starts_with(start), "{text}: {reason}");
            assert!(reason.contains(';'), "{reason}");
        }
        for text in ["a.B/C", "/a.*/C", "* /a.B/C"] {
            assert!(CallPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_grpc_pattern_matches_the_whole_path_or_its_prefix() {
        for (pattern, path, expected) in [
            ("/a.B/C", "/a.B/C", true),
            ("/a.B/C", "/a.B/CD", false),
            ("/a.*", "/a.B/C", true),
            ("/a.*", "/ab.C/D", false),
        ] {
            let matches = CallPattern::parse(pattern).unwrap().matches(path);
            assert_eq!(matches, expected, "{pattern} {path}");
        }
    }
}
