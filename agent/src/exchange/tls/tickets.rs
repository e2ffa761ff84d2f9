//! Tells session tickets from responses: in TLS 1.3, both are records of data.
//!
//! A server sends its tickets when it has read the client's Finished. If the first request was read with it, only their number
//! and their sizes tell them from a response, and that a response follows.
//! Does not depend on: requests, records.

use crate::exchange::{
    byte_accounting::ServingSocket,
    tls::listeners::{HandshakeKind, Listeners, Tickets},
};

/// Tickets that are learnt of one handshake.
const TICKET_CAP: usize = 16;

/// What is known of the tickets of one connection.
#[derive(Debug)]
pub struct TicketCheck {
    listeners: Listeners,
    socket: ServingSocket,
    kind: HandshakeKind,
    /// When the server had read the client's Finished, ns.
    finished_ns: u64,
    state: State,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A ticket.
    Ticket,
    /// A ticket, if a response follows; else that response.
    Likely,
    /// Part of a response.
    Response,
}

#[derive(Debug)]
enum State {
    /// Before the first request: records of these sizes were tickets.
    Before(Vec<u32>),
    /// After the first request, before its response: a record of the server may be a ticket. `known`: what followed other
    /// handshakes; `is_apart`: whether the request was read after the Finished; `sizes`: the tickets so far.
    Between {
        known: Option<Tickets>,
        is_apart: bool,
        sizes: Vec<u32>,
    },
    /// It is unknown which of the records so far were tickets.
    Doubtful,
    /// All tickets were sent.
    Over,
}

impl TicketCheck {
    /// Starts when the server had read the client's Finished, at `finished_ns`.
    pub fn new(
        listeners: Listeners,
        socket: ServingSocket,
        kind: HandshakeKind,
        finished_ns: u64,
    ) -> Self {
        Self {
            listeners,
            socket,
            kind,
            finished_ns,
            state: State::Before(Vec::new()),
        }
    }

    /// Starts where no tickets follow.
    pub fn over(listeners: Listeners, socket: ServingSocket) -> Self {
        let kind = HandshakeKind {
            resumed: false,
            client_certificate: false,
        };
        Self {
            state: State::Over,
            ..Self::new(listeners, socket, kind, 0)
        }
    }

    /// Adds a record that the server sent before any request: a ticket.
    pub fn on_unasked(&mut self, size: u32) {
        if let State::Before(sizes) = &mut self.state
            && sizes.len() < TICKET_CAP
        {
            sizes.push(size);
        }
    }

    /// Records that the server read a record of a request, the first byte of it at `first_read_ns`. Records that the
    /// server sent before are its tickets.
    pub fn on_request(&mut self, first_read_ns: u64) {
        let State::Before(sizes) = &mut self.state else {
            return;
        };
        if !sizes.is_empty() {
            self.listeners.learn_tickets(self.socket, self.kind, sizes);
            self.state = State::Over;
            return;
        }
        self.state = State::Between {
            known: self.listeners.tickets(self.socket, self.kind),
            is_apart: first_read_ns > self.finished_ns,
            sizes: Vec::new(),
        };
    }

    /// Tells what a record of `size` bytes is that the server writes before any other of the response; `next` is the size of the
    /// next record in the same write.
    pub fn tell(&mut self, size: u32, next: Option<u32>) -> Told {
        let State::Between {
            known,
            is_apart,
            sizes,
        } = &mut self.state
        else {
            return Told::Response;
        };
        let is_same = sizes.last() == Some(&size);
        let is_paired = next == Some(size);
        let seen = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
        let told = match known {
            Some(tickets) if seen >= tickets.count => Some(Told::Response),
            Some(tickets) if tickets.sizes.contains(&size) || is_same => Some(Told::Ticket),
            Some(tickets) if tickets.count > 1 && is_paired => Some(Told::Ticket),
            Some(_) => None,
            None if is_same => Some(Told::Likely),
            None if seen > 0 => Some(Told::Response),
            None if is_paired || self.listeners.has_ticket(self.socket, size) => Some(Told::Likely),
            // In most cases its tickets would have come before the request.
            None if *is_apart => Some(Told::Response),
            None => None,
        };
        match told {
            Some(told @ (Told::Ticket | Told::Likely)) if sizes.len() < TICKET_CAP => {
                sizes.push(size);
                return told;
            }
            Some(_) => {
                self.listeners.learn_tickets(self.socket, self.kind, sizes);
                self.state = State::Over;
            }
            None => self.state = State::Doubtful,
        }
        Told::Response
    }

    /// Records that likely tickets were tickets.
    pub fn on_likely(&mut self) {
        if let State::Between { sizes, .. } = &self.state {
            self.listeners.learn_tickets(self.socket, self.kind, sizes);
            self.state = State::Over;
        }
    }

    /// Whether the response that has begun may have begun with tickets.
    pub fn is_doubtful(&self) -> bool {
        matches!(self.state, State::Doubtful)
    }

    /// Records that the first response ended.
    pub fn on_finished(&mut self) {
        self.state = State::Over;
    }
}

#[cfg(test)]
mod tests {
    use super::{Told::*, *};

    const SOCKET: ServingSocket = (7, Some(443));
    const KIND: HandshakeKind = HandshakeKind {
        resumed: false,
        client_certificate: false,
    };

    fn check(listeners: &Listeners) -> TicketCheck {
        TicketCheck::new(listeners.clone(), SOCKET, KIND, 1_000)
    }

    /// What each of these records of one write is, after a request that came with the Finished, and whether that is doubtful.
    fn told(listeners: &Listeners, sizes: &[u32]) -> (Vec<Told>, bool) {
        let mut check = check(listeners);
        check.on_request(1_000);
        let mut told = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            told.push(check.tell(*size, sizes.get(index + 1).copied()));
        }
        (told, check.is_doubtful())
    }

    /// Lets a connection without a request at its Finished send these tickets.
    fn learn(listeners: &Listeners, sizes: &[u32]) {
        let mut check = check(listeners);
        for size in sizes {
            check.on_unasked(*size);
        }
        check.on_request(1_400);
        assert_eq!(check.tell(251, None), Response);
    }

    #[test]
    fn two_of_equal_size_are_tickets_if_a_response_follows() {
        let listeners = Listeners::default();
        let expected = (vec![Likely, Likely, Response], false);
        assert_eq!(told(&listeners, &[250, 250, 142]), expected);
        // They are known from then on.
        let expected = (vec![Ticket, Ticket, Response], false);
        assert_eq!(told(&listeners, &[250, 250, 142]), expected);
    }

    #[test]
    fn one_record_of_an_unknown_listener_is_doubtful() {
        let listeners = Listeners::default();
        assert_eq!(told(&listeners, &[250]), (vec![Response], true));
        assert!(told(&listeners, &[250, 57]).1);
        // Unless another kind of handshake had tickets of this size.
        let resumed = HandshakeKind {
            resumed: true,
            ..KIND
        };
        listeners.learn_tickets(SOCKET, resumed, &[250]);
        assert_eq!(
            told(&listeners, &[250, 57]),
            (vec![Likely, Response], false)
        );
    }

    #[test]
    fn learnt_tickets_are_known_by_number_and_size() {
        let listeners = Listeners::default();
        learn(&listeners, &[266]);
        let expected = (vec![Ticket, Response], false);
        assert_eq!(told(&listeners, &[266, 142]), expected);
        assert_eq!(told(&listeners, &[142, 57]), (vec![Response; 2], true));
        learn(&listeners, &[250, 250]);
        let expected = (vec![Ticket, Ticket, Response], false);
        assert_eq!(told(&listeners, &[250, 250, 250]), expected);
        // Of another size, because the host's name is in them.
        assert_eq!(told(&listeners, &[282, 282, 99]), expected);
        assert!(told(&listeners, &[298, 99]).1);
    }

    #[test]
    fn tickets_that_come_after_the_request_are_known_by_other_handshakes() {
        let listeners = Listeners::default();
        learn(&listeners, &[250, 250]);
        let mut check = check(&listeners);
        check.on_request(1_400);
        let told = [(); 3].map(|()| check.tell(250, None));
        assert_eq!(told, [Ticket, Ticket, Response]);
        assert!(!check.is_doubtful());
    }

    #[test]
    fn where_no_tickets_follow_the_first_record_is_the_response() {
        let listeners = Listeners::default();
        learn(&listeners, &[]);
        assert_eq!(told(&listeners, &[250, 250]), (vec![Response; 2], false));
        let mut over = TicketCheck::over(listeners, SOCKET);
        over.on_request(1_000);
        assert_eq!(over.tell(250, Some(250)), Response);
        assert!(!over.is_doubtful());
    }
}
