//! Runs autoscale with a real agent that watches a real TorchServe under load.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use inferprobe_tests::{
    agent::Agent,
    autoscale::Autoscale,
    client::{Connection, request},
    clock::wait_for,
    report::row,
    require_kernel::require_kernel,
    torchserve::{self, TorchServe, Worker},
};

/// Longest wait for the last of a few changes.
const PATIENCE: Duration = Duration::from_secs(90);
/// Clients that send one request after the other: three workers leave half of them waiting.
const CLIENTS: usize = 6;
const MOST_WORKERS: usize = 3;

/// Sends requests of 40 ms until `end` is set.
fn send_until(end: &AtomicBool, port: u16) {
    let mut client = Connection::open_tcp(port).unwrap();
    let fields = ["Content-Type: application/json"];
    let bytes = request("POST", "/predictions/tiny", &fields, br#"{"sleep_ms": 40}"#);
    while !end.load(Ordering::Relaxed) {
        let (_, answer) = client.exchange(&bytes).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Waits until TorchServe describes `count` ready workers, and never too many or too few. Returns how many autoscale
/// wants then.
fn await_ready(torchserve: &TorchServe, autoscale: &Autoscale, count: usize) -> f64 {
    let what = format!("{count} ready workers");
    wait_for(&what, PATIENCE, || {
        let workers = torchserve.describe("tiny");
        let decisions = || autoscale.decisions().join("\n");
        assert!(
            (1..=MOST_WORKERS).contains(&workers.len()),
            "{}",
            decisions()
        );
        let ready = workers.iter().all(Worker::is_ready);
        (ready && workers.len() == count).then_some(())
    });
    let page = autoscale.metrics();
    page.sum("inferprobe_autoscale_desired_workers", &[])
}

#[test]
fn load_adds_workers_and_its_end_removes_them() {
    let (Some(_kernel), Some(installed)) = (require_kernel(), torchserve::installed()) else {
        return;
    };
    let torchserve = TorchServe::start(&installed, &[]);
    let agent = Agent::start_unlogged::<&str>(&[]);
    let flags = "--min 1 --max 3 --target-queue-ms 20 --cool-down 2 --down-after 2";
    let flags: Vec<_> = flags.split(' ').collect();
    let autoscale = Autoscale::start(agent.port, torchserve.ports.management, &flags);
    let end = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| send_until(&end, torchserve.ports.inference));
        }
        // The clients must end after a panic too, because the scope waits for them.
        let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            await_ready(&torchserve, &autoscale, MOST_WORKERS)
        }));
        end.store(true, Ordering::Relaxed);
        reached.unwrap()
    });
    let least = await_ready(&torchserve, &autoscale, 1);
    assert_eq!((most, least), (MOST_WORKERS as f64, 1.0));
    row(
        "autoscale from 1 to 3 workers: 6 clients, then none",
        "workers: ready by TorchServe's word, wanted by autoscale",
        &format!("{MOST_WORKERS}, then 1"),
        &format!("{most}, then {least}"),
        "equal",
    );
    println!("{}", autoscale.decisions().join("\n"));
    autoscale.stop();
    agent.stop();
    torchserve.stop();
}
