//! Says what one event, or one JSON value, of a response means: whether it has content, and what it states.
//!
//! Knows the APIs of OpenAI (chat, completions, responses), Anthropic, Gemini, Ollama, llama.cpp, TGI, SGLang and Triton,
//! which many servers offer.
//! Does not depend on: how the body is cut into parts.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::de::IgnoredAny;

use crate::protocol::generation::{
    Piece,
    sparse_json::Sparse,
    usage::{Usage, usage_at_end},
};

/// What a part of a response means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Whether it has text, reasoning, or a part of a tool call.
    pub has_content: bool,
    /// Whether it says why the generation ended: the last token may be there, also without content.
    pub ends: bool,
    /// Tokens that it states.
    pub usage: Usage,
    /// Number of responses to one prompt, as far as it shows; 0 if it does not.
    pub choices: u32,
    /// Whether its form is known. Otherwise the other fields say nothing.
    pub is_known: bool,
    /// What an event of unknown form that is a JSON object has in common with others of the same members; `None` of any other.
    pub shape: Option<u64>,
}

/// Names of events that only keep a connection open, or report what is no content.
const NO_CONTENT: [&[u8]; 5] = [b"ping", b"heartbeat", b"keepalive", b"keep-alive", b"error"];

impl Part {
    const KNOWN: Self = Self {
        has_content: false,
        ends: false,
        usage: Usage {
            input: None,
            output: None,
        },
        choices: 0,
        is_known: true,
        shape: None,
    };

    /// Returns what a piece means; `in_events`: it is an event.
    pub fn of(piece: Piece<'_>, in_events: bool) -> Self {
        match piece {
            Piece::Whole { name, data } => {
                let part = Self::of_whole(name, data);
                let has_shape = in_events && !part.is_known;
                let shape = has_shape.then(|| shape_of(data)).flatten();
                Self { shape, ..part }
            }
            Piece::End(end) => Self {
                usage: usage_at_end(end, in_events),
                ..Self::default()
            },
        }
    }

    fn of_whole(name: &[u8], data: &[u8]) -> Self {
        if NO_CONTENT.contains(&name) {
            return Self::KNOWN;
        }
        match Sparse::parse(data) {
            // Members without a known name are not kept.
            Some(Sparse::Map(members)) if members.is_empty() => Self {
                is_known: !data.contains(&b'"'),
                ..Self::KNOWN
            },
            Some(value) => Self::of_value(&value),
            None if data.trim_ascii_start().starts_with(b"{") => Self::default(),
            None => Self::of_text(data),
        }
    }

    /// An event that is no JSON is text, or OpenAI's mark of the end.
    fn of_text(data: &[u8]) -> Self {
        let data = data.trim_ascii();
        Self {
            has_content: !data.is_empty() && data != b"[DONE]",
            ..Self::KNOWN
        }
    }

    fn of_value(value: &Sparse<'_>) -> Self {
        let mut part = Self {
            usage: Usage::of(value),
            ..Self::KNOWN
        };
        match value {
            Sparse::Map(_) => part.read(value),
            Sparse::Text(text) => part.has_content = !text.is_empty(),
            _ => part.is_known = false,
        }
        part
    }

    fn read(&mut self, value: &Sparse<'_>) {
        let kind = value.get("type").text();
        if value.has("choices") {
            self.read_choices(value.get("choices").list());
        } else if value.has("candidates") || value.has("usageMetadata") {
            self.read_candidates(value.get("candidates").list());
        } else if !kind.is_empty() {
            self.read_typed(kind, value);
        } else if value.has("event_type") {
            self.read_cohere(value.get("event_type").text(), value);
        } else if value.has("token") {
            let token = value.get("token");
            self.has_content = token.get("text").is_filled() && !token.get("special").is_filled();
            self.ends = value.get("details").is_filled() || value.get("generated_text").is_filled();
        } else if value.has("text_output") {
            self.has_content = value.get("text_output").is_filled();
        } else if value.has("meta_info") {
            self.has_content = value.get("text").is_filled();
            self.ends = value.get("meta_info").get("finish_reason").is_filled();
        } else if matches!(value.get("message"), Sparse::Map(_)) {
            self.has_content = has_message(value.get("message"));
            self.ends = value.get("done").is_filled();
        } else if matches!(value.get("response"), Sparse::Text(_)) {
            self.has_content =
                value.get("response").is_filled() || value.get("thinking").is_filled();
            self.ends = value.get("done").is_filled();
        } else if matches!(value.get("content"), Sparse::Text(_)) {
            self.has_content = value.get("content").is_filled();
            self.ends = value.get("stop").is_filled();
        } else {
            self.is_known = self.usage.is_stated() || value.has("usage") || value.has("error");
        }
    }

    /// OpenAI's chat and completions.
    fn read_choices(&mut self, choices: &[Sparse<'_>]) {
        for choice in choices {
            let index = choice.get("index").number().unwrap_or(0);
            let number = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
            self.choices = self.choices.max(number);
            self.has_content |= choice.get("text").is_filled()
                || has_message(choice.get("delta"))
                || has_message(choice.get("message"));
            self.ends |= choice.get("finish_reason").is_filled();
        }
    }

    fn read_candidates(&mut self, candidates: &[Sparse<'_>]) {
        const CONTENT: [&str; 5] = [
            "text",
            "functionCall",
            "inlineData",
            "executableCode",
            "codeExecutionResult",
        ];
        for candidate in candidates {
            let parts = candidate.get("content").get("parts").list();
            let is_filled =
                |part: &Sparse<'_>| CONTENT.iter().any(|name| part.get(name).is_filled());
            self.has_content |= parts.iter().any(is_filled);
            self.ends |= candidate.get("finishReason").is_filled();
        }
        self.choices = u32::try_from(candidates.len()).unwrap_or(u32::MAX);
    }

    /// Cohere's chat of version 1: each JSON line has a type.
    fn read_cohere(&mut self, kind: &str, value: &Sparse<'_>) {
        self.has_content = kind == "tool-calls-chunk"
            || kind == "text-generation" && value.get("text").is_filled();
        self.ends = kind == "stream-end";
    }

    /// Anthropic's messages, OpenAI's responses and Cohere's chat: each event has a type.
    fn read_typed(&mut self, kind: &str, value: &Sparse<'_>) {
        let delta = value.get("delta");
        match kind {
            "content_block_delta" => {
                let names = ["text", "thinking", "partial_json"];
                self.has_content = names.iter().any(|name| delta.get(name).is_filled());
            }
            "content_block_start" => {
                let block = value.get("content_block");
                let is_call = block.get("type").text().ends_with("tool_use");
                self.has_content = is_call || block.get("text").is_filled();
            }
            "message_delta" => self.ends = delta.get("stop_reason").is_filled(),
            "content-delta" | "tool-plan-delta" => {
                let message = delta.get("message");
                let content = message.get("content");
                let names = ["text", "thinking"];
                self.has_content = names.iter().any(|name| content.get(name).is_filled())
                    || message.get("tool_plan").is_filled();
            }
            "tool-call-start" | "tool-call-delta" => self.has_content = true,
            "message-end" => self.ends = true,
            "message-start" | "content-start" | "content-end" | "tool-call-end"
            | "citation-start" | "citation-end" => {}
            "message_start" | "message_stop" | "content_block_stop" | "message" | "ping"
            | "error" => {}
            "response.output_item.added" => {
                self.has_content = value.get("item").get("type").text().ends_with("_call");
            }
            "response.completed" | "response.incomplete" | "response.failed" => self.ends = true,
            _ if kind.ends_with(".delta") => {
                self.has_content = delta.is_filled() || value.get("audio").is_filled();
            }
            _ if kind.starts_with("response.") => {}
            _ => self.is_known = self.usage.is_stated(),
        }
    }
}

/// Returns a number that JSON objects with the same members have in common; `None` if this is none.
fn shape_of(json: &[u8]) -> Option<u64> {
    let members: BTreeMap<Cow<'_, str>, IgnoredAny> = serde_json::from_slice(json).ok()?;
    let mut hasher = DefaultHasher::new();
    for name in members.keys() {
        name.hash(&mut hasher);
    }
    Some(hasher.finish())
}

/// Whether a message, or what is added to one, has content.
fn has_message(message: &Sparse<'_>) -> bool {
    const CONTENT: [&str; 8] = [
        "content",
        "reasoning_content",
        "reasoning",
        "thinking",
        "refusal",
        "audio",
        "tool_calls",
        "function_call",
    ];
    CONTENT.iter().any(|name| message.get(name).is_filled())
}
