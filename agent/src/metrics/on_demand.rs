//! Lets a scrape ask for values that are read only then, and wait for them.
//!
//! The scrape and the thread that reads the values share it.
//! Does not depend on: which values they are.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};

/// Longest wait of a scrape.
const PATIENCE: Duration = Duration::from_millis(250);

/// Scrapes that asked, and those that were served.
#[derive(Debug)]
pub struct OnDemand {
    /// Readable while a scrape waits; `None` if it could not be opened.
    wake: Option<OwnedFd>,
    counts: Mutex<Counts>,
    served: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    /// Whether a thread serves.
    attended: bool,
    asked: u64,
    served: u64,
}

impl OnDemand {
    /// Makes one that no thread serves yet.
    pub(super) fn new() -> Self {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Self {
            wake: eventfd(0, flags).ok(),
            counts: Mutex::default(),
            served: Condvar::new(),
        }
    }

    /// Asks, and waits until the values are there; returns whether they are.
    pub(super) fn ask(&self) -> bool {
        let mut counts = self.counts();
        if !counts.attended {
            return false;
        }
        counts.asked += 1;
        let own = counts.asked;
        if let Some(wake) = &self.wake {
            // A full counter is readable already.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
        let waited = self
            .served
            .wait_timeout_while(counts, PATIENCE, |counts| counts.served < own);
        let (counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        counts.served >= own
    }

    /// Says whether a thread serves from now on.
    pub fn attend(&self, attended: bool) {
        self.counts().attended = attended;
    }

    /// What becomes readable when a scrape asks.
    pub fn wake(&self) -> io::Result<BorrowedFd<'_>> {
        let wake = self.wake.as_ref().map(AsFd::as_fd);
        wake.ok_or_else(|| io::Error::other("no event descriptor"))
    }

    /// Returns the number of the latest scrape that asked; `None` if all were served.
    pub fn asked(&self) -> Option<u64> {
        if let Some(wake) = &self.wake {
            // It is empty if no scrape asked.
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
        let counts = self.counts();
        (counts.asked > counts.served).then_some(counts.asked)
    }

    /// Says that the values are there for all scrapes up to this number.
    pub fn serve(&self, number: u64) {
        self.counts().served = number;
        self.served.notify_all();
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn scrape_waits_for_the_thread_that_serves() {
        let on_demand = OnDemand::new();
        assert!(!on_demand.ask());
        on_demand.attend(true);
        assert!(!on_demand.ask());
        let number = on_demand.asked().unwrap();
        on_demand.serve(number);
        assert_eq!(on_demand.asked(), None);
        thread::scope(|scope| {
            let scrape = scope.spawn(|| on_demand.ask());
            loop {
                if let Some(number) = on_demand.asked() {
                    on_demand.serve(number);
                    break;
                }
                thread::yield_now();
            }
            assert!(scrape.join().unwrap());
        });
    }
}
