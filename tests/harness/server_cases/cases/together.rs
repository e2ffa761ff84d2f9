//! Cases of pipelined requests.

use crate::server_cases::play::Play;

/// Sends requests in one call, and reads all their responses.
pub(super) fn together(play: &mut Play, requests: &[Vec<u8>]) {
    play.send(&requests.concat());
    for _ in requests {
        play.receive();
    }
}

pub(super) fn pipelined(play: &mut Play) {
    let all = [
        play.post("body=10", 20),
        play.post("status=500", 0),
        play.post("sleep_ms=5", 3),
    ];
    together(play, &all);
}

pub(super) fn pipelined_bodies(play: &mut Play) {
    let all = [
        play.post("body=10", 600),
        play.post("status=500&sleep_ms=20", 600),
        play.post("status=201", 600),
    ];
    together(play, &all);
    let next = play.post("", 600);
    play.exchange(&next);
}

pub(super) fn pipelined_ten(play: &mut Play) {
    let all: Vec<_> = (0..10)
        .map(|n| play.post(&format!("status={}", 200 + n % 4), 0))
        .collect();
    together(play, &all);
}

pub(super) fn pipelined_big_answers(play: &mut Play) {
    let all = [
        play.post("body=100000", 20),
        play.post("body=200000&status=201", 30),
        play.post("chunks=3&body=50000", 3),
    ];
    together(play, &all);
}

pub(super) fn second_while_first_runs(play: &mut Play) {
    let first = play.post("sleep_ms=150", 30);
    let second = play.post("status=201&sleep_ms=5", 30);
    play.send_parts(&[&first, &second]);
    play.receive();
    play.receive();
}

pub(super) fn third_while_first_runs(play: &mut Play) {
    let first = play.post("sleep_ms=150&body=2000", 30);
    let second = play.post("status=500&sleep_ms=5", 2000);
    let third = play.post("status=201&chunks=2", 700);
    play.send_parts(&[&first, &second, &third]);
    for _ in 0..3 {
        play.receive();
    }
}

pub(super) fn second_in_parts_while_first_runs(play: &mut Play) {
    let first = play.post("sleep_ms=200", 30);
    let second = play.post("status=201", 1500);
    play.send_parts(&[&first, &second[..9], &second[9..700], &second[700..]]);
    play.receive();
    play.receive();
}

pub(super) fn two_cut_anywhere(play: &mut Play) {
    for cut in [1, 3, 40, 90] {
        let first = play.post("", 30);
        let second = play.post("status=201", 40);
        let bytes = [&first[..], &second].concat();
        let cut = first.len() + cut;
        play.send_parts(&[&bytes[..cut], &bytes[cut..]]);
        play.receive();
        play.receive();
    }
}
