//! Finds what a request asks of a language model, from its method and path.
//!
//! Used for the `gen_ai` families.
//! Does not depend on: bodies, which server it is.

use crate::protocol::target;

/// What a request asks of a language model, in OpenTelemetry's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// The next message of a conversation.
    Chat,
    /// Vectors for texts.
    Embeddings,
    /// Content of any kind.
    GenerateContent,
    /// A text that continues a prompt.
    TextCompletion,
}

impl Operation {
    /// Value of the attribute `gen_ai.operation.name`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
            Self::GenerateContent => "generate_content",
            Self::TextCompletion => "text_completion",
        }
    }
}

/// Returns what a request asks of a language model; `None` if its path belongs to no known API.
///
/// OpenAI's paths count after any prefix, because gateways and applications add one of their own.
pub fn operation(method: &str, target: &str) -> Option<Operation> {
    if method != "POST" {
        return None;
    }
    let path = target::path_of(target).trim_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    let operation = match segments[..] {
        [.., "chat", "completions"] | [.., "chat", "completions", "batch"] => Operation::Chat,
        [.., "v1", "responses" | "messages"] | ["api", "chat"] => Operation::Chat,
        [.., "v1", "completions"] | ["completion" | "completions" | "infill"] => {
            Operation::TextCompletion
        }
        ["generate" | "generate_stream"] | ["api", "generate"] => Operation::TextCompletion,
        ["v2", "models", _, "generate" | "generate_stream"]
        | [
            "v2",
            "models",
            _,
            "versions",
            _,
            "generate" | "generate_stream",
        ] => Operation::TextCompletion,
        [.., "v1", "embeddings"] | ["embedding" | "embeddings"] => Operation::Embeddings,
        ["embed" | "embed_all" | "embed_sparse"] | ["api", "embed" | "embeddings"] => {
            Operation::Embeddings
        }
        [.., last] => match last.rsplit_once(':')?.1 {
            "generateContent" | "streamGenerateContent" => Operation::GenerateContent,
            _ => return None,
        },
        [] => return None,
    };
    Some(operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_selects_the_operation() {
        for (target, expected) in [
            ("/v1/chat/completions", Some("chat")),
            ("/openai/v1/chat/completions?x=1", Some("chat")),
            ("/v1/chat/completions/batch", Some("chat")),
            ("/v1/responses", Some("chat")),
            ("/v1/messages", Some("chat")),
            ("/v1/messages/count_tokens", None),
            ("/api/chat", Some("chat")),
            ("/v1/completions/", Some("text_completion")),
            ("/predictions/m/1.0/v1/completions", Some("text_completion")),
            ("/completion", Some("text_completion")),
            ("/generate_stream", Some("text_completion")),
            ("/api/generate", Some("text_completion")),
            ("http://h:1/v2/models/m/generate", Some("text_completion")),
            (
                "/v2/models/m/versions/1/generate_stream",
                Some("text_completion"),
            ),
            ("/v1/embeddings", Some("embeddings")),
            ("/embed", Some("embeddings")),
            ("/api/embed", Some("embeddings")),
            (
                "/v1beta/models/m:streamGenerateContent",
                Some("generate_content"),
            ),
            ("/v1/models/m:predict", None),
            ("/v2/models/m/infer", None),
            ("/predictions/m", None),
            ("/tokenize", None),
            ("/", None),
            ("", None),
            ("*", None),
        ] {
            let found = operation("POST", target).map(Operation::name);
            assert_eq!(found, expected, "{target}");
        }
    }

    #[test]
    fn only_what_is_posted_asks_a_model() {
        for method in ["GET", "HEAD", "OPTIONS", ""] {
            assert_eq!(operation(method, "/v1/chat/completions"), None, "{method}");
        }
    }
}
