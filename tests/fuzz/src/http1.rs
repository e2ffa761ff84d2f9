//! Heads of HTTP/1 and bodies in chunks.

use inferprobe::protocol::http1::{
    self, Parse,
    chunked::{self, ChunkWalk, Place, Walked},
};

/// Longest input whose every beginning is tried.
const EVERY_CUT: usize = 512;

/// A request's head reads the same however much follows it, and is partial wherever it is cut.
pub fn request_head(data: &[u8]) {
    let whole = http1::parse_request(data);
    let line = http1::parse_cut_request(data);
    if let Parse::Complete(head, len) = &whole {
        assert!((1..=data.len()).contains(len));
        assert_eq!(http1::parse_request(&data[..*len]), whole);
        let line = line.expect("a whole head has a whole line");
        assert_eq!(line, (head.method.clone(), head.target.clone()));
    }
    cuts(data, &whole, http1::parse_request);
}

/// An answer's head reads the same however much follows it, and is partial wherever it is cut.
pub fn response_head(data: &[u8]) {
    let whole = http1::parse_response(data);
    if let Parse::Complete(head, len) = &whole {
        assert!((1..=data.len()).contains(len));
        assert!((100..1000).contains(&head.status));
        assert_eq!(http1::parse_response(&data[..*len]), whole);
        assert_eq!(http1::status_of(&data[..12]), Some(head.status));
    }
    cuts(data, &whole, http1::parse_response);
}

/// What is invalid stays so whatever follows, and what is complete was partial before.
fn cuts<T: PartialEq>(data: &[u8], whole: &Parse<T>, parse: impl Fn(&[u8]) -> Parse<T>) {
    for end in 0..data.len().min(EVERY_CUT) {
        match (parse(&data[..end]), whole) {
            (Parse::Partial, _) | (Parse::Invalid, Parse::Invalid) => {}
            (Parse::Complete(..), Parse::Complete(_, len)) if end >= *len => {}
            _ => panic!("cut at {end}, it is something else"),
        }
    }
}

/// A body in chunks comes to the same at any cut.
pub fn chunked(data: &[u8]) {
    let total = data.len() as u64;
    let whole = ChunkWalk::default().feed(data, total);
    assert!(whole.taken <= total && whole.data_bytes + whole.missed_bytes <= whole.taken);
    assert!(whole.taken == total || whole.place == Place::Ended);
    let mut walk = ChunkWalk::default();
    let in_pieces = sum(crate::pieces(data).map(|piece| walk.feed(piece, piece.len() as u64)));
    assert_eq!(in_pieces, sum([whole]));
    assert_eq!(walk.is_lost(), whole.place == Place::Lost);
    let mut seen = 0;
    ChunkWalk::default().walk(data, total, |copied, bytes| {
        // Of what follows a lost position, only the length is known.
        assert!(copied.is_empty() || copied.len() as u64 == bytes);
        seen += bytes;
    });
    assert_eq!(seen, whole.data_bytes + whole.missed_bytes);
    // Half of it is not carried.
    let visible = &data[..data.len() / 2];
    let mut walk = ChunkWalk::default();
    let at_once = ChunkWalk::default().feed(visible, total);
    let behind = [
        walk.feed(visible, visible.len() as u64),
        walk.feed(&[], total - visible.len() as u64),
    ];
    assert_eq!(sum(behind), sum([at_once]));
    chunked::begins_chunk(data);
}

/// Bytes taken, of data, and missed; chunks.
fn sum(steps: impl IntoIterator<Item = Walked>) -> (u64, u64, u64, u32) {
    steps.into_iter().fold((0, 0, 0, 0), |sum, step| {
        (
            sum.0 + step.taken,
            sum.1 + step.data_bytes,
            sum.2 + step.missed_bytes,
            sum.3 + step.chunks,
        )
    })
}
