//! Finds how many tokens a response used, by its own statement.
//!
//! Each API has its own names for the two numbers. The statement is in the last bytes of a response, seldom in the first.
//! Does not depend on: content.

use memchr::memmem;

use crate::protocol::generation::sparse_json::Sparse;

/// Tokens of one response; `None`: not stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the prompt, those from a cache included.
    pub input: Option<u64>,
    /// That were generated, those of reasoning included.
    pub output: Option<u64>,
}

impl Usage {
    /// Whether it states anything.
    pub fn is_stated(&self) -> bool {
        self.input.is_some() || self.output.is_some()
    }

    /// Adds a later statement of the same response. The numbers only grow: some servers state them with each event.
    pub fn update(&mut self, later: Self) {
        self.input = self.input.max(later.input);
        self.output = self.output.max(later.output);
    }

    /// Returns the first statement of both.
    fn or(self, other: Self) -> Self {
        match self.is_stated() {
            true => self,
            false => other,
        }
    }

    /// Returns what a response, or one event of it, states.
    pub(super) fn of(value: &Sparse<'_>) -> Self {
        of_members(value.get("usage"))
            .or(of_members(value.get("response").get("usage")))
            .or(of_members(value.get("message").get("usage")))
            .or(of_gemini(value.get("usageMetadata")))
            .or(of_members(value.get("meta_info")))
            .or(of_ollama(value))
            .or(of_llama_cpp(value))
            .or(of_tgi(value.get("details")))
            .or(of_members(value.get("x_groq").get("usage")))
            .or(of_cohere(value))
            .or(of_cohere(value.get("delta")))
            .or(of_cohere(value.get("response")))
    }
}

/// OpenAI, Anthropic, and who follows them. Anthropic counts the cached parts of a prompt apart.
fn of_members(usage: &Sparse<'_>) -> Usage {
    let number = |name| usage.get(name).number();
    let cached = ["cache_creation_input_tokens", "cache_read_input_tokens"];
    let cached: u64 = cached.into_iter().filter_map(number).sum();
    let uncached = number("input_tokens");
    Usage {
        input: number("prompt_tokens").or(uncached.map(|tokens| tokens.saturating_add(cached))),
        output: number("completion_tokens").or(number("output_tokens")),
    }
}

fn of_gemini(usage: &Sparse<'_>) -> Usage {
    let sum = |names: [&str; 2]| {
        let numbers = names
            .into_iter()
            .filter_map(|name| usage.get(name).number());
        numbers.reduce(u64::saturating_add)
    };
    Usage {
        input: sum(["promptTokenCount", "toolUsePromptTokenCount"]),
        output: sum(["candidatesTokenCount", "thoughtsTokenCount"]),
    }
}

fn of_ollama(value: &Sparse<'_>) -> Usage {
    Usage {
        input: value.get("prompt_eval_count").number(),
        output: value.get("eval_count").number(),
    }
}

fn of_llama_cpp(value: &Sparse<'_>) -> Usage {
    let timings = value.get("timings");
    let cached = timings.get("cache_n").number().unwrap_or(0);
    let prompt = timings.get("prompt_n").number();
    let stated = Usage {
        input: value.get("tokens_evaluated").number(),
        output: value.get("tokens_predicted").number(),
    };
    stated.or(Usage {
        input: prompt.map(|tokens| tokens.saturating_add(cached)),
        output: timings.get("predicted_n").number(),
    })
}

fn of_tgi(details: &Sparse<'_>) -> Usage {
    Usage {
        input: details.get("input_length").number(),
        output: details.get("generated_tokens").number(),
    }
}

fn of_cohere(value: &Sparse<'_>) -> Usage {
    let tokens_of = |name| of_members(value.get(name).get("tokens"));
    tokens_of("usage").or(tokens_of("meta"))
}

/// Members of which one begins what states the usage.
const BEGINNINGS: [&[u8]; 9] = [
    b"\"usage\"",
    b"\"usageMetadata\"",
    b"\"meta_info\"",
    b"\"prompt_eval_count\"",
    b"\"eval_count\"",
    b"\"tokens_predicted\"",
    b"\"timings\"",
    b"\"details\"",
    b"\"meta\"",
];

/// Finds the usage in the first bytes of a JSON object, whose other bytes are unknown: a member of the object itself.
pub fn usage_at_start(start: &[u8]) -> Usage {
    for name in [&b"\"usage\""[..], b"\"usageMetadata\""] {
        for at in memmem::find_iter(start, name) {
            if !is_outermost(&start[..at]) {
                continue;
            }
            let value = start[at + name.len()..].trim_ascii_start();
            let Some(value) = value.strip_prefix(b":") else {
                continue;
            };
            let mut values = serde_json::Deserializer::from_slice(value).into_iter::<Sparse<'_>>();
            if let Some(Ok(stated)) = values.next() {
                return of_members(&stated).or(of_gemini(&stated));
            }
        }
    }
    Usage::default()
}

/// Whether what follows `before` is a member of the outermost object.
fn is_outermost(before: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for byte in before {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    depth == 1 && !in_string
}

/// Finds the usage in the last bytes of a JSON object, whose other bytes are unknown.
///
/// A member counts if it belongs to the object itself, or to an object in it if `nested`. Within a string, the quotes
/// of a name are escaped, so such text is no member.
pub fn usage_at_end(end: &[u8], nested: bool) -> Usage {
    for name in BEGINNINGS {
        for at in memmem::find_iter(end, name) {
            let usage = usage_of_members(&end[at..], nested);
            if usage.is_stated() {
                return usage;
            }
        }
    }
    Usage::default()
}

/// Returns the usage in `members`, the last ones of an object, up to its end.
fn usage_of_members(members: &[u8], nested: bool) -> Usage {
    let object = [b"{", members].concat();
    let mut values = serde_json::Deserializer::from_slice(&object).into_iter::<Sparse<'_>>();
    let Some(Ok(value)) = values.next() else {
        return Usage::default();
    };
    let after = object[values.byte_offset()..].trim_ascii();
    let ends = match after.strip_prefix(b",") {
        _ if after.is_empty() => true,
        Some(outer) if nested => Sparse::parse(&[b"{", outer].concat()).is_some(),
        None if nested => after == b"}",
        _ => false,
    };
    match ends {
        true => Usage::of(&value),
        false => Usage::default(),
    }
}
