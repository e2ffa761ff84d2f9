//! Checks connections that were already open when the agent started.

use super::*;

/// A header block whose fields refer to a table that was built earlier.
fn indexed(stream: u32, fields: &[u8], ends: bool) -> Vec<u8> {
    frame(1, 4 | u8::from(ends), stream, fields)
}

/// `:method: POST`, and an unknown field.
const ASK_UNSEEN: &[u8] = &[0x83, 0xc5];

fn head_unseen() -> Event {
    Event::Lost(Loss::HeadUnseen)
}

#[test]
fn a_call_without_a_path_is_measured_under_the_model_of_its_message() {
    let mut run = Run::joined();
    let call = b"\0\0\0\0\x09\x0a\x04tiny\x1a\x01x";
    run.read(&[indexed(7, ASK_UNSEEN, false), data(7, call, true)].concat());
    run.write(&[indexed(7, &[0x88, 0xc0], false), headers(7, DONE, true)].concat());
    let [exchange] = run.finished()[..] else {
        panic!("{:?}", run.out)
    };
    assert!(exchange.is_grpc());
    assert_eq!(exchange.request.named.as_ref().unwrap().model, "tiny");
    assert_eq!(exchange.response.grpc_status, Some(0));
    assert_eq!(times(exchange), [1001, 1002, 1002, 2003, 2004].map(Some));
    assert_eq!(run.others(), [&head_unseen()]);
}

#[test]
fn a_call_that_names_nothing_is_of_an_unknown_model_and_status() {
    let mut run = Run::joined();
    run.read(&[indexed(7, ASK_UNSEEN, false), data(7, b"\0\0\0\0\0", true)].concat());
    run.write(&[indexed(7, &[0x88, 0xc0], false), indexed(7, &[0xbe], true)].concat());
    let exchange = run.finished()[0];
    assert_eq!(exchange.request.named.as_ref().unwrap().model, "unknown");
    assert_eq!(
        (exchange.response.status, exchange.response.grpc_status),
        (200, None)
    );
    assert_eq!(
        run.others(),
        [&head_unseen(), &Event::Lost(Loss::StatusUnseen)]
    );
}

#[test]
fn fields_that_come_after_the_join_are_known_from_then_on() {
    let mut run = Run::joined();
    // `:path: /a.B/C` as a literal that goes into the table, and then its index.
    let literal = [&[0x83, 0x44, 6][..], b"/a.B/C"].concat();
    run.read(&[indexed(9, &literal, true), indexed(11, &[0x83, 0xbe], true)].concat());
    run.write(&[response(9), response(11)].concat());
    let paths: Vec<_> = run
        .finished()
        .iter()
        .map(|exchange| exchange.request.target.as_str())
        .collect();
    assert_eq!(paths, ["/a.B/C", "/a.B/C"]);
    assert!(run.others().is_empty());
}

#[test]
fn responses_to_earlier_requests_count_answer_without_request() {
    let mut run = Run::joined();
    run.read(&[ask(7), data(3, b"rest", true)].concat());
    run.write(&[response(5), data(3, b"more", false), response(7)].concat());
    assert_eq!(run.finished().len(), 1);
    assert_eq!(run.others(), [&Event::Lost(Loss::ResponseWithoutRequest)]);
    let missed = data(3, b"rest", true).len() * 2 + response(5).len();
    assert_eq!(run.connection.take_missed_bytes(), missed as u64);
    assert_eq!(run.connection.take_missed_bytes(), 0);
}

#[test]
fn a_join_at_a_ping_finds_the_next_request() {
    let mut run = Run::joined();
    run.read(&[frame(6, 1, 0, &[0; 8]), frame(8, 0, 0, &[0; 4])].concat());
    run.read(&ask(21));
    run.write(&response(21));
    assert_eq!((run.finished().len(), run.others().len()), (1, 0));
}

#[test]
fn the_client_of_a_connection_is_no_server() {
    let mut run = Run::joined();
    run.read(&response(5));
    run.write(&ask(7));
    run.read(&response(7));
    assert!(run.finished().is_empty());
    let unfollowed = Event::Lost(Loss::Http2Unfollowed);
    assert_eq!(run.others(), [&unfollowed, &unfollowed]);
    let all = response(5).len() + ask(7).len() + response(7).len();
    assert_eq!(run.connection.take_missed_bytes(), all as u64);
}
