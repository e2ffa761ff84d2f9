//! Measures a connection of HTTP/2 over TLS, whose requests cannot be told apart: for how long it was busy.
//!
//! Does not depend on: the handshake, requests.

use crate::exchange::{tls::client_record::ClientRecord, writes::Writes};

/// Plaintext of frames that control the connection: SETTINGS that acknowledges, WINDOW_UPDATE, PING.
const CONTROL: [u32; 3] = [9, 13, 17];
/// Bytes of a frame's header, of a setting, and of WINDOW_UPDATE.
const FRAME_HEAD: u32 = 9;
const SETTING: u32 = 6;
const WINDOW_UPDATE: u32 = 13;
/// Most settings that a server begins with; eight would be as long as a session ticket without state.
const SETTINGS_CAP: u32 = 7;

/// Whether a record of so many bytes of plaintext is one frame that controls an HTTP/2 connection. A request of HTTP/1 begins
/// with more, and so does a response.
pub fn is_control(plaintext: u32) -> bool {
    CONTROL.contains(&plaintext)
}

/// Whether a record of so many bytes of plaintext may be the SETTINGS with which a server of HTTP/2 begins. Sent before any
/// request, no other record is as short.
pub fn may_be_settings(plaintext: u32) -> bool {
    let is_settings = |bytes: u32| {
        bytes >= FRAME_HEAD
            && (bytes - FRAME_HEAD).is_multiple_of(SETTING)
            && (bytes - FRAME_HEAD) / SETTING <= SETTINGS_CAP
    };
    is_settings(plaintext)
        || plaintext
            .checked_sub(WINDOW_UPDATE)
            .is_some_and(is_settings)
}

/// The busy time of one connection: from data of the client to the server's last data before the client's next.
#[derive(Debug, Default)]
pub struct Busy {
    /// First and last moment of the present time, ns.
    open: Option<(u64, Option<u64>)>,
}

impl Busy {
    /// Adds data of the client; returns the time that it ends, ns.
    pub fn read(&mut self, record: &ClientRecord) -> u64 {
        match self.open {
            Some((_, None)) => 0,
            _ => {
                let ended_ns = self.end();
                self.open = Some((record.first_read_ns, None));
                ended_ns
            }
        }
    }

    /// Adds data of the server.
    pub fn write(&mut self, writes: &Writes<'_>) {
        if let Some((_, until_ns)) = &mut self.open {
            *until_ns = Some(writes.end_ns);
        }
    }

    /// Ends the present time; returns how long it was, ns.
    pub fn end(&mut self) -> u64 {
        match self.open.take() {
            Some((from_ns, Some(until_ns))) => until_ns.saturating_sub(from_ns),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::tls::fixtures::{record_at, writes_at};

    #[test]
    fn control_frames_and_settings_are_known_by_their_length() {
        let control: Vec<u32> = (0..100).filter(|bytes| is_control(*bytes)).collect();
        assert_eq!(control, [9, 13, 17]);
        for bytes in [9, 15, 27, 33, 46, 51, 64] {
            assert!(may_be_settings(bytes), "{bytes}");
        }
        // Two of these are tickets without state, and the others those with state.
        for bytes in [0, 2, 5, 57, 70, 125, 233, 396] {
            assert!(!may_be_settings(bytes), "{bytes}");
        }
    }

    #[test]
    fn busy_time_runs_from_data_to_the_last_answer() {
        let mut busy = Busy::default();
        assert_eq!(busy.read(&record_at(100)), 0);
        assert_eq!(busy.read(&record_at(120)), 0);
        busy.write(&writes_at(150));
        busy.write(&writes_at(190));
        assert_eq!(busy.read(&record_at(1_000)), 90);
        assert_eq!(busy.end(), 0);
        busy.write(&writes_at(1_500));
        assert_eq!(busy.end(), 0);
    }
}
