//! Keeps what the connections of each listener showed, for those that do not show it themselves: how many session tickets
//! follow a handshake, and which protocol is spoken.
//!
//! Does not depend on: records, times.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::exchange::byte_accounting::ServingSocket;

/// Listeners that are known; beyond it, all are forgotten.
const LISTENER_CAP: usize = 4096;
/// Sizes of tickets that are known of a listener's handshakes of one kind.
const SIZE_CAP: usize = 16;

/// What decides which tickets follow a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandshakeKind {
    /// Whether a session was resumed.
    pub resumed: bool,
    /// Whether the client sent a certificate.
    pub client_certificate: bool,
}

/// The session tickets that follow the handshakes of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tickets {
    /// How many.
    pub count: u32,
    /// Bytes of their records.
    pub sizes: Vec<u32>,
}

/// Protocols that connections of a listener were seen to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpokenBefore {
    /// HTTP/1.
    pub http1: bool,
    /// HTTP/2.
    pub http2: bool,
}

#[derive(Debug, Default)]
struct Listener {
    tickets: HashMap<HandshakeKind, Tickets>,
    spoken: SpokenBefore,
}

/// The listeners, shared by all connections.
#[derive(Debug, Clone, Default)]
pub struct Listeners(Arc<Mutex<HashMap<ServingSocket, Listener>>>);

impl Listeners {
    /// Returns the tickets that follow such a handshake; `None` if that is not known yet.
    pub fn tickets(&self, socket: ServingSocket, kind: HandshakeKind) -> Option<Tickets> {
        self.with(socket, |listener| listener.tickets.get(&kind).cloned())
    }

    /// Whether any handshake of the listener was followed by a ticket of this size.
    pub fn has_ticket(&self, socket: ServingSocket, size: u32) -> bool {
        self.with(socket, |listener| {
            let mut known = listener.tickets.values();
            known.any(|tickets| tickets.sizes.contains(&size))
        })
    }

    /// Learns the sizes of all tickets that followed such a handshake.
    pub fn learn_tickets(&self, socket: ServingSocket, kind: HandshakeKind, sizes: &[u32]) {
        self.with(socket, |listener| {
            let known = listener.tickets.entry(kind).or_default();
            let count = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
            known.count = known.count.max(count);
            for size in sizes {
                if !known.sizes.contains(size) && known.sizes.len() < SIZE_CAP {
                    known.sizes.push(*size);
                }
            }
        });
    }

    /// Returns what connections of the listener spoke.
    pub fn spoken(&self, socket: ServingSocket) -> SpokenBefore {
        self.with(socket, |listener| listener.spoken)
    }

    /// Records that a connection of the listener speaks HTTP/2, or HTTP/1.
    pub fn note_spoken(&self, socket: ServingSocket, http2: bool) {
        self.with(socket, |listener| {
            listener.spoken.http1 |= !http2;
            listener.spoken.http2 |= http2;
        });
    }

    fn with<T>(&self, socket: ServingSocket, act: impl FnOnce(&mut Listener) -> T) -> T {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.len() >= LISTENER_CAP && !listeners.contains_key(&socket) {
            listeners.clear();
        }
        act(listeners.entry(socket).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: HandshakeKind = HandshakeKind {
        resumed: false,
        client_certificate: false,
    };

    #[test]
    fn tickets_are_learnt_by_listener_and_kind_of_handshake() {
        let listeners = Listeners::default();
        let socket = (1, Some(443));
        assert_eq!(listeners.tickets(socket, KIND), None);
        listeners.learn_tickets(socket, KIND, &[250, 250]);
        listeners.learn_tickets(socket, KIND, &[282, 282]);
        let known = Tickets {
            count: 2,
            sizes: vec![250, 282],
        };
        assert_eq!(listeners.tickets(socket, KIND), Some(known));
        let resumed = HandshakeKind {
            resumed: true,
            ..KIND
        };
        assert_eq!(listeners.tickets(socket, resumed), None);
        assert_eq!(listeners.tickets((2, Some(443)), KIND), None);
        assert!(listeners.has_ticket(socket, 282) && !listeners.has_ticket(socket, 99));
        listeners.learn_tickets(socket, resumed, &[]);
        assert_eq!(listeners.tickets(socket, resumed), Some(Tickets::default()));
    }

    #[test]
    fn listeners_and_sizes_are_bounded() {
        let listeners = Listeners::default();
        for size in 0..100 {
            listeners.learn_tickets((0, None), KIND, &[size]);
        }
        let known = listeners.tickets((0, None), KIND).unwrap();
        assert_eq!(known.sizes.len(), SIZE_CAP);
        for pid in 0..LISTENER_CAP as u32 {
            listeners.note_spoken((pid, None), false);
        }
        assert!(listeners.0.lock().unwrap().len() <= LISTENER_CAP);
        listeners.note_spoken((u32::MAX, None), true);
        assert_eq!(listeners.tickets((0, None), KIND), None);
        let expected = SpokenBefore {
            http1: false,
            http2: true,
        };
        assert_eq!(listeners.spoken((u32::MAX, None)), expected);
    }
}
