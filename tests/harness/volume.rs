//! Sends a large number of requests of mixed sizes over keep-alive connections, and aborts some of them.
//!
//! The bytes depend only on the numbers of the requests, so each run sends the same.

use std::collections::BTreeMap;

use crate::{
    client::{Connection, request},
    server::Place,
};

/// How much to send.
#[derive(Debug, Clone, Copy)]
pub struct Volume {
    /// Requests in all.
    pub requests: u32,
    /// Connections that are open at once.
    pub connections: u32,
    /// One request in this many is aborted.
    pub abort_every: u32,
}

/// What the client knows of the outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Responses that were read whole, by status.
    pub answered: BTreeMap<u16, u64>,
    /// Requests that were sent whole, on connections that were reset or closed before the response.
    pub left: u64,
    /// Requests of which a part was sent.
    pub cut: u64,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Answered,
    /// Sent whole, and reset before the response.
    Reset,
    /// Sent whole, and closed before the response.
    Closed,
    /// Reset in the middle of the body.
    CutAndReset,
    /// Closed in the middle of the body.
    CutAndClosed,
}

/// Sends all requests to `place`, one at a time on each connection.
///
/// # Panics
/// If the server does not respond as it must.
pub fn run(place: &Place, volume: Volume) -> Outcome {
    let open = || Connection::open(place).expect("the server listens");
    let mut clients: Vec<Connection> = (0..volume.connections).map(|_| open()).collect();
    let mut outcome = Outcome::default();
    let mut numbers = (0..volume.requests).peekable();
    while numbers.peek().is_some() {
        let mut open_ways = Vec::with_capacity(clients.len());
        for (client, number) in clients.iter_mut().zip(numbers.by_ref()) {
            let way = way_of(number, volume.abort_every);
            let bytes = bytes_of(number, way);
            let sent = match way {
                Way::CutAndReset | Way::CutAndClosed => bytes.len() - CUT_BYTES,
                _ => bytes.len(),
            };
            client.send(&bytes[..sent]).expect("the server reads");
            open_ways.push((number, way));
        }
        for (client, (number, way)) in clients.iter_mut().zip(open_ways) {
            if way == Way::Answered {
                let answer = client.receive(false).expect("the server answers");
                assert_eq!(answer.status, status_of(number), "request {number}");
                *outcome.answered.entry(answer.status).or_default() += 1;
                continue;
            }
            // The interim response means that the server has begun to read the request.
            let interim = client.receive_one(false).expect("an interim answer");
            assert_eq!(interim.status, 100);
            let old = std::mem::replace(client, open());
            match way {
                Way::Reset | Way::CutAndReset => old.reset().expect("a socket of ours"),
                _ => drop(old),
            }
            match way {
                Way::Reset | Way::Closed => outcome.left += 1,
                _ => outcome.cut += 1,
            }
        }
    }
    outcome
}

/// Bytes that an aborted request lacks.
const CUT_BYTES: usize = 100;

fn way_of(number: u32, abort_every: u32) -> Way {
    if number % abort_every != abort_every - 1 {
        return Way::Answered;
    }
    match number / abort_every % 4 {
        0 => Way::Reset,
        1 => Way::Closed,
        2 => Way::CutAndReset,
        _ => Way::CutAndClosed,
    }
}

/// Returns a pseudo-random number below `limit`.
fn mixed(number: u32, salt: u32, limit: u32) -> u32 {
    let bits = (number ^ salt).wrapping_mul(2_654_435_761);
    (bits ^ (bits >> 15)).wrapping_mul(2_246_822_519) % limit
}

/// Returns the length of a body: mostly short, one in a hundred a tenth of `most`, one in a thousand `most`.
fn size(number: u32, salt: u32, most: u32) -> u32 {
    match mixed(number, salt, 1000) {
        0 => most,
        1..=10 => most / 10,
        11..=300 => mixed(number, salt + 1, 3000),
        301..=400 => 0,
        _ => mixed(number, salt + 1, 300),
    }
}

fn status_of(number: u32) -> u16 {
    [200, 200, 200, 200, 201, 404, 500, 200][mixed(number, 5, 8) as usize]
}

fn bytes_of(number: u32, way: Way) -> Vec<u8> {
    let model = mixed(number, 7, 10);
    let status = status_of(number);
    let mut body_bytes = size(number, 11, 200_000) as usize;
    if way == Way::Answered {
        let answer_bytes = size(number, 13, 1_000_000);
        let target = format!("/v1/models/m{model}:predict?status={status}&body={answer_bytes}");
        return request("POST", &target, &[], &vec![b'x'; body_bytes]);
    }
    // Short enough that all of it can be read once the interim response comes. The server works until the client is
    // gone.
    body_bytes = CUT_BYTES + body_bytes.min(20_000);
    let target = format!("/v1/models/m{model}:predict?status={status}&sleep_ms=50");
    let fields = ["Expect: 100-continue"];
    request("POST", &target, &fields, &vec![b'x'; body_bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_mixed_and_a_tenth_is_aborted() {
        let sizes: Vec<u32> = (0..100_000)
            .map(|number| size(number, 11, 200_000))
            .collect();
        let count = |wanted: fn(u32) -> bool| sizes.iter().filter(|size| wanted(**size)).count();
        assert!((50..200).contains(&count(|size| size == 200_000)));
        assert!((500..1500).contains(&count(|size| size == 20_000)));
        assert!(count(|size| size < 3000) > 98_000);
        let aborted = (0..100_000).filter(|number| way_of(*number, 10) != Way::Answered);
        assert_eq!(aborted.count(), 10_000);
    }
}
