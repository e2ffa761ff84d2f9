//! Frames of HTTP/2 and the header blocks in them.

use inferprobe::protocol::{
    grpc,
    hpack::{Decoder, Field},
    http2::{Fault, FrameReader, Part},
};

/// Frames of either direction come to the same at any cut; a header block is read or refused.
pub fn http2_frames(data: &[u8]) {
    for reader in [FrameReader::client, FrameReader::server] {
        let (mut at_once, mut in_pieces) = (reader(), reader());
        let mut expected = Parts::default();
        let outcome = at_once.feed(data, |part| expected.push(&part));
        let mut found = Parts::default();
        let mut step = |piece| in_pieces.feed(piece, |part| found.push(&part));
        let outcome_in_pieces: Result<(), Fault> = crate::pieces(data).try_for_each(&mut step);
        assert_eq!(outcome_in_pieces, outcome);
        assert_eq!(found, expected);
        assert_eq!(in_pieces.is_joined(), at_once.is_joined());
        skipped(reader(), data);
    }
    blocks(data);
}

/// Bytes some of which were not captured: each piece that begins with an odd byte.
fn skipped(mut reader: FrameReader, data: &[u8]) {
    for piece in crate::pieces(data) {
        let outcome = match piece[0] & 1 {
            0 => reader.feed(piece, |_| {}),
            _ => reader.skip(piece.len() as u64 * 7, |_| {}),
        };
        if outcome.is_err() {
            return;
        }
    }
}

/// Header blocks, each with its length before it.
fn blocks(data: &[u8]) {
    for joined in [false, true] {
        let mut decoder = Decoder::default();
        if joined {
            decoder.join();
        }
        let mut rest = data;
        while let Some((&len, after)) = rest.split_first() {
            let (block, after) = after.split_at(usize::from(len).min(after.len()));
            rest = after;
            let read = decoder.read(block, |field| match field {
                Field::Wanted(_, value) => assert!(value.len() <= 1024),
                Field::Unknown => assert!(joined, "nothing went by before"),
            });
            if read.is_err() {
                break;
            }
        }
    }
}

/// What came, the content of a stream's DATA in one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    parts: Vec<String>,
    /// Stream and content of the DATA under way.
    content: Option<(u32, Vec<u8>)>,
}

impl Parts {
    fn push(&mut self, part: &Part<'_>) {
        if let Part::Data {
            stream,
            content: Some(content),
        } = part
        {
            assert!(!content.is_empty());
            let (of, gathered) = self.content.get_or_insert((*stream, Vec::new()));
            assert_eq!(of, stream, "one frame at a time");
            gathered.extend_from_slice(content);
            return;
        }
        if let Part::DataEnd { .. } = part {
            let content = self.content.take();
            let path = "/inference.GRPCInferenceService/ModelInfer";
            let named = content.and_then(|(_, content)| grpc::model_of(path, &content));
            self.parts.push(format!("{named:?}"));
        }
        self.parts.push(format!("{part:?}"));
    }
}
