//! Reads pressure files (PSI): how long tasks were stalled for lack of CPU, memory or IO.
//!
//! The kernel has them of the host and of each cgroup (4.20 and later), unless it was built or booted without.
//! Does not depend on: whose files they are.

use std::{fs, path::Path};

/// The resources that have pressure files.
pub const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// Stalled time since the start of the host or cgroup, µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one task was stalled.
    pub some_us: u64,
    /// All tasks were stalled at once; `None` if the kernel does not count it.
    pub full_us: Option<u64>,
}

impl Pressure {
    /// Stalled seconds, by value of the label `kind`.
    pub fn kinds(self) -> impl Iterator<Item = (&'static str, f64)> {
        let full = self.full_us.map(|full_us| ("full", full_us));
        let kinds = [("some", self.some_us)].into_iter().chain(full);
        kinds.map(|(kind, us)| (kind, us as f64 / 1e6))
    }
}

/// Reads a pressure file; `None` if there is none, or pressure is not counted.
pub fn read(path: &Path) -> Option<Pressure> {
    parse(&fs::read_to_string(path).ok()?)
}

fn parse(text: &str) -> Option<Pressure> {
    let total = |kind: &str| {
        let mut lines = text.lines().map(str::split_ascii_whitespace);
        let mut fields =
            lines.find_map(|mut fields| (fields.next() == Some(kind)).then_some(fields))?;
        fields.find_map(|field| field.strip_prefix("total=")?.parse().ok())
    };
    Some(Pressure {
        some_us: total("some")?,
        full_us: total("full"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "some avg10=98.32 avg60=98.45 avg300=98.68 total=6144202470\n\
                        full avg10=0.00 avg60=0.00 avg300=0.00 total=17\n";

    #[test]
    fn totals_are_read() {
        let pressure = Pressure {
            some_us: 6_144_202_470,
            full_us: Some(17),
        };
        assert_eq!(parse(TEXT), Some(pressure));
        let some = TEXT.lines().next().unwrap();
        let pressure = Pressure {
            full_us: None,
            ..pressure
        };
        assert_eq!(parse(some), Some(pressure));
    }

    #[test]
    fn a_file_that_is_cut_off_has_no_wrong_total() {
        for end in 0..TEXT.len() {
            if let Some(pressure) = parse(&TEXT[..end]) {
                let digits = "6144202470";
                assert!(digits.starts_with(&pressure.some_us.to_string()), "{end}");
            }
        }
        for text in [
            "",
            "some",
            "some total=",
            "some total=-1",
            "full total=3",
            "some total=99999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
