//! How far both ends of a scripted connection are, and when each call on it was made.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use crate::server::stamps::Call;

/// A read or a write of the server, or a send of the client.
#[derive(Debug, Clone)]
pub struct Done {
    /// Which bytes of its direction.
    pub place: Range<usize>,
    /// When.
    pub call: Call,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Line(Mutex<Vec<Done>>);

impl Line {
    /// Bytes that went by.
    pub fn bytes(&self) -> usize {
        self.all().last().map_or(0, |done| done.place.end)
    }

    /// Notes a call that took the next `bytes`.
    pub fn add(&self, bytes: usize, call: Call) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = all.last().map_or(0, |done| done.place.end);
        let place = start..start + bytes;
        all.push(Done { place, call });
    }

    /// The call that the byte at a place went by in.
    pub fn call_of(&self, at: usize) -> Option<Call> {
        let all = self.all();
        let done = all.iter().find(|done| done.place.contains(&at));
        done.map(|done| done.call)
    }

    fn all(&self) -> Vec<Done> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }
}

/// Both directions, as far as they are.
#[derive(Debug, Default)]
pub struct Progress {
    /// The client's sends.
    pub sends: Line,
    /// The server's reads.
    pub reads: Line,
    /// The server's writes.
    pub writes: Line,
}
