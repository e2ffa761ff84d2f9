//! Checks how much of a request's body is searched for its model.
//!
//! `config` chooses between option and file; the programs and the connections use the result.
//! Does not depend on: what bodies contain.

use inferprobe_ebpf::segment::COPIED_LEAST;

use crate::usage::{UsageError, invalid};

/// Largest limit, KiB.
const MOST_KIB: u32 = 16 << 10;
/// Bytes of headers that are copied in addition to a body.
const HEAD_BYTES: u32 = 64 << 10;

/// How much of a request's body is searched for its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit {
    kib: u32,
}

impl Default for BodyLimit {
    fn default() -> Self {
        Self { kib: 1024 }
    }
}

impl BodyLimit {
    /// Checks a limit in KiB, the value of `name`.
    pub fn of(name: &str, kib: u32) -> Result<Self, UsageError> {
        if kib > MOST_KIB {
            let reason = format!("out of range; give a number from 0 to {MOST_KIB}");
            return Err(invalid(name, &kib.to_string(), reason));
        }
        Ok(Self { kib })
    }

    /// The limit, KiB.
    pub const fn kib(self) -> u32 {
        self.kib
    }

    /// Bytes of a request that are copied, head and body.
    pub const fn copied_bytes(self) -> u32 {
        match self.kib {
            0 => COPIED_LEAST,
            kib => (kib << 10) + HEAD_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use inferprobe_ebpf::segment::COPIED_DEFAULT;

    use super::*;

    #[test]
    fn the_default_is_that_of_the_programs() {
        assert_eq!(BodyLimit::default().copied_bytes(), COPIED_DEFAULT);
    }

    #[test]
    fn a_limit_adds_room_for_headers() {
        let copied = |kib| BodyLimit::of("x", kib).unwrap().copied_bytes();
        assert_eq!(
            (copied(0), copied(1), copied(MOST_KIB)),
            (4_096, 66_560, (16 << 20) + 65_536)
        );
        let message = BodyLimit::of("--body-limit", MOST_KIB + 1).unwrap_err();
        let start = "--body-limit \"16385\": out of range";
        assert!(message.to_string().starts_with(start), "{message}");
    }
}
