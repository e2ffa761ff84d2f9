//! Parses the examples that an entry carries: command lines and requests, each with what is expected of it.
//!
//! The catalogue checks them: a test those of the built-in entries, the agent at its start those of the user's.
//! Does not depend on: the entries.

use crate::catalogue::{
    command::CommandLine,
    route::{Purpose, Route},
};

/// Text between an example and what is expected of it.
const ARROW: &str = " -> ";

/// A command line, and the model that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandExample {
    /// The command line; each word is an argument.
    pub line: CommandLine,
    /// Model that it names.
    pub model: Option<String>,
}

/// Requests of one method and of one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestExample {
    /// HTTP method.
    pub method: String,
    /// Whether they are gRPC calls.
    pub is_grpc: bool,
    /// Request targets, or paths of gRPC methods.
    pub targets: Vec<String>,
    /// Purpose, model and version of each.
    pub expected: Route,
}

impl CommandExample {
    /// Parses `COMMAND LINE -> MODEL`, or a command line that names no model.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (command, model) = match text.split_once(ARROW) {
            Some((command, model)) => (command, Some(model.trim().to_owned())),
            None => (text, None),
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        let line = CommandLine::parse(words.join("\0").as_bytes());
        Ok(Self {
            line: line.ok_or("has no command line; write it as \"COMMAND LINE -> MODEL\"")?,
            model,
        })
    }
}

impl RequestExample {
    /// Parses `METHOD PATH... -> PURPOSE [of MODEL [version VERSION]]`; the method `gRPC` stands for gRPC calls.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "is not a request example; write it as \"POST /infer -> inference\" or \
                            \"POST /infer/m/1 -> inference of m version 1\"";
        let (requests, expected) = text.split_once(ARROW).ok_or(FORM)?;
        let mut words = requests.split_whitespace().map(str::to_owned);
        let method = words.next().ok_or(FORM)?;
        let targets: Vec<String> = words.collect();
        if targets.is_empty() {
            return Err(FORM);
        }
        let is_grpc = method == "gRPC";
        let words: Vec<&str> = expected.split_whitespace().collect();
        let (purpose, model, version) = match words[..] {
            [purpose] => (purpose, None, None),
            [purpose, "of", model] => (purpose, Some(model), None),
            [purpose, "of", model, "version", version] => (purpose, Some(model), Some(version)),
            _ => return Err(FORM),
        };
        let purpose = Purpose::ALL
            .into_iter()
            .find(|known| known.name() == purpose)
            .ok_or("has an unknown purpose; write inference, admin or internal")?;
        Ok(Self {
            method: if is_grpc { "POST".into() } else { method },
            is_grpc,
            targets,
            expected: Route {
                model: model.map(str::to_owned),
                version: version.map(str::to_owned),
                ..Route::of(purpose)
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_example_names_its_model_or_none() {
        for (text, command, model) in [
            ("/bin/serve  x -> m", "serve x", Some("m")),
            ("serve x", "serve x", None),
            ("serve a->b", "serve a->b", None),
        ] {
            let example = CommandExample::parse(text).unwrap();
            assert_eq!(example.line.command, command, "{text}");
            assert_eq!(example.model.as_deref(), model, "{text}");
        }
        for text in ["", " -> m"] {
            assert!(CommandExample::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_request_example_has_a_method_paths_and_a_purpose() {
        let example = RequestExample::parse("POST /a /b -> inference of m version 2").unwrap();
        assert_eq!((example.method.as_str(), example.is_grpc), ("POST", false));
        assert_eq!(example.targets, ["/a", "/b"]);
        let expected = Route {
            model: Some("m".into()),
            version: Some("2".into()),
            ..Route::of(Purpose::Inference)
        };
        assert_eq!(example.expected, expected);
        let example = RequestExample::parse("gRPC /a.B/C -> internal").unwrap();
        assert_eq!((example.method.as_str(), example.is_grpc), ("POST", true));
        assert_eq!(example.expected, Route::of(Purpose::Internal));
        for text in [
            "POST /a",
            "POST -> admin",
            " -> admin",
            "POST /a -> ",
            "POST /a -> other",
            "POST /a -> inference m",
            "POST /a -> inference of m version",
        ] {
            let reason = RequestExample::parse(text).unwrap_err();
            assert!(reason.contains(';'), "{text:?}: {reason}");
        }
    }
}
