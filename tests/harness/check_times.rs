//! Compares the agent's rows with what server and client stamped.
//!
//! The agent records its times inside the system calls that the reference server stamps around, so each time must be
//! between the two stamps of its call. The comparison is exact, whatever the load of the machine.

use std::collections::HashMap;

use crate::{
    agent::request_log::Logged,
    server::stamps::{Call, Stamp},
};

/// Allowance for two readings of one clock on two processors.
const CLOCK_SLACK_NS: u64 = 2_000;

/// Client port, and number of a request on its connection: both the server and the agent identify it so.
pub type Key = (Option<u16>, u32);

/// Returns each stamp with the row of the same request.
///
/// # Panics
/// If a stamp has no row, or a row no stamp.
pub fn pair(stamps: &[Stamp], rows: &[Logged]) -> Vec<(Stamp, Logged)> {
    let mut by_key: HashMap<Key, &Logged> = HashMap::with_capacity(rows.len());
    for row in rows {
        let before = by_key.insert((row.peer_port, row.seq), row);
        assert!(
            before.is_none(),
            "two rows for one request: {row:?} and {before:?}"
        );
    }
    let pairs: Vec<(Stamp, Logged)> = stamps
        .iter()
        .map(|stamp| {
            let row = by_key.remove(&(stamp.peer_port, stamp.seq));
            let row = row.unwrap_or_else(|| panic!("no row for {stamp:?}"));
            (stamp.clone(), row.clone())
        })
        .collect();
    assert!(by_key.is_empty(), "rows of no request: {by_key:?}");
    pairs
}

/// Returns each value in `row` that cannot be true of the request of `stamp`. `sent` is the client's first send of it.
pub fn mismatches(stamp: &Stamp, sent: &Call, row: &Logged) -> Vec<String> {
    let mut mismatches = size_mismatches(stamp, row);
    let mut within = |what: &str, at_ns: Option<u64>, from_ns: u64, to_ns: u64| {
        let Some(at_ns) = at_ns else {
            mismatches.push(format!("{what} is unknown"));
            return;
        };
        if at_ns + CLOCK_SLACK_NS < from_ns {
            mismatches.push(format!("{what} is {} ns too early", from_ns - at_ns));
        }
        if at_ns > to_ns + CLOCK_SLACK_NS {
            mismatches.push(format!("{what} is {} ns too late", at_ns - to_ns));
        }
    };
    let (first, last) = (stamp.first_read, stamp.last_read);
    within("arrival", row.arrival_ns, sent.call_ns, first.return_ns);
    // A blocking read is called long before its bytes arrive, which is not before they were sent.
    let from_ns = first.call_ns.max(sent.call_ns);
    within(
        "first read",
        Some(row.first_read_ns),
        from_ns,
        first.return_ns,
    );
    within(
        "last read",
        Some(row.last_read_ns),
        last.call_ns,
        last.return_ns,
    );
    let (first, last) = (stamp.first_write, stamp.last_write);
    within(
        "first write",
        row.first_write_ns,
        first.call_ns,
        first.return_ns,
    );
    within(
        "last write",
        row.last_write_ns,
        last.call_ns,
        last.return_ns,
    );
    mismatches
}

/// Returns what is wrong apart from the times: status and sizes.
pub fn size_mismatches(stamp: &Stamp, row: &Logged) -> Vec<String> {
    let mut mismatches = Vec::new();
    let mut same = |what: &str, found: u64, expected: u64| {
        if found != expected {
            mismatches.push(format!("{what} is {found}, not {expected}"));
        }
    };
    same("status", row.status.into(), stamp.status.into());
    same("request bytes", row.request_bytes, stamp.request_bytes);
    same("response bytes", row.response_bytes, stamp.response_bytes);
    mismatches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(call_ns: u64) -> Call {
        let return_ns = call_ns + 100_000;
        Call { call_ns, return_ns }
    }

    fn stamp() -> Stamp {
        Stamp {
            conn: 0,
            peer_port: Some(4),
            seq: 1,
            target: "/".into(),
            readable_ns: None,
            first_read: call(1_000_000),
            last_read: call(2_000_000),
            first_write: call(3_000_000),
            last_write: call(4_000_000),
            starved_ns: None,
            status: 200,
            request_bytes: 10,
            response_bytes: 20,
        }
    }

    fn row() -> Logged {
        let row = r#"{"conn":9,"seq":1,"pid":1,"local_port":3,"peer_port":4,"model":"m","model_source":"path","version":"v",
            "server":"s","purpose":"inference","method":"POST","status":200,"arrival_ns":950000,
            "first_read_ns":1050000,"last_read_ns":2050000,"first_write_ns":3050000,
            "last_write_ns":4050000,"request_bytes":10,"response_bytes":20}"#;
        serde_json::from_str(row).unwrap()
    }

    #[test]
    fn times_inside_their_calls_match() {
        let pairs = pair(&[stamp()], &[row()]);
        let (stamp, row) = &pairs[0];
        assert_eq!(mismatches(stamp, &call(900_000), row), Vec::<String>::new());
        assert_eq!(
            (row.queue_ns(), row.handler_ns()),
            (Some(100_000), Some(1_000_000))
        );
    }

    #[test]
    fn mismatch_is_reported_with_its_distance() {
        let row = Logged {
            status: 500,
            arrival_ns: None,
            last_read_ns: 2_300_000,
            first_write_ns: Some(2_900_000),
            ..row()
        };
        let expected = [
            "status is 500, not 200",
            "arrival is unknown",
            "last read is 200000 ns too late",
            "first write is 100000 ns too early",
        ];
        assert_eq!(mismatches(&stamp(), &call(900_000), &row), expected);
    }

    #[test]
    #[should_panic(expected = "rows of no request")]
    fn surplus_row_panics() {
        let other = Logged { seq: 2, ..row() };
        pair(&[stamp()], &[row(), other]);
    }
}
