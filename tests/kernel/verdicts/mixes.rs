//! Makes a hundred models slow, each for one reason, among requests that are not, and checks that no other reason is said.

use std::{
    collections::BTreeMap,
    env, thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use inferprobe_tests::{
    agent::free_port,
    clock::wait_for,
    require_kernel::require_kernel,
    server::Server,
    server_cases::hosts::{self, Host, Kind},
    slowness::{Hogs, Quota, one_cpu, pin},
};

use super::{
    EARLY, LIMIT, ask, crowd, entering, one_reader, receive_slowly, send_slowly, watching,
};

/// Returns the number in an environment variable.
fn number_in(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// `INFERPROBE_MIX_SEED` chooses other mixes, `INFERPROBE_MIX_RUNS` how many.
#[test]
#[ignore = "takes ten minutes, and other tests take its CPUs: run `cargo xtask test mixes -- -- --ignored --nocapture`"]
fn random_mixes_never_get_a_wrong_verdict() {
    let (Some(_kernel), Some(installed)) = (require_kernel(), hosts::installed()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let reader = free_port();
    let _gunicorn = one_reader(&installed, reader, folder.path());
    let uvicorn = Host::start(Kind::UvicornAsyncio, &installed);
    let quota = Quota::of_percent(30);
    let limited = Server::start_by(entering(&quota), &[]);
    let (plain, pinned) = (Server::start(&[]), Server::start(&[]));
    let cpu = one_cpu();
    pin(pinned.pid(), &cpu);
    // What is known of a server is known of all of its name.
    let agents = [
        watching(&[reader, uvicorn.port, plain.port()], &[]),
        watching(&[limited.port()], &[]),
        watching(&[pinned.port()], &[]),
    ];
    let [agent, of_limited, of_pinned] = &agents;
    let seed = number_in("INFERPROBE_MIX_SEED", 14);
    let mut numbers = Rng::with_seed(seed);
    let mut told = BTreeMap::new();
    for run in 0..number_in("INFERPROBE_MIX_RUNS", 100) {
        let (model, kind) = (format!("mix-{run}"), run % 9);
        let (count, ms) = (numbers.u64(8..40) as usize, numbers.u64(5..60));
        let clients = numbers.u64(1..7) as usize;
        let target = |plan: &str| format!("/predictions/{model}?{plan}");
        let is_mixed = numbers.u64(0..2) == 1;
        let (judge, planted) = thread::scope(|scope| {
            if is_mixed {
                // Quick requests to the same model, and to another one.
                scope.spawn(|| {
                    let port = match kind {
                        0 => reader,
                        1 => uvicorn.port,
                        4 => limited.port(),
                        5 => pinned.port(),
                        _ => plain.port(),
                    };
                    crowd(port, 1, count / 2, &target("body=2"));
                    crowd(port, 1, count / 2, "/predictions/other");
                });
            }
            match kind {
                0 => {
                    crowd(
                        reader,
                        clients,
                        count / 2,
                        &target(&format!("sleep_ms={ms}")),
                    );
                    (agent, "readers_busy")
                }
                1 => {
                    let plan = target(&format!("block_ms={ms}"));
                    thread::scope(|scope| {
                        for _ in 0..clients {
                            scope.spawn(|| ask(uvicorn.port, count / 2, &plan));
                        }
                    });
                    (agent, "slow_to_read")
                }
                2 => {
                    send_slowly(plain.port(), count, &target(""), Duration::from_millis(ms));
                    (agent, "slow_sender")
                }
                3 => {
                    let plan = target(&format!("chunks=4&gap_ms={ms}&body=90"));
                    crowd(plain.port(), clients, count / 4 + 1, &plan);
                    (agent, "produces_slowly")
                }
                8 => {
                    receive_slowly(plain.port(), 2, &format!("/predictions/{model}"));
                    (agent, "slow_receiver")
                }
                4 => {
                    let plan = target(&format!("burn_us={}", ms * 500));
                    ask(limited.port(), count, &plan);
                    (of_limited, "cpu_limit")
                }
                5 => {
                    let hogs = numbers.u64(1..4) as usize;
                    let _hogs = Hogs::start(hogs, &cpu);
                    ask(
                        pinned.port(),
                        count,
                        &target(&format!("burn_us={}", ms * 500)),
                    );
                    (of_pinned, "cpu")
                }
                6 => {
                    crowd(
                        plain.port(),
                        clients,
                        count,
                        &target(&format!("status=503&sleep_ms={ms}")),
                    );
                    (agent, "fine")
                }
                _ => {
                    crowd(
                        plain.port(),
                        clients,
                        count,
                        &target(&format!("sleep_ms={ms}")),
                    );
                    (agent, "fine")
                }
            }
        });
        // Collectors read every second.
        let mut last = (String::new(), String::new());
        let settled = Instant::now() + Duration::from_millis(1_500);
        wait_for("the evidence", LIMIT, || {
            last = judge.verdict(&model);
            (Instant::now() > settled).then_some(())
        });
        let (cause, headline) = last;
        println!(
            "{run}: {planted} planted, {clients} x {count} of {ms} ms, mixed: {is_mixed}: {headline}"
        );
        let is_allowed = cause == planted || EARLY.contains(&&*cause);
        *told.entry((planted, cause.clone())).or_insert(0) += 1;
        assert!(is_allowed, "{headline} ({cause}) instead of {planted}");
        assert_eq!(headline.starts_with("fails: 503"), kind == 6, "{headline}");
    }
    println!("{told:#?}");
}
