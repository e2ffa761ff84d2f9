//! Says whose losses the programs in the kernel counted, as far as they know it.
//!
//! They count each loss by reason, and those of a process also by process and port.
//! Does not depend on: maps, servers.

use std::collections::HashMap;

use inferprobe_ebpf::abi::{DropReason, Loser};

/// Reasons that there are.
const REASONS: usize = DropReason::ALL.len();

/// Losses for one reason since the reading before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub count: u64,
    /// Whose; `None`: the program does not know.
    pub of: Option<Loser>,
}

/// The counters of the programs, as far as they were read.
#[derive(Debug, Default)]
pub struct Drops {
    totals: [u64; REASONS],
    of_processes: HashMap<Loser, u64>,
    /// Losses by reason that were assigned to a server.
    assigned: [u64; REASONS],
}

impl Drops {
    /// Takes a reading of all losses by reason. If one rose, `losers` reads those of processes, which the programs count
    /// first, and `assign` says of each new loss whether its server is known.
    pub fn update(
        &mut self,
        totals: [u64; REASONS],
        losers: impl FnOnce() -> Vec<(Loser, u64)>,
        mut assign: impl FnMut(Dropped) -> bool,
    ) {
        if totals == self.totals {
            return;
        }
        let mut of_none = [0_u64; REASONS];
        for (slot, total) in totals.iter().enumerate() {
            of_none[slot] = total.saturating_sub(self.totals[slot]);
        }
        self.totals = totals;
        let losers = losers();
        for &(loser, count) in &losers {
            let slot = usize::from(loser.reason);
            let Some(&reason) = DropReason::ALL.get(slot) else {
                continue;
            };
            // The kernel replaces the entries that were not used for long, so one may begin again.
            let before = self.of_processes.get(&loser).copied().unwrap_or(0);
            let count = count.checked_sub(before).unwrap_or(count);
            let dropped = Dropped {
                reason,
                count,
                of: Some(loser),
            };
            if count > 0 && assign(dropped) {
                self.assigned[slot] += count;
            }
            of_none[slot] = of_none[slot].saturating_sub(count);
        }
        self.of_processes = losers.into_iter().collect();
        for (reason, count) in DropReason::ALL.into_iter().zip(of_none) {
            if count > 0 {
                assign(Dropped {
                    reason,
                    count,
                    of: None,
                });
            }
        }
    }

    /// Returns the losses of which no server is known, by reason.
    pub fn unassigned(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let counts = self.totals.iter().zip(&self.assigned);
        let counts = counts.map(|(total, assigned)| total.saturating_sub(*assigned));
        DropReason::ALL.into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Loser = Loser {
        tgid: 7,
        port: 80,
        reason: DropReason::RingFull as u16,
    };
    const STRANGER: Loser = Loser { tgid: 8, ..SERVER };

    fn totals(ring_full: u64, map_full: u64) -> [u64; REASONS] {
        let mut totals = [0; REASONS];
        totals[DropReason::RingFull as usize] = ring_full;
        totals[DropReason::MapFull as usize] = map_full;
        totals
    }

    /// Takes a reading; returns what was dropped: how many, and of which process.
    fn read(
        drops: &mut Drops,
        totals: [u64; REASONS],
        losers: &[(Loser, u64)],
    ) -> Vec<(&'static str, u64, u32)> {
        let mut seen = Vec::new();
        drops.update(
            totals,
            || losers.to_vec(),
            |dropped| {
                let tgid = dropped.of.map_or(0, |loser| loser.tgid);
                seen.push((dropped.reason.name(), dropped.count, tgid));
                tgid == SERVER.tgid
            },
        );
        seen
    }

    fn unassigned(drops: &Drops, reason: DropReason) -> u64 {
        drops.unassigned().nth(reason as usize).unwrap().1
    }

    #[test]
    fn losses_of_a_known_server_are_its_own_and_all_others_are_not() {
        let mut drops = Drops::default();
        let seen = read(&mut drops, totals(10, 2), &[(SERVER, 6), (STRANGER, 1)]);
        assert_eq!(
            seen,
            [
                ("ring_full", 6, 7),
                ("ring_full", 1, 8),
                ("ring_full", 3, 0),
                ("map_full", 2, 0)
            ]
        );
        assert_eq!(unassigned(&drops, DropReason::RingFull), 4);
        assert_eq!(unassigned(&drops, DropReason::MapFull), 2);
        // Its entry began again.
        let seen = read(&mut drops, totals(12, 2), &[(SERVER, 2), (STRANGER, 1)]);
        assert_eq!(seen, [("ring_full", 2, 7)]);
        assert_eq!(unassigned(&drops, DropReason::RingFull), 4);
    }

    #[test]
    fn entries_are_read_only_after_a_loss() {
        let mut drops = Drops::default();
        read(&mut drops, totals(1, 0), &[]);
        drops.update(
            totals(1, 0),
            || panic!("nothing was lost"),
            |_| panic!("nothing was lost"),
        );
        assert_eq!(unassigned(&drops, DropReason::RingFull), 1);
    }
}
