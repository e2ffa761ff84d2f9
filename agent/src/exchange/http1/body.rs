//! Finds the model that the beginning of a request's body names.
//!
//! Keeps the first bytes for as long as they may still name it.
//! Does not depend on: the request's head.

use crate::protocol::{
    http1::chunked,
    json_model::{self, BodyModel},
};

/// Bytes of a body that are searched.
const SEARCH_CAP: usize = 2048;

/// The beginning of a body.
#[derive(Debug)]
pub struct BodyStart {
    kept: Vec<u8>,
    /// Whether the bytes are chunked.
    chunked: bool,
    /// Whether the search is over.
    done: bool,
}

impl BodyStart {
    /// Starts before the first byte of a body.
    pub const fn new(chunked: bool) -> Self {
        Self {
            kept: Vec::new(),
            chunked,
            done: false,
        }
    }

    /// Makes one for no body, or for one whose beginning was not copied.
    pub const fn over() -> Self {
        Self {
            kept: Vec::new(),
            chunked: false,
            done: true,
        }
    }

    /// Adds the next `bytes` of the body, of which `visible` were copied; returns the model once, when it is found.
    pub fn push(&mut self, visible: &[u8], bytes: u64) -> Option<String> {
        if self.done {
            return None;
        }
        let visible = match usize::try_from(bytes) {
            Ok(bytes) if bytes < visible.len() => &visible[..bytes],
            _ => visible,
        };
        let room = SEARCH_CAP - self.kept.len();
        let visible_bytes = visible.len() as u64;
        self.kept
            .extend_from_slice(&visible[..visible.len().min(room)]);
        let verdict = match self.chunked {
            true => json_model::model_in(&chunked::data_of(&self.kept)),
            false => json_model::model_in(&self.kept),
        };
        let is_over = self.kept.len() >= SEARCH_CAP || visible_bytes < bytes;
        self.done = is_over || verdict != BodyModel::Unknown;
        if self.done {
            self.kept = Vec::new();
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
            .filter_map(|part| start.push(part, part.len() as u64))
            .collect()
    }

    #[test]
    fn a_body_in_pieces_names_its_model_once() {
        for cut in 0..BODY.len() {
            let mut start = BodyStart::new(false);
            let (first, second) = BODY.split_at(cut);
            assert_eq!(taken(&mut start, &[first, second, BODY]), ["m"], "{cut}");
            assert!(start.done && start.kept.capacity() == 0);
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
    fn bytes_after_a_gap_are_not_searched() {
        let mut start = BodyStart::new(false);
        assert_eq!(start.push(b"{\"a\":\"", 100), None);
        assert_eq!(start.push(b"b\",\"model\":\"m\"}", 15), None);
        let mut start = BodyStart::new(false);
        assert_eq!(start.push(BODY, 20), None);
    }

    #[test]
    fn search_ends_after_two_kilobytes() {
        let long = [&b"{\"a\":\""[..], &[b'x'; 2_050]].concat();
        let mut start = BodyStart::new(false);
        assert!(taken(&mut start, &[&long, b"\",\"model\":\"m\"}"]).is_empty());
        let mut start = BodyStart::new(false);
        assert!(taken(&mut start, &[&long[..2_000]]).is_empty());
        assert_eq!(start.kept.len(), 2_000);
        let named = taken(&mut start, &[b"\",\"model\":\"m\"}"]);
        assert_eq!(named, ["m"]);
    }
}
