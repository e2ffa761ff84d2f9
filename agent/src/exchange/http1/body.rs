//! The beginning of a request's body, kept for as long as it may still name the model.

use crate::protocol::{
    http1::chunked,
    json_model::{self, BodyModel},
};

/// Bytes of a body that are looked at.
const LOOK_CAP: usize = 2048;

/// What came of a body.
#[derive(Debug)]
pub struct BodyStart {
    seen: Vec<u8>,
    /// Whether the bytes are those of chunks.
    chunked: bool,
    /// Whether nothing more is to be looked at.
    done: bool,
}

impl BodyStart {
    /// Nothing of a body yet.
    pub const fn new(chunked: bool) -> Self {
        Self {
            seen: Vec::new(),
            chunked,
            done: false,
        }
    }

    /// No body, or one that was not seen from its beginning.
    pub const fn over() -> Self {
        Self {
            seen: Vec::new(),
            chunked: false,
            done: true,
        }
    }

    /// Takes in the next `bytes` of the body, of which these can be seen; gives the model once, when it is found.
    pub fn take(&mut self, visible: &[u8], bytes: u64) -> Option<String> {
        if self.done {
            return None;
        }
        let visible = match usize::try_from(bytes) {
            Ok(bytes) if bytes < visible.len() => &visible[..bytes],
            _ => visible,
        };
        let room = LOOK_CAP - self.seen.len();
        let visible_bytes = visible.len() as u64;
        self.seen
            .extend_from_slice(&visible[..visible.len().min(room)]);
        let verdict = match self.chunked {
            true => json_model::model_in(&chunked::data_of(&self.seen)),
            false => json_model::model_in(&self.seen),
        };
        let is_over = self.seen.len() >= LOOK_CAP || visible_bytes < bytes;
        self.done = is_over || verdict != BodyModel::Unknown;
        if self.done {
            self.seen = Vec::new();
        }
        match verdict {
            BodyModel::Named(model) => Some(model),
            BodyModel::Absent | BodyModel::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"messages":[{"role":"user"}],"model":"m"}"#;

    fn taken(start: &mut BodyStart, parts: &[&[u8]]) -> Vec<String> {
        parts
            .iter()
            .filter_map(|part| start.take(part, part.len() as u64))
            .collect()
    }

    #[test]
    fn a_body_in_pieces_names_its_model_once() {
        for cut in 0..BODY.len() {
            let mut start = BodyStart::new(false);
            let (first, second) = BODY.split_at(cut);
            assert_eq!(taken(&mut start, &[first, second, BODY]), ["m"], "{cut}");
            assert!(start.done && start.seen.capacity() == 0);
        }
    }

    #[test]
    fn chunks_are_put_together() {
        let chunked = b"5;x=y\r\n{\"mod\r\n9\r\nel\":\"m\",\"\r\n3\r\na\":\r\n";
        for cut in 0..chunked.len() {
            let (first, second) = chunked.split_at(cut);
            let mut start = BodyStart::new(true);
            assert_eq!(taken(&mut start, &[first, second]), ["m"], "{cut}");
        }
    }

    #[test]
    fn what_lies_behind_unseen_bytes_is_not_looked_at() {
        let mut start = BodyStart::new(false);
        assert_eq!(start.take(b"{\"a\":\"", 100), None);
        assert_eq!(start.take(b"b\",\"model\":\"m\"}", 15), None);
        let mut start = BodyStart::new(false);
        assert_eq!(start.take(BODY, 20), None);
    }

    #[test]
    fn no_more_than_the_first_two_kilobytes_are_looked_at() {
        let long = [&b"{\"a\":\""[..], &[b'x'; 2_050]].concat();
        let mut start = BodyStart::new(false);
        assert!(taken(&mut start, &[&long, b"\",\"model\":\"m\"}"]).is_empty());
        let mut start = BodyStart::new(false);
        assert!(taken(&mut start, &[&long[..2_000]]).is_empty());
        assert_eq!(start.seen.len(), 2_000);
        let named = taken(&mut start, &[b"\",\"model\":\"m\"}"]);
        assert_eq!(named, ["m"]);
    }
}
