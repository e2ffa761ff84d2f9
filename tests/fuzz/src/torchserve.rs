//! Frames between TorchServe's frontend and its workers.

use std::fmt::Debug;

use inferprobe::torchserve::frames::{
    FrameGrammar, WorkerFrameReader, command::CommandReader, reply::ReplyReader,
};

/// Frames of either direction come to the same at any cut.
pub fn torchserve_frames(data: &[u8]) {
    direction(CommandReader::default, data);
    direction(ReplyReader::default, data);
}

fn direction<G: FrameGrammar>(reader: impl Fn() -> WorkerFrameReader<G>, data: &[u8])
where
    G::Frame: Debug + PartialEq,
{
    let (mut at_once, mut in_pieces) = (reader(), reader());
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    let outcome = at_once.feed(data, &mut expected);
    let mut step = |piece| in_pieces.feed(piece, &mut found);
    let outcome_in_pieces = crate::pieces(data).try_for_each(&mut step);
    assert_eq!(outcome_in_pieces, outcome);
    assert_eq!(found, expected);
    assert_eq!(in_pieces.end(), at_once.end());

    // Each piece that begins with an odd byte was not captured.
    let mut holed = reader();
    for piece in crate::pieces(data) {
        let outcome = match piece[0] & 1 {
            0 => holed.feed(piece, &mut found),
            _ => holed.skip(piece.len() as u64 * 7, &mut found),
        };
        if outcome.is_err() {
            holed.end();
        }
    }
}
