//! Sums the time in which threads and processes had a request in hand, per window.
//!
//! Does not depend on: models.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::history::span::WINDOW_NS;

/// Threads or processes that are kept; beyond it, all are forgotten, and their busy share is unknown for a window.
const KEPT: usize = 4096;
/// Windows that are kept of each.
const RING: usize = 32;
/// Latest stretches of each that a further one is compared with: requests are not recorded in the order of their ends.
const RECENT: usize = 4;

/// A stretch of time in which a thread or a process had one request in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupied {
    /// Thread or process.
    pub id: u32,
    /// First byte of the request read, ns.
    pub from_ns: u64,
    /// Last byte of the response written, ns.
    pub to_ns: u64,
    /// Whether it handed the request to another thread: then it was free to read meanwhile.
    pub handed_over: bool,
}

/// Threads or processes, by their number.
#[derive(Debug, Default)]
pub struct Occupancy(FxHashMap<u32, Ring>);

#[derive(Debug, Default)]
struct Ring {
    /// The latest stretches that were recorded, each with its start and its end, ns.
    recent: [(u64, u64); RECENT],
    next: usize,
    slots: [Slot; RING],
}

#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    window: u64,
    busy_ns: u64,
    overlaps: bool,
}

impl Occupancy {
    /// Adds a stretch. Stretches of one thread that overlap show that a request in hand does not keep it busy.
    pub fn add(&mut self, occupied: Occupied) {
        if self.0.len() >= KEPT && !self.0.contains_key(&occupied.id) {
            self.0.clear();
        }
        let ring = self.0.entry(occupied.id).or_default();
        let (mut from_ns, to_ns) = (occupied.from_ns, occupied.to_ns.max(occupied.from_ns));
        if ring.recent.contains(&(from_ns, to_ns)) {
            // Another request of the same batch.
            return;
        }
        let mut overlaps = occupied.handed_over;
        for (other_from_ns, other_to_ns) in ring.recent {
            if other_from_ns < to_ns && from_ns < other_to_ns {
                overlaps = true;
                from_ns = other_to_ns.min(to_ns);
            }
        }
        ring.recent[ring.next] = (occupied.from_ns, to_ns);
        ring.next = (ring.next + 1) % RECENT;
        let newest = to_ns / WINDOW_NS;
        // Of a long stretch only the part counts that is still kept.
        let oldest = (from_ns / WINDOW_NS).max((newest + 1).saturating_sub(RING as u64));
        for window in oldest..=newest {
            let start_ns = (window * WINDOW_NS).max(from_ns);
            let end_ns = ((window + 1) * WINDOW_NS).min(to_ns);
            if let Some(slot) = ring.slot(window) {
                slot.busy_ns += end_ns.saturating_sub(start_ns);
                slot.overlaps |= overlaps;
            }
        }
    }

    /// Returns the mean busy share of `ids` in the time from `from_ns` to `to_ns`, which begins with a window; `None` if
    /// the requests of one of them overlap, or if one is unknown.
    pub fn busy(&self, ids: &[u32], from_ns: u64, to_ns: u64) -> Option<f64> {
        let span_ns = to_ns.saturating_sub(from_ns);
        if ids.is_empty() || span_ns == 0 {
            return None;
        }
        let windows = from_ns / WINDOW_NS..=to_ns / WINDOW_NS;
        let mut busy_ns = 0;
        for id in ids {
            let ring = self.0.get(id)?;
            let slots = ring.slots.iter();
            for slot in slots.filter(|slot| windows.contains(&slot.window)) {
                if slot.overlaps {
                    return None;
                }
                busy_ns += slot.busy_ns;
            }
        }
        Some((busy_ns as f64 / ids.len() as f64 / span_ns as f64).min(1.0))
    }
}

impl Ring {
    /// Returns the slot of a window; `None` if a newer one has it.
    fn slot(&mut self, window: u64) -> Option<&mut Slot> {
        let at = (window % RING as u64) as usize;
        let slot = &mut self.slots[at];
        if slot.window > window {
            return None;
        }
        if slot.window != window {
            *slot = Slot {
                window,
                ..Slot::default()
            };
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn occupied(id: u32, from_ns: u64, to_ns: u64) -> Occupied {
        Occupied {
            id,
            from_ns,
            to_ns,
            handed_over: false,
        }
    }

    #[test]
    fn busy_share_is_the_mean_of_the_threads() {
        let mut occupancy = Occupancy::default();
        occupancy.add(occupied(1, 30 * S, 33 * S));
        occupancy.add(occupied(1, 33 * S, 36 * S));
        occupancy.add(occupied(2, 31 * S, 32 * S));
        assert_eq!(occupancy.busy(&[1], 30 * S, 40 * S), Some(0.6));
        assert_eq!(occupancy.busy(&[1, 2], 30 * S, 40 * S), Some(0.35));
        assert_eq!(occupancy.busy(&[1, 3], 30 * S, 40 * S), None);
        assert_eq!(occupancy.busy(&[], 30 * S, 40 * S), None);
    }

    #[test]
    fn long_request_counts_in_each_window_that_it_touches() {
        let mut occupancy = Occupancy::default();
        occupancy.add(occupied(1, 7 * S, 16 * S));
        assert_eq!(occupancy.busy(&[1], 5 * S, 9 * S), Some(0.75));
        assert_eq!(occupancy.busy(&[1], 10 * S, 14 * S), Some(1.0));
        assert_eq!(occupancy.busy(&[1], 15 * S, 19 * S), Some(0.25));
        occupancy.add(occupied(2, 0, 10_000 * S));
        assert_eq!(occupancy.busy(&[2], 9_990 * S, 10_000 * S), Some(1.0));
    }

    #[test]
    fn requests_of_one_batch_count_once() {
        let mut occupancy = Occupancy::default();
        for _ in 0..4 {
            occupancy.add(occupied(1, 30 * S, 32 * S));
        }
        assert_eq!(occupancy.busy(&[1], 30 * S, 34 * S), Some(0.5));
    }

    #[test]
    fn busy_share_of_overlapping_requests_is_unknown() {
        let mut occupancy = Occupancy::default();
        occupancy.add(occupied(1, 30 * S, 33 * S));
        occupancy.add(occupied(1, 32 * S, 34 * S));
        assert_eq!(occupancy.busy(&[1], 30 * S, 40 * S), None);
        let handed_over = Occupied {
            handed_over: true,
            ..occupied(2, 30 * S, 33 * S)
        };
        occupancy.add(handed_over);
        assert_eq!(occupancy.busy(&[2], 30 * S, 40 * S), None);
    }

    #[test]
    fn requests_that_are_recorded_late_overlap_only_if_they_do() {
        let mut occupancy = Occupancy::default();
        for from_s in [30, 33, 31, 32, 35, 34] {
            occupancy.add(occupied(1, from_s * S, (from_s + 1) * S));
        }
        assert_eq!(occupancy.busy(&[1], 30 * S, 40 * S), Some(0.6));
        occupancy.add(occupied(1, 32 * S + 1, 33 * S));
        assert_eq!(occupancy.busy(&[1], 30 * S, 40 * S), None);
        // A newer window has its slot.
        occupancy.add(occupied(2, 1_000 * S, 1_001 * S));
        occupancy.add(occupied(2, 30 * S, 31 * S));
        assert_eq!(occupancy.busy(&[2], 1_000 * S, 1_010 * S), Some(0.1));
    }

    #[test]
    fn threads_are_bounded() {
        let mut occupancy = Occupancy::default();
        for id in 0..3 * KEPT as u32 {
            occupancy.add(occupied(id, 30 * S, 31 * S));
            assert!(occupancy.0.len() <= KEPT);
        }
    }
}
