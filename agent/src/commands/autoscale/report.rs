//! Formats each decision as one line of text.
//!
//! The control loop prints it.
//! Does not depend on: how the decision is made.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    commands::autoscale::{decision::Decision, queue::Queue},
    torchserve::management::Description,
};

/// Returns the line of one interval; an unknown value is written as `-`.
pub fn line(
    at: SystemTime,
    model: &str,
    queue: Option<&Queue>,
    workers: Option<&Description>,
    decision: &Decision,
) -> String {
    let dash = || "-".to_owned();
    let ready = workers.map_or_else(dash, |workers| workers.ready.to_string());
    let known = workers.map_or_else(dash, |workers| workers.desired.to_string());
    let pending = workers.map_or_else(dash, |workers| workers.pending.to_string());
    let requests = queue.map_or_else(dash, |queue| queue.finished.to_string());
    let queue_ms = queue.and_then(Queue::mean_ms);
    let queue_ms = queue_ms.map_or_else(dash, |mean_ms| format!("{mean_ms:.1}"));
    let desired = decision
        .desired
        .map_or_else(dash, |desired| desired.to_string());
    format!(
        "{} model={model:?} workers={ready}/{known} queue_ms={queue_ms} requests={requests} pending={pending} \
         decision={} desired={desired} reason={:?}",
        rfc3339_utc(at),
        decision.verdict.word(),
        decision.reason,
    )
}

/// Formats wall time as `2026-11-22T04:21:00Z`; a time before 1970 becomes 1970-01-01.
fn rfc3339_utc(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (day, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Returns year, month and day of the month of a day counted from 1970-01-01.
///
/// Years that begin in March have their leap day at the end, so months have fixed offsets: 153 days for every five.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let leap_days = day_of_era / 1460 + day_of_era / 146_096;
    let year_of_era = (day_of_era + day_of_era / 36_524 - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::autoscale::decision::Verdict;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_321_260, "2026-11-22T04:21:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(rfc3339_utc(at), expected);
        }
    }

    #[test]
    fn a_line_has_every_figure_and_the_reason() {
        let at = UNIX_EPOCH + Duration::from_secs(1_795_321_260);
        let queue = Queue {
            finished: 57,
            waited_ms: 4736.7,
            answered: 57,
        };
        let workers = Description {
            ready: 1,
            desired: 1,
            pending: 9,
        };
        let decision = Decision {
            verdict: Verdict::Up,
            desired: Some(2),
            reason: "queue 83.1 ms is above the target of 20 ms".into(),
        };
        assert_eq!(
            line(at, "tiny", Some(&queue), Some(&workers), &decision),
            "2026-11-22T04:21:00Z model=\"tiny\" workers=1/1 queue_ms=83.1 requests=57 pending=9 \
             decision=up desired=2 reason=\"queue 83.1 ms is above the target of 20 ms\""
        );
        let decision = Decision {
            verdict: Verdict::Unknown,
            desired: None,
            reason: "no\nanswer".into(),
        };
        assert_eq!(
            line(at, "a \"b\"", None, None, &decision),
            "2026-11-22T04:21:00Z model=\"a \\\"b\\\"\" workers=-/- queue_ms=- requests=- pending=- \
             decision=unknown desired=- reason=\"no\\nanswer\""
        );
    }
}
