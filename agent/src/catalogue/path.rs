//! Patterns of requests over HTTP and of calls over gRPC, and the model and version that they find.
//!
//! Pure. Knows no server.

use crate::protocol::target::query_value;

/// Methods and a path, of which parts may name a model and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// Empty: every method.
    methods: Vec<String>,
    segments: Vec<Segment>,
    /// Place of the segment that stands for any number.
    rest: Option<usize>,
    /// Parameter of the query that must be there and names the model.
    parameter: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// This text.
    Text(String),
    /// Anything between two texts.
    Between(String, Slot, String),
    /// Any number of segments, also none.
    Rest,
}

/// What the variable part of a segment stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Model,
    Version,
    Any,
}

/// What a pattern found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Model in the path.
    pub model: Option<String>,
    /// Version in the path.
    pub version: Option<String>,
}

/// A request as patterns see it.
#[derive(Debug, Clone, Copy)]
pub struct PathQuery<'a> {
    /// Method.
    pub method: &'a str,
    /// Decoded segments of the path.
    pub segments: &'a [String],
    /// Request target, for its query.
    pub target: &'a str,
}

impl PathPattern {
    /// Reads a pattern; the error says what is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some((methods, path)) = text.split_once(' ') else {
            return Err(
                "has no method; give one before the path, as in \"POST /infer\", or * for all",
            );
        };
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let Some(path) = path.strip_prefix('/') else {
            return Err("has no path; let it begin with /");
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
                "has a method that is none; write them in capitals, as in \"POST|PUT /infer\"",
            );
        }
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let segments: Vec<Segment> = segments.map(segment).collect::<Result<_, _>>()?;
        if segments
            .iter()
            .filter(|segment| **segment == Segment::Rest)
            .count()
            > 1
        {
            return Err("has ** twice; keep one");
        }
        let parameter = match query {
            None => None,
            Some(query) => match query.strip_suffix("={model}") {
                Some(name) => Some(name.to_owned()),
                None => return Err("has a query other than name={model}; leave it out"),
            },
        };
        let rest = segments
            .iter()
            .position(|segment| *segment == Segment::Rest);
        Ok(Self {
            methods,
            segments,
            rest,
            parameter,
        })
    }

    /// Whether it stands for paths of any length: such a pattern gives way to the others.
    pub fn is_open(&self) -> bool {
        self.rest.is_some()
    }

    /// What it finds in a request; `None` if it does not fit.
    pub fn find(&self, asked: PathQuery<'_>) -> Option<Found> {
        // Most patterns do not fit, and most of those by their length.
        if self.rest.is_none() && self.segments.len() != asked.segments.len() {
            return None;
        }
        if !self.methods.is_empty() && !self.methods.iter().any(|method| method == asked.method) {
            return None;
        }
        let mut found = Found::default();
        match self.rest {
            None => fit(&self.segments, asked.segments, &mut found)?,
            Some(rest) => {
                let (before, after) = (&self.segments[..rest], &self.segments[rest + 1..]);
                let after_at = asked.segments.len().checked_sub(after.len())?;
                fit(before, asked.segments.get(..rest)?, &mut found)?;
                // What stands before may not overlap with what stands behind.
                fit(
                    after,
                    asked.segments[rest..].get(after_at.checked_sub(rest)?..)?,
                    &mut found,
                )?;
            }
        }
        if let Some(name) = &self.parameter {
            found.model = Some(query_value(asked.target, name)?);
        }
        Some(found)
    }
}

fn segment(text: &str) -> Result<Segment, &'static str> {
    if text == "**" {
        return Ok(Segment::Rest);
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

fn fit(pattern: &[Segment], given: &[String], found: &mut Found) -> Option<()> {
    if pattern.len() != given.len() {
        return None;
    }
    for (segment, given) in pattern.iter().zip(given) {
        match segment {
            Segment::Text(text) if text == given => {}
            Segment::Text(_) | Segment::Rest => return None,
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

/// A method of gRPC by its whole path, or by its beginning and a `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallPattern {
    path: String,
    open: bool,
}

impl CallPattern {
    /// Reads a pattern; the error says what is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (path, open) = match text.strip_suffix('*') {
            Some(path) => (path, true),
            None => (text, false),
        };
        if !path.starts_with('/') || path.contains(['*', ' ', '{']) {
            return Err(
                "is no path of gRPC; write it as in \"/package.Service/Method\" or \"/package.*\"",
            );
        }
        Ok(Self {
            path: path.to_owned(),
            open,
        })
    }

    /// Whether it fits the path of a call.
    pub fn fits(&self, path: &str) -> bool {
        match self.open {
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
        let asked = PathQuery {
            method,
            segments: &segments,
            target,
        };
        let found = PathPattern::parse(pattern).unwrap().find(asked)?;
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
    fn methods_are_told_apart() {
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
    fn what_is_no_pattern_is_refused() {
        for (text, start) in [
            ("/a", "has no method"),
            ("POST a", "has no path"),
            ("post /a", "has a method"),
            ("POST| /a", "has a method"),
            ("POST /{name}", "has braces"),
            ("POST /{model}{version}", "has a segment"),
            ("POST /a*b*c", "has a segment"),
            ("POST /**/a/**", "has **"),
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
    fn calls_fit_whole_or_by_their_beginning() {
        for (pattern, path, expected) in [
            ("/a.B/C", "/a.B/C", true),
            ("/a.B/C", "/a.B/CD", false),
            ("/a.*", "/a.B/C", true),
            ("/a.*", "/ab.C/D", false),
        ] {
            let fits = CallPattern::parse(pattern).unwrap().fits(path);
            assert_eq!(fits, expected, "{pattern} {path}");
        }
    }
}
