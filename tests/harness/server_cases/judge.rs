//! Compares the agent's rows of one connection with what its case expects.
//!
//! A Python server marks moments in its handler, and the client stamps its calls. Each time of a row must be between
//! two of these. There is an allowance for what only the scheduler can delay.

use crate::{
    agent::request_log::Logged,
    server_cases::{
        expected::{Ending, Expected, Lenient, Sent},
        hosts::Marks,
    },
};

/// Allowance for two readings of one clock on two processors.
const CLOCK_SLACK_NS: u64 = 2_000;
/// Allowance for what is written, or becomes readable, a little later than the call that causes it: on a busy machine
/// the thread that does it waits for a processor.
const LATE_NS: u64 = 50_000_000;

/// Returns what is wrong with `rows`, all of one connection; `marks` finds a case's marks.
pub fn faults(
    expected: &[Expected],
    sends: &[Sent],
    rows: &[Logged],
    marks: impl Fn(&str) -> Option<Marks>,
) -> Vec<String> {
    let mut rows: Vec<&Logged> = rows.iter().collect();
    rows.sort_by_key(|row| row.seq);
    let mut faults = Vec::new();
    let mut rows = rows.into_iter().peekable();
    for one in expected {
        let served = match one.ending {
            Ending::Answered => true,
            Ending::Unanswered | Ending::Unserved => false,
            Ending::Either => rows.peek().is_some_and(|row| row.model == one.model),
        };
        if !served {
            continue;
        }
        let Some(row) = rows.next() else {
            faults.push(format!("{}: no row", one.case));
            continue;
        };
        let found = misfits(one, sends, row, marks(&one.case).as_ref());
        if !found.is_empty() {
            faults.push(format!("{}: {}", one.case, found.join(", ")));
        }
    }
    for row in rows {
        faults.push(format!(
            "a row too many: {} {} {} of {} B",
            row.method, row.model, row.status, row.request_bytes
        ));
    }
    faults
}

/// Returns everything in `row` that cannot be true of the request.
fn misfits(one: &Expected, sends: &[Sent], row: &Logged, marks: Option<&Marks>) -> Vec<String> {
    let mut misfits = figures(one, row);
    times(one, sends, row, marks, &mut misfits);
    misfits
}

fn figures(one: &Expected, row: &Logged) -> Vec<String> {
    let mut misfits = Vec::new();
    let mut same = |what: &str, found: &str, expected: &str| {
        if found != expected {
            misfits.push(format!("{what} is {found}, not {expected}"));
        }
    };
    same("status", &row.status.to_string(), &one.status.to_string());
    if one.lenient == Lenient::Refused {
        return misfits;
    }
    if !one.model.is_empty() {
        same("model", &row.model, &one.model);
    }
    same("method", &row.method, one.method);
    same("purpose", &row.purpose, one.purpose);
    if one.lenient == Lenient::No {
        let bytes = one.place.len().to_string();
        same("request bytes", &row.request_bytes.to_string(), &bytes);
        if let Some(bytes) = one.response_bytes {
            same(
                "response bytes",
                &row.response_bytes.to_string(),
                &bytes.to_string(),
            );
        }
    }
    misfits
}

fn times(
    one: &Expected,
    sends: &[Sent],
    row: &Logged,
    marks: Option<&Marks>,
    misfits: &mut Vec<String>,
) {
    let mut within = |what: &str, at_ns: Option<u64>, from_ns: u64, to_ns: u64| {
        let Some(at_ns) = at_ns else {
            misfits.push(format!("{what} is unknown"));
            return;
        };
        if at_ns + CLOCK_SLACK_NS < from_ns {
            misfits.push(format!(
                "{what} is {} us too early",
                (from_ns - at_ns) / 1_000
            ));
        }
        if at_ns > to_ns.saturating_add(CLOCK_SLACK_NS) {
            misfits.push(format!("{what} is {} us too late", (at_ns - to_ns) / 1_000));
        }
    };
    let (first, last) = one.sends(sends);
    let first = first.expect("its first byte was sent");
    let arrived_ns = (first.return_ns + LATE_NS).min(row.first_read_ns);
    within("arrival", row.arrival_ns, first.call_ns, arrived_ns);
    within(
        "first read",
        Some(row.first_read_ns),
        first.call_ns,
        row.last_read_ns,
    );
    if one.lenient == Lenient::Refused {
        return;
    }
    let received_ns = one.received_ns.map_or(u64::MAX, |ns| ns + LATE_NS);
    let answered_from_ns = marks.and_then(|marks| marks.begun_ns).unwrap_or(0);
    if matches!(one.lenient, Lenient::No | Lenient::Shared) {
        let sent_ns = last.map_or(first.call_ns, |last| last.call_ns);
        let read_ns = marks.and_then(|marks| marks.read_ns).unwrap_or(received_ns);
        within("last read", Some(row.last_read_ns), sent_ns, read_ns);
    }
    // uvloop writes at the end of its iteration, and a long response continues after the handler.
    let answered_ns = received_ns.max(marks.map_or(0, |marks| marks.ended_ns));
    let began_ns = answered_ns.saturating_sub(one.stream_ns);
    within(
        "first write",
        row.first_write_ns,
        answered_from_ns,
        began_ns,
    );
    let ended_from_ns = row.first_write_ns.unwrap_or(answered_from_ns) + one.stream_ns;
    within("last write", row.last_write_ns, ended_from_ns, answered_ns);
}
