//! Describes one streamed response: when it began, and the chunks it was sent in.
//!
//! A chunk is one piece of the response, of one or more tokens. Part of an `Observation`.
//! Does not depend on: records, metrics.

use crate::exchange::{Exchange, chunks::Framing};

/// A streamed response. Durations run from the request's first readable byte; `None` if either end was not observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// To the first byte of the response, also if that is a head without a body.
    pub first_byte_ns: Option<u64>,
    /// To the first chunk.
    pub first_chunk_ns: Option<u64>,
    /// To the last byte.
    pub duration_ns: Option<u64>,
    /// Number of chunks; `None` if the agent could not count them all.
    pub chunks: Option<u32>,
    /// Known times from one chunk to the next.
    pub gaps_ns: Vec<u64>,
    /// Number of unknown times from one chunk to the next.
    pub gaps_unknown: u32,
    /// Mean time from one chunk to the next; `None` if there are fewer than two chunks, or `chunks` is `None`.
    pub mean_gap_ns: Option<u64>,
    /// Whether the response's content type is an event stream.
    pub is_event_stream: bool,
}

impl Stream {
    /// Returns the stream of `exchange`; `None` if its response is not streamed.
    pub fn of(exchange: &Exchange) -> Option<Self> {
        let Exchange {
            request, response, ..
        } = exchange;
        let chunks = response
            .chunks
            .as_deref()
            .filter(|chunks| chunks.is_stream())?;
        let since_arrival = |ns: u64| Some(ns.saturating_sub(request.arrival_ns?));
        let first_write_ns = (!response.first_write_bounded).then_some(response.first_write_ns);
        Some(Self {
            first_byte_ns: first_write_ns.and_then(since_arrival),
            first_chunk_ns: chunks.first_ns().and_then(since_arrival),
            duration_ns: response.last_write_ns.and_then(since_arrival),
            chunks: chunks.is_counted().then(|| chunks.count()),
            gaps_ns: chunks.gaps_ns().to_vec(),
            gaps_unknown: chunks.gaps_unknown(),
            mean_gap_ns: chunks.mean_gap_ns(),
            is_event_stream: chunks.framing() == Framing::Events,
        })
    }

    /// Returns whether the response was certainly sent in pieces: some servers send every response as one chunk.
    pub fn is_incremental(&self) -> bool {
        self.is_event_stream || !self.gaps_ns.is_empty() || self.gaps_unknown > 0
    }
}

#[cfg(test)]
mod tests {
    use crate::{exchange::chunks::Chunks, exchange::fixtures::exchange};

    use super::*;

    fn streamed(framing: Framing, at_ns: &[u64]) -> Exchange {
        let mut chunks = Chunks::new(framing);
        for at_ns in at_ns {
            chunks.note(*at_ns);
        }
        let mut exchange = exchange();
        exchange.response.chunks = Some(Box::new(chunks));
        exchange
    }

    #[test]
    fn durations_run_from_the_arrival() {
        let stream = Stream::of(&streamed(Framing::Events, &[2_000, 2_600, 5_000]));
        let expected = Stream {
            first_byte_ns: Some(321),
            first_chunk_ns: Some(1_000),
            duration_ns: Some(4_321),
            chunks: Some(3),
            gaps_ns: vec![600, 2_400],
            gaps_unknown: 0,
            mean_gap_ns: Some(1_500),
            is_event_stream: true,
        };
        assert_eq!(stream, Some(expected));
    }

    #[test]
    fn times_not_observed_are_unknown() {
        let mut exchange = streamed(Framing::Chunks, &[2_000]);
        exchange.response.first_write_bounded = true;
        exchange.response.last_write_ns = None;
        exchange.response.chunks.as_mut().unwrap().lose_count();
        let stream = Stream::of(&exchange).unwrap();
        assert_eq!((stream.first_byte_ns, stream.duration_ns), (None, None));
        assert_eq!((stream.first_chunk_ns, stream.chunks), (Some(1_000), None));
        exchange.request.arrival_ns = None;
        assert_eq!(Stream::of(&exchange).unwrap().first_chunk_ns, None);
    }

    #[test]
    fn response_in_one_piece_is_not_incremental() {
        assert_eq!(Stream::of(&exchange()), None);
        assert_eq!(Stream::of(&streamed(Framing::Unsaid, &[2_000])), None);
        for (framing, at_ns, expected) in [
            (Framing::Chunks, &[2_000][..], false),
            (Framing::Chunks, &[2_000, 2_001], true),
            (Framing::Events, &[2_000], true),
        ] {
            let stream = Stream::of(&streamed(framing, at_ns)).unwrap();
            assert_eq!(stream.is_incremental(), expected, "{framing:?}");
        }
    }
}
