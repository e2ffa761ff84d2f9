//! Plays a recording: a position that moves with time, stops, and can be moved.
//!
//! The screen and the page of one program share a player, so that both show the same moment.
//! Does not depend on: the clock, which is an argument; what is shown.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{
    api::{
        Source,
        history::{History, Wanted},
        live::Live,
        requests::Requests,
    },
    recording::content::Recording,
};

/// A recording that is played.
#[derive(Debug, Clone)]
pub struct Player {
    recording: Arc<Recording>,
    position: Arc<Mutex<Position>>,
}

/// Where a recording is played.
#[derive(Debug, Clone, Copy)]
struct Position {
    /// Where it was at `since`, ms.
    at_ms: u64,
    /// When it was there; `None`: it stands still.
    since: Option<Instant>,
    /// Whether it begins again at its end.
    repeats: bool,
    /// How often it went back: then what was known is no longer known, as if the agent had been restarted.
    turns: u64,
}

impl Player {
    /// Begins to play at the start.
    pub fn new(recording: Recording, repeats: bool, now: Instant) -> Self {
        Self {
            recording: Arc::new(recording),
            position: Arc::new(Mutex::new(Position {
                at_ms: 0,
                since: Some(now),
                repeats,
                turns: 0,
            })),
        }
    }

    /// Moves to the end, and stops there.
    pub fn end(&self) {
        let mut position = self.position();
        position.at_ms = self.length_ms();
        position.since = None;
    }

    /// Returns the length of the recording, ms.
    pub fn length_ms(&self) -> u64 {
        self.recording.length_ms()
    }

    /// Returns the recording.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Returns where it is played, ms.
    pub fn at_ms(&self, now: Instant) -> u64 {
        self.turned(now).0
    }

    /// Moves forward or back by `ms`.
    pub fn seek(&self, ms: i64, now: Instant) {
        let (at_ms, _) = self.turned(now);
        let mut position = self.position();
        position.at_ms = at_ms.saturating_add_signed(ms).min(self.length_ms());
        position.since = position.since.map(|_| now);
        if position.at_ms < at_ms {
            position.turns += 1;
        }
    }

    /// Stops, or goes on.
    pub fn pause(&self, is_paused: bool, now: Instant) {
        let (at_ms, _) = self.turned(now);
        let mut position = self.position();
        position.at_ms = at_ms;
        position.since = (!is_paused).then_some(now);
    }

    /// Returns what was known at the position.
    pub fn live(&self, now: Instant) -> Live {
        let (at_ms, turns) = self.turned(now);
        let mut live = self.recording.live(at_ms).clone();
        turn(&mut live.source, turns);
        live
    }

    /// Returns the requests after request number `after` that had finished at the position; at most `limit`, and the latest ones if it is `None`.
    pub fn requests(&self, after: Option<u64>, limit: usize, now: Instant) -> Requests {
        let (at_ms, turns) = self.turned(now);
        let mut requests = self.recording.requests(at_ms, after, limit);
        turn(&mut requests.source, turns);
        requests
    }

    /// Returns the windows that are wanted, at the position.
    pub fn history(&self, wanted: &Wanted, now: Instant) -> History {
        let (at_ms, turns) = self.turned(now);
        let mut history = self.recording.history(at_ms, wanted);
        turn(&mut history.source, turns);
        history
    }

    /// Returns the position, and how often it went back.
    fn turned(&self, now: Instant) -> (u64, u64) {
        let length_ms = self.length_ms();
        let mut position = self.position();
        let Some(since) = position.since else {
            return (position.at_ms, position.turns);
        };
        let played_ms = u64::try_from(now.saturating_duration_since(since).as_millis());
        let at_ms = position.at_ms.saturating_add(played_ms.unwrap_or(u64::MAX));
        if at_ms > length_ms && position.repeats {
            position.at_ms = 0;
            position.since = Some(now);
            position.turns += 1;
            return (0, position.turns);
        }
        (at_ms.min(length_ms), position.turns)
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks an answer as one of another run.
fn turn(source: &mut Source, turns: u64) {
    source.started_ns = source.started_ns.wrapping_add(turns);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::recording::file::Writer;

    fn player(repeats: bool, now: Instant) -> Player {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        for at_s in 0..=20 {
            let mut live = Live::default();
            live.source.now_ns = at_s * 1_000_000_000;
            live.source.started_ns = 7;
            writer.live(live).unwrap();
        }
        let recording = Recording::read(file.as_slice()).unwrap();
        Player::new(recording, repeats, now)
    }

    fn at(player: &Player, now: Instant) -> (u64, u64) {
        let source = player.live(now).source;
        (source.now_ns / 1_000_000_000, source.started_ns)
    }

    #[test]
    fn position_moves_with_time_and_stops_at_the_end() {
        let start = Instant::now();
        let s = |seconds| start + Duration::from_secs(seconds);
        let player = player(false, start);
        assert_eq!(at(&player, s(3)), (3, 7));
        player.pause(true, s(4));
        assert_eq!(at(&player, s(9)), (4, 7));
        player.pause(false, s(10));
        assert_eq!(at(&player, s(12)), (6, 7));
        player.seek(10_000, s(12));
        assert_eq!(at(&player, s(13)), (17, 7));
        assert_eq!(at(&player, s(99)), (20, 7));
        player.seek(-10_000, s(99));
        assert_eq!(at(&player, s(100)), (11, 8));
        player.seek(-99_000, s(100));
        assert_eq!(at(&player, s(100)), (0, 9));
        player.end();
        assert_eq!(at(&player, s(100)), (20, 9));
    }

    #[test]
    fn a_demo_begins_again_as_another_run() {
        let start = Instant::now();
        let s = |seconds| start + Duration::from_secs(seconds);
        let player = player(true, start);
        assert_eq!(at(&player, s(19)), (19, 7));
        assert_eq!(at(&player, s(21)), (0, 8));
        assert_eq!(at(&player, s(23)), (2, 8));
    }
}
