//! Plays connections whose every read and write is scripted.

use std::{net::TcpListener, time::Duration};

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    check_times::mismatches,
    clock::wait_within,
    loss_counters::LossCounters,
    require_kernel::require_kernel,
    scripted_server::{
        cases::CASES,
        play::{Played, play},
        script::Script,
    },
};

/// Longest wait of a script for its rows before the next one; late rows count as well.
const ROWS_LIMIT: Duration = Duration::from_secs(2);

fn is_of(played: &Played, row: &Logged) -> bool {
    row.peer_port == Some(played.peer_port) && played.time_ns.contains(&row.first_read_ns)
}

/// Returns everything in the rows of a connection that cannot be true of its script.
fn faults(script: &Script, played: &Played, rows: &[Logged]) -> Vec<String> {
    let mut own: Vec<&Logged> = rows.iter().filter(|row| is_of(played, row)).collect();
    own.sort_by_key(|row| row.seq);
    let mut faults = Vec::new();
    for (index, (stamp, sent)) in played.stamps.iter().enumerate() {
        let asked = &script.asked[stamp.seq as usize];
        let Some(row) = own.get(index) else {
            faults.push(format!("{}: no row", asked.model));
            continue;
        };
        let mut found = mismatches(stamp, sent, row);
        if asked.early {
            // How much of it was read is recorded at the response.
            found.retain(|fault| {
                !fault.starts_with("last read") && !fault.starts_with("request bytes")
            });
        }
        if (row.model.as_str(), row.method.as_str()) != (&asked.model, asked.method) {
            found.push(format!("{} {} is named", row.method, row.model));
        }
        if !found.is_empty() {
            faults.push(format!("{}: {}", asked.model, found.join(", ")));
        }
    }
    for row in own.iter().skip(played.stamps.len()) {
        faults.push(format!(
            "a row too many: {} {} {}",
            row.method, row.model, row.status
        ));
    }
    faults
}

#[test]
fn every_script_is_measured() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = Agent::start(&["--watch-port", &port.to_string()]);
    let mut all = Vec::new();
    for case in CASES {
        let script = (case.script)();
        let before = LossCounters::of(&agent);
        let played = play(&listener, &script);
        let (fewest, most) = script.unfinished;
        let mut now = LossCounters::of(&agent);
        let _ = wait_within(ROWS_LIMIT, || {
            now = LossCounters::of(&agent);
            let rows = agent.log();
            let own = rows.iter().filter(|row| is_of(&played, row)).count();
            let is_logged = own >= played.stamps.len();
            (is_logged && now.unfinished(&before) >= fewest).then_some(())
        });
        let counted = now.faults(&before, fewest, most);
        all.push((case.name, script, played, counted));
    }
    let rows = agent.stop_for_log();
    let mut failed = 0;
    for (name, script, played, mut counted) in all {
        counted.extend(faults(&script, &played, &rows));
        if !counted.is_empty() {
            failed += 1;
            println!("| scripted | {name} | {} |", counted.join("; "));
        }
    }
    assert_eq!(failed, 0, "of {} scripts", CASES.len());
}
