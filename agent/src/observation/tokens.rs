//! Describes what a language model's response says about tokens: how many, when the first came, and how far apart they are.
//!
//! Part of an `Observation`.
//! Does not depend on: records, metrics.

use crate::{
    exchange::{Exchange, generation::Unknown},
    protocol::generation::usage::Usage,
};

/// A time that a response may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// It has none: there are too few tokens.
    None,
    /// It is known, ns.
    Known(u64),
    /// It could not be measured.
    Unknown,
}

impl Time {
    /// Returns the time, ns, if it is known.
    pub fn known_ns(self) -> Option<u64> {
        match self {
            Self::Known(ns) => Some(ns),
            Self::None | Self::Unknown => None,
        }
    }
}

impl From<Result<Option<u64>, Unknown>> for Time {
    fn from(time: Result<Option<u64>, Unknown>) -> Self {
        match time {
            Ok(Some(ns)) => Self::Known(ns),
            Ok(None) => Self::None,
            Err(_) => Self::Unknown,
        }
    }
}

/// The tokens of one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// How many, as far as the response states it.
    pub usage: Usage,
    /// Why it states none; `None` if it states some.
    pub usage_unknown: Option<Unknown>,
    /// Time from the request's first readable byte to the first token.
    pub first: Time,
    /// Mean time from one token to the next.
    pub gap: Time,
    /// Whether the response has no parts, so that its times say nothing about single tokens.
    pub is_one_value: bool,
}

impl Tokens {
    /// A response of which nothing is known.
    pub const UNREAD: Self = Self {
        usage: Usage {
            input: None,
            output: None,
        },
        usage_unknown: Some(Unknown::UnknownForm),
        first: Time::Unknown,
        gap: Time::Unknown,
        is_one_value: false,
    };

    /// Returns the tokens of the response of `exchange`; [`Tokens::UNREAD`] if it was not read.
    pub fn of(exchange: &Exchange) -> Self {
        let Some(generation) = exchange.response.generation.as_deref() else {
            return Self::UNREAD;
        };
        Self {
            usage: generation.usage(),
            usage_unknown: generation.usage_unknown(),
            first: match (generation.first_ns().into(), exchange.request.arrival_ns) {
                (Time::Known(ns), Some(arrival_ns)) => Time::Known(ns.saturating_sub(arrival_ns)),
                (Time::Known(_), None) => Time::Unknown,
                (time, _) => time,
            },
            gap: generation.token_gap_ns().into(),
            is_one_value: generation.is_one_value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        exchange::{fixtures::exchange, generation::Generation},
        protocol::content_type::BodyKind,
    };

    use super::*;

    fn responded(writes: &[(&[u8], u64)]) -> Exchange {
        let mut generation = Generation::of(Some(BodyKind::Events), false).unwrap();
        for (bytes, at_ns) in writes {
            generation.push(bytes, bytes.len() as u64, *at_ns);
        }
        let mut exchange = exchange();
        exchange.response.generation = Some(generation);
        exchange
    }

    #[test]
    fn the_first_token_is_timed_from_the_arrival() {
        let event = b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
        let mut exchange = responded(&[(event, 1_500), (event, 1_700)]);
        let tokens = Tokens::of(&exchange);
        assert_eq!(
            (tokens.first, tokens.gap),
            (Time::Known(500), Time::Known(200))
        );
        assert_eq!(tokens.usage_unknown, Some(Unknown::NotStated));
        exchange.request.arrival_ns = None;
        let tokens = Tokens::of(&exchange);
        assert_eq!(
            (tokens.first, tokens.gap),
            (Time::Unknown, Time::Known(200))
        );
    }

    #[test]
    fn a_response_that_was_not_read_is_unknown() {
        assert_eq!(Tokens::of(&exchange()), Tokens::UNREAD);
    }
}
