//! Names what a request may ask of a language model.
//!
//! The catalogue's APIs say which paths ask it; the `gen_ai` families are labelled by it.
//! Does not depend on: paths, which server it is.

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
