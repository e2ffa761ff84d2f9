//! Sums up streamed responses: times, chunks, and the values that were unknown.
//!
//! A chunk is a part of the body that the server sent separately.
//! Does not depend on: how a chunk was observed.

use crate::{
    identity::Identity,
    metrics::{
        encode::{Samples, Value},
        families,
        histogram::{CHUNKS, Histogram},
    },
    observation::{
        Session, Stream,
        tokens::{Time, Tokens},
    },
};

/// Streamed responses of one model and server.
#[derive(Debug)]
pub(super) struct Streams {
    first_byte: Histogram,
    first_chunk: Histogram,
    gap: Histogram,
    duration: Histogram,
    chunks: Histogram,
}

/// Values of streamed responses that could not be measured.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    first_byte: u64,
    first_chunk: u64,
    gap: u64,
    duration: u64,
    chunks: u64,
    first_token: u64,
    token_gap: u64,
    /// Sessions.
    messages: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            first_byte: Histogram::default(),
            first_chunk: Histogram::default(),
            gap: Histogram::default(),
            duration: Histogram::default(),
            chunks: Histogram::new(&CHUNKS),
        }
    }
}

impl Streams {
    /// Adds one streamed response.
    pub(super) fn add(&mut self, stream: &Stream) {
        for (histogram, ns) in [
            (&mut self.first_byte, stream.first_byte_ns),
            (&mut self.first_chunk, stream.first_chunk_ns),
            (&mut self.duration, stream.duration_ns),
        ] {
            if let Some(ns) = ns {
                histogram.observe_ns(ns);
            }
        }
        for ns in &stream.gaps_ns {
            self.gap.observe_ns(*ns);
        }
        if let Some(chunks) = stream.chunks {
            self.chunks.observe_count(chunks.into());
        }
    }

    /// Adds every series of `identity` to `samples`.
    pub(super) fn collect(&self, identity: &Identity, samples: &mut Samples) {
        let Identity {
            model,
            version,
            server,
            replica,
        } = identity;
        for (family, histogram) in [
            (&families::STREAM_FIRST_BYTE, &self.first_byte),
            (&families::STREAM_FIRST_CHUNK, &self.first_chunk),
            (&families::STREAM_GAP, &self.gap),
            (&families::STREAM_DURATION, &self.duration),
            (&families::STREAM_CHUNKS, &self.chunks),
        ] {
            samples.push_histogram_of(replica, family, &[model, version, server], histogram);
        }
    }
}

impl Unknown {
    /// Adds one session.
    pub(super) fn add_session(&mut self, session: &Session) {
        let messages = session.messages;
        let is_unknown = messages.received.is_none() || messages.sent.is_none();
        self.messages += u64::from(is_unknown);
    }

    /// Adds the unknown values of one streamed response.
    pub(super) fn add(&mut self, stream: &Stream) {
        self.first_byte += u64::from(stream.first_byte_ns.is_none());
        self.first_chunk += u64::from(stream.first_chunk_ns.is_none());
        self.gap += u64::from(stream.gaps_unknown);
        self.duration += u64::from(stream.duration_ns.is_none());
        self.chunks += u64::from(stream.chunks.is_none());
    }

    /// Adds the unknown times of a language model's streamed response.
    pub(super) fn add_tokens(&mut self, tokens: &Tokens) {
        self.first_token += u64::from(tokens.first == Time::Unknown);
        self.token_gap += u64::from(tokens.gap == Time::Unknown);
    }

    /// Adds every series to `samples`.
    pub(super) fn collect(&self, samples: &mut Samples) {
        for (figure, count) in [
            ("chunk_gap", self.gap),
            ("chunks", self.chunks),
            ("duration", self.duration),
            ("messages", self.messages),
            ("time_per_output_token", self.token_gap),
            ("time_to_first_byte", self.first_byte),
            ("time_to_first_chunk", self.first_chunk),
            ("time_to_first_token", self.first_token),
        ] {
            samples.push(&families::STREAM_UNKNOWN, &[figure], Value::Integer(count));
        }
    }
}
