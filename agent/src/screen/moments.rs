//! Computes durations of one request from its moments.
//!
//! Does not depend on: how they are shown.

use crate::api::requests::Request;

/// Returns how long a request took, ns; `None` if its arrival or its end is unknown.
pub(super) fn duration_ns(request: &Request) -> Option<u64> {
    Some(request.last_write_ns?.saturating_sub(request.arrival_ns?))
}

/// Returns the last moment that is known of a request, ns.
pub(super) fn end_ns(request: &Request) -> u64 {
    let written_ns = request.last_write_ns.or(request.first_write_ns);
    written_ns.unwrap_or(request.last_read_ns)
}

/// Returns the time to the first token, or else to the first chunk, ns.
pub(super) fn first_ns(request: &Request) -> Option<u64> {
    let token_ns = request.tokens.as_ref().and_then(|tokens| tokens.first_ns);
    token_ns.or_else(|| request.stream.as_ref()?.first_chunk_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::requests::{Stream, Tokens};

    #[test]
    fn unknown_moments_make_no_duration() {
        let mut request = Request {
            arrival_ns: Some(10),
            last_read_ns: 12,
            last_write_ns: Some(30),
            ..Request::default()
        };
        assert_eq!((duration_ns(&request), end_ns(&request)), (Some(20), 30));
        request.last_write_ns = None;
        assert_eq!((duration_ns(&request), end_ns(&request)), (None, 12));
        request.arrival_ns = None;
        request.last_write_ns = Some(30);
        assert_eq!(duration_ns(&request), None);
    }

    #[test]
    fn first_token_comes_before_first_chunk() {
        let mut request = Request::default();
        assert_eq!(first_ns(&request), None);
        request.stream = Some(Stream {
            first_chunk_ns: Some(5),
            ..Stream::default()
        });
        assert_eq!(first_ns(&request), Some(5));
        request.tokens = Some(Tokens {
            first_ns: Some(7),
            ..Tokens::default()
        });
        assert_eq!(first_ns(&request), Some(7));
    }
}
