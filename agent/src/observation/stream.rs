//! What is known of one streamed answer: when it began, and the pieces that it came in.
//!
//! A piece is called a chunk here: whether it is a token, nothing here knows.

use crate::exchange::{Exchange, chunks::Framing};

/// A streamed answer. Durations run from the request's first readable byte; `None` where an end of one was not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// To the first byte of the answer, a head without a body included.
    pub first_byte_ns: Option<u64>,
    /// To the first chunk.
    pub first_chunk_ns: Option<u64>,
    /// To the last byte.
    pub duration_ns: Option<u64>,
    /// Chunks; `None` where they could not all be told apart.
    pub chunks: Option<u32>,
    /// Times from one chunk to the next, as far as they are known.
    pub gaps_ns: Vec<u64>,
    /// How many of them are not.
    pub gaps_unknown: u32,
    /// Mean time from one chunk to the next; `None` where there are not two, or `chunks` is not known.
    pub mean_gap_ns: Option<u64>,
    /// Whether the answer's head calls it an event stream.
    pub is_event_stream: bool,
}

impl Stream {
    /// The stream that `exchange` ended in; `None` where its answer is none.
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

    /// Whether it surely came piece by piece: one chunk alone is how some servers send any answer.
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
    fn what_was_not_seen_is_unknown() {
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
    fn an_response_in_one_piece_is_no_stream_or_not_surely_one() {
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
