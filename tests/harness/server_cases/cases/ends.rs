//! Cases of responses before the request is complete, and of connections that end: in order, early, or by a reset.

use crate::{
    client::request,
    server_cases::{
        expected::{Ending, Lenient},
        play::Play,
    },
};

/// A body that looks like a request to a parser that loses count.
pub(super) fn lookalike() -> Vec<u8> {
    let one = request("POST", "/v1/models/fake:predict", &[], &[b'y'; 50]);
    one.repeat(20)
}

pub(super) fn early(play: &mut Play) {
    let body = lookalike().repeat(10);
    let bytes = play.ask("POST", "early=1&status=413", &[], &body);
    play.latest().lenient = Lenient::Early;
    let head = bytes.len() - body.len();
    play.send(&bytes[..head + 1000]);
    play.receive();
    // The server reads the rest, or ends the connection.
    let rest = play.try_send(&bytes[head + 1000..]);
    let next = play.post("", 10);
    if rest.and_then(|()| play.try_send(&next)).is_ok() {
        play.receive_or(Ending::Unserved);
    } else {
        play.latest().ending = Ending::Unserved;
    }
}

pub(super) fn early_sent_whole(play: &mut Play) {
    let body = lookalike().repeat(4);
    let bytes = play.ask("POST", "early=1&status=413", &[], &body);
    play.latest().lenient = Lenient::Early;
    play.send(&bytes);
    play.receive();
    let next = play.post("", 10);
    if play.try_send(&next).is_ok() {
        play.receive_or(Ending::Unserved);
    } else {
        play.latest().ending = Ending::Unserved;
    }
}

pub(super) fn close(play: &mut Play) {
    let bytes = play.post("close=1&body=900", 10);
    play.exchange(&bytes);
}

pub(super) fn close_before_another(play: &mut Play) {
    let first = play.ask("POST", "sleep_ms=10", &["Connection: close"], b"ab");
    let second = play.post("", 10);
    play.latest().ending = Ending::Unserved;
    play.send(&[first, second].concat());
    // Some servers reject the first because of what follows it.
    play.receive_or(Ending::Unserved);
}

pub(super) fn connection_close(play: &mut Play) {
    let bytes = play.post("", 10);
    play.exchange(&bytes);
    let bytes = play.ask(
        "POST",
        "sleep_ms=2&body=2000",
        &["Connection: close"],
        b"ab",
    );
    play.exchange(&bytes);
}

pub(super) fn half_closed(play: &mut Play) {
    let bytes = play.post("sleep_ms=50", 10);
    play.send(&bytes);
    finish_sending(play);
    // Some servers treat the end of one direction as the end of the client.
    play.receive_or(Ending::Unanswered);
}

pub(super) fn half_a_body(play: &mut Play) {
    let bytes = play.post("sleep_ms=10", 1000);
    play.send(&bytes[..bytes.len() - 500]);
    finish_sending(play);
    play.receive_or(Ending::Unanswered);
}

fn finish_sending(play: &mut Play) {
    play.until_read();
    let client = play.client.as_mut().expect("the client is there");
    client.finish_sending().expect("the connection is open");
}

pub(super) fn reset(play: &mut Play) {
    let bytes = play.post("", 10);
    play.exchange(&bytes);
    let bytes = play.post("sleep_ms=300", 10);
    play.latest().ending = Ending::Unanswered;
    play.send(&bytes);
    play.until_read();
    play.reset();
}

pub(super) fn reset_in_the_body(play: &mut Play) {
    let bytes = play.post("", 1000);
    play.latest().ending = Ending::Unanswered;
    play.send(&bytes[..bytes.len() - 500]);
    play.until_read();
    play.reset();
}

pub(super) fn gone_idle(play: &mut Play) {
    let bytes = play.post("", 10);
    play.exchange(&bytes);
    play.client = None;
}
