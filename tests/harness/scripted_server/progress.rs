//! Tracks the progress of both ends of a scripted connection, and when each call on it was made.

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
    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.all().last().map_or(0, |done| done.place.end)
    }

    /// Records a call that moved the next `bytes`.
    pub fn add(&self, bytes: usize, call: Call) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = all.last().map_or(0, |done| done.place.end);
        let place = start..start + bytes;
        all.push(Done { place, call });
    }

    /// Returns the call that moved the byte at a position.
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

/// Progress of both directions.
#[derive(Debug, Default)]
pub struct Progress {
    /// The client's sends.
    pub sends: Line,
    /// The server's reads.
    pub reads: Line,
    /// The server's writes.
    pub writes: Line,
}
