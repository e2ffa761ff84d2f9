//! Keeps a limit on open connections. If there are too many, the one that was least recently used gives way, and one that
//! scrapes only if all others do too: neither a client with many connections nor many open pages can fail a scrape.
//!
//! Does not depend on: what a connection serves.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::task::AbortHandle;

/// Most connections at once: a browser has up to six.
const MAX: usize = 64;

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Vec<(AbortHandle, Use)>,
    clock: Arc<AtomicU64>,
}

/// When a connection was used, and for what.
#[derive(Debug, Clone)]
pub(super) struct Use(Arc<Used>);

#[derive(Debug)]
struct Used {
    /// Number of its last use among those of all connections.
    at: AtomicU64,
    scrapes: AtomicBool,
    clock: Arc<AtomicU64>,
}

impl Connections {
    /// Returns what notes the use of a new connection; closes another one if there are too many.
    pub(super) fn admit(&mut self) -> Use {
        if self.open.len() >= MAX {
            let ranks = self.open.iter().map(|(_, used)| used.rank());
            let least = ranks.enumerate().min_by_key(|(_, rank)| *rank);
            if let Some((index, _)) = least {
                self.open.swap_remove(index).0.abort();
            }
        }
        let clock = self.clock.clone();
        Use(Arc::new(Used {
            at: AtomicU64::new(clock.fetch_add(1, Ordering::Relaxed)),
            scrapes: AtomicBool::new(false),
            clock,
        }))
    }

    /// Adds the connection.
    pub(super) fn add(&mut self, connection: AbortHandle, used: Use) {
        self.open.push((connection, used));
    }

    /// Forgets those that have ended.
    pub(super) fn forget_ended(&mut self) {
        self.open
            .retain(|(connection, _)| !connection.is_finished());
    }
}

impl Use {
    /// Notes a request; `scrapes`: for metrics.
    pub(super) fn note(&self, scrapes: bool) {
        let now = self.0.clock.fetch_add(1, Ordering::Relaxed);
        self.0.at.store(now, Ordering::Relaxed);
        if scrapes {
            self.0.scrapes.store(true, Ordering::Relaxed);
        }
    }

    /// The lowest gives way first.
    fn rank(&self) -> (bool, u64) {
        let scrapes = self.0.scrapes.load(Ordering::Relaxed);
        (scrapes, self.0.at.load(Ordering::Relaxed))
    }
}
