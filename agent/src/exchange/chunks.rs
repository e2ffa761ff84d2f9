//! Keeps the pieces of a streamed response: how many, when the first and the latest were written, and the gaps between.
//!
//! A piece is what its protocol cuts a body into: an HTTP/1 chunk, an HTTP/2 DATA frame, otherwise a write.
//! Does not depend on: which of these it is, or what is in it.

/// Gaps of one response that are kept; later ones are unknown.
const GAPS_CAP: usize = 4096;

/// What a response's head says about the pieces of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// They are events of an event stream.
    Events,
    /// They are chunks.
    Chunks,
    /// Nothing: the body is streamed if it has several pieces.
    #[default]
    Unsaid,
}

/// The pieces of one response's body, as far as they were written.
///
/// The time of a piece is the start of the send that carried its first byte, if the record reports that start: for the
/// first send of a response, and for sends that carry chunks. Otherwise it is the return of the send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunks {
    framing: Framing,
    first_ns: Option<u64>,
    latest_ns: u64,
    count: u32,
    uncounted: bool,
    /// Whether the first piece may have come with the head.
    first_unknown: bool,
    gaps_ns: Vec<u64>,
    gaps_unknown: u32,
}

impl Chunks {
    /// No pieces yet.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            ..Self::default()
        }
    }

    /// No pieces yet of a response that is not read: the first may come with the head, and the head in several.
    pub fn unread() -> Self {
        Self {
            uncounted: true,
            first_unknown: true,
            ..Self::default()
        }
    }

    /// What the response's head says about them.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether they make the response a streamed one.
    pub fn is_stream(&self) -> bool {
        match self.framing {
            Framing::Events | Framing::Chunks => self.count > 0,
            Framing::Unsaid => self.count > 1,
        }
    }

    /// Adds a piece.
    pub fn note(&mut self, at_ns: u64) {
        self.note_together(1, at_ns);
    }

    /// Adds pieces that one send carried: there is no time between them.
    pub fn note_together(&mut self, count: u32, at_ns: u64) {
        for _ in 0..count {
            if self.count == 0 {
                self.first_ns = Some(at_ns);
            } else if self.gaps_ns.len() < GAPS_CAP {
                self.gaps_ns.push(at_ns.saturating_sub(self.latest_ns));
            } else {
                self.gaps_unknown = self.gaps_unknown.saturating_add(1);
            }
            self.count = self.count.saturating_add(1);
            self.latest_ns = self.latest_ns.max(at_ns);
        }
    }

    /// Adds pieces of which only the time of the last is known: several sends that were reported together.
    pub fn note_spread(&mut self, count: u32, last_ns: u64) {
        if count <= 1 {
            return self.note_together(count, last_ns);
        }
        let gaps = if self.count == 0 { count - 1 } else { count };
        self.gaps_unknown = self.gaps_unknown.saturating_add(gaps);
        self.count = self.count.saturating_add(count);
        self.latest_ns = self.latest_ns.max(last_ns);
    }

    /// Records that some pieces could not be separated.
    pub fn lose_count(&mut self) {
        self.uncounted = true;
    }

    /// Time of the first piece, ns; `None` if there is none, or its time is unknown.
    pub fn first_ns(&self) -> Option<u64> {
        self.first_ns.filter(|_| !self.first_unknown)
    }

    /// Pieces so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether [`Chunks::count`] is all of them.
    pub fn is_counted(&self) -> bool {
        !self.uncounted
    }

    /// Gaps between one piece and the next, ns, as far as they are known.
    pub fn gaps_ns(&self) -> &[u64] {
        &self.gaps_ns
    }

    /// How many gaps are not among [`Chunks::gaps_ns`].
    pub fn gaps_unknown(&self) -> u32 {
        self.gaps_unknown
    }

    /// Mean time from one piece to the next, ns; `None` if there are fewer than two, or they could not be counted.
    pub fn mean_gap_ns(&self) -> Option<u64> {
        let gaps = u64::from(self.count.checked_sub(1)?);
        let span_ns = self.latest_ns.saturating_sub(self.first_ns?);
        span_ns.checked_div(gaps).filter(|_| self.is_counted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_counted_and_their_gaps_kept() {
        let mut chunks = Chunks::default();
        assert_eq!((chunks.first_ns(), chunks.mean_gap_ns()), (None, None));
        for at_ns in [100, 130, 190] {
            chunks.note(at_ns);
        }
        assert_eq!((chunks.first_ns(), chunks.count()), (Some(100), 3));
        assert_eq!(chunks.gaps_ns(), [30, 60]);
        assert_eq!(chunks.mean_gap_ns(), Some(45));
    }

    #[test]
    fn pieces_of_one_send_have_no_time_between_them() {
        let mut chunks = Chunks::default();
        chunks.note(100);
        chunks.note_together(3, 160);
        assert_eq!((chunks.count(), chunks.gaps_ns()), (4, &[60, 0, 0][..]));
        assert_eq!(chunks.mean_gap_ns(), Some(20));
    }

    #[test]
    fn pieces_of_sends_reported_together_have_unknown_gaps() {
        let mut chunks = Chunks::default();
        chunks.note(100);
        chunks.note_spread(2, 400);
        chunks.note_spread(1, 500);
        assert_eq!((chunks.count(), chunks.gaps_unknown()), (4, 2));
        assert_eq!(chunks.gaps_ns(), [100]);
        assert_eq!(chunks.mean_gap_ns(), Some(133));
    }

    #[test]
    fn first_of_sends_reported_together_has_no_time() {
        let mut chunks = Chunks::default();
        chunks.note_spread(2, 400);
        chunks.note(500);
        assert_eq!((chunks.count(), chunks.gaps_unknown()), (3, 1));
        assert_eq!((chunks.first_ns(), chunks.mean_gap_ns()), (None, None));
    }

    #[test]
    fn gaps_are_bounded_and_the_rest_is_unknown() {
        let mut chunks = Chunks::default();
        for at_ns in 0..10_000 {
            chunks.note(at_ns);
        }
        assert_eq!(chunks.gaps_ns().len(), GAPS_CAP);
        assert_eq!(chunks.gaps_unknown() as usize, 9_999 - GAPS_CAP);
        assert_eq!(chunks.mean_gap_ns(), Some(1));
    }

    #[test]
    fn one_piece_is_a_stream_only_where_the_head_says_so() {
        for (framing, least) in [
            (Framing::Events, 1),
            (Framing::Chunks, 1),
            (Framing::Unsaid, 2),
        ] {
            for count in 0..3 {
                let mut chunks = Chunks::new(framing);
                chunks.note_together(count, 1);
                assert_eq!(chunks.is_stream(), count >= least, "{framing:?} {count}");
            }
        }
    }

    #[test]
    fn of_unread_pieces_only_the_gaps_are_known() {
        let mut chunks = Chunks::unread();
        for at_ns in [100, 130, 190] {
            chunks.note(at_ns);
        }
        assert_eq!((chunks.first_ns(), chunks.is_counted()), (None, false));
        assert_eq!(
            (chunks.gaps_ns(), chunks.mean_gap_ns()),
            (&[30, 60][..], None)
        );
        assert!(chunks.is_stream());
    }

    #[test]
    fn a_lost_count_has_no_mean() {
        let mut chunks = Chunks::default();
        chunks.note(1);
        chunks.note(2);
        chunks.lose_count();
        assert_eq!((chunks.is_counted(), chunks.mean_gap_ns()), (false, None));
    }
}
