//! Calls whose messages are counted one by one, and those that look alike.

use super::*;

const STREAM: &[(&str, &str)] = &[
    (":method", "POST"),
    (":path", "/inference.GRPCInferenceService/ModelStreamInfer"),
];
const ANSWER: &[u8] = b"\0\0\0\0\x02\x08\x01";
const FAILED: &[(&str, &str)] = &[("grpc-status", "13")];

/// Returns the finished exchanges: number, model, the thousand of arrival and of last write, status.
fn finished(run: &Run) -> Vec<(u32, String, u64, u64, Option<u32>)> {
    let exchange = |event: &Event| match event {
        Event::Finished(exchange) => {
            let Exchange {
                request, response, ..
            } = exchange;
            assert!(!exchange.overlaps(), "{exchange:?}");
            Some((
                request.index,
                request
                    .named
                    .as_ref()
                    .map_or(String::new(), |named| named.model.clone()),
                request.arrival_ns.unwrap() / 1_000,
                response.last_write_ns.unwrap() / 1_000,
                response.grpc_status,
            ))
        }
        other => panic!("{other:?}"),
    };
    run.out.iter().filter_map(exchange).collect()
}

fn tiny(
    index: u32,
    arrival: u64,
    last_write: u64,
    status: u32,
) -> (u32, String, u64, u64, Option<u32>) {
    (index, "tiny".into(), arrival, last_write, Some(status))
}

#[test]
fn each_message_with_its_response_counts_when_it_is_answered() {
    let mut run = Run::open();
    run.read(&[headers(1, STREAM, false), data(1, MESSAGE, false)].concat());
    assert_eq!(run.connection.open_requests().len(), 1);
    run.write(&[headers(1, OK, false), data(1, ANSWER, false)].concat());
    assert_eq!(finished(&run), [tiny(0, 3, 4, 0)]);
    assert!(run.connection.open_requests().is_empty());
    run.read(&data(1, &[MESSAGE, MESSAGE].concat(), false));
    assert_eq!(run.connection.open_requests().len(), 2);
    run.write(&data(1, ANSWER, false));
    assert_eq!(run.connection.open_requests().len(), 1);
    run.write(&data(1, ANSWER, false));
    run.read(&data(1, b"", true));
    run.write(&headers(1, DONE, true));
    assert_eq!(
        finished(&run),
        [tiny(0, 3, 4, 0), tiny(1, 5, 6, 0), tiny(2, 5, 7, 0)]
    );
    assert!(run.connection.is_idle());
}

#[test]
fn messages_that_were_all_sent_before_the_first_answer_count_one_by_one() {
    let mut run = Run::open();
    let three = [MESSAGE, MESSAGE, MESSAGE].concat();
    run.read(&[headers(1, STREAM, false), data(1, &three, true)].concat());
    run.write(&[headers(1, OK, false), data(1, ANSWER, false)].concat());
    run.write(&data(1, ANSWER, false));
    run.write(&[data(1, ANSWER, false), headers(1, DONE, true)].concat());
    assert_eq!(
        finished(&run),
        [tiny(0, 3, 4, 0), tiny(1, 3, 5, 0), tiny(2, 3, 6, 0)]
    );
}

#[test]
fn call_in_which_one_side_sends_one_message_is_one_request() {
    // A stream of requests, then a stream of responses.
    for (asked, answered) in [(3, 1), (1, 3)] {
        let mut run = Run::open();
        run.read(&headers(1, ASK, false));
        for left in (0..asked).rev() {
            run.read(&data(1, MESSAGE, left == 0));
        }
        run.write(&headers(1, OK, false));
        for _ in 0..answered {
            run.write(&data(1, ANSWER, false));
        }
        run.write(&headers(1, DONE, true));
        let last_write = 2 + 1 + asked + 1 + answered + 1;
        assert_eq!(finished(&run), [tiny(0, 3, last_write, 0)]);
    }
}

#[test]
fn error_at_the_end_is_that_of_the_oldest_message_without_an_answer() {
    let mut run = Run::open();
    run.read(&[headers(1, STREAM, false), data(1, MESSAGE, false)].concat());
    run.write(&[headers(1, OK, false), data(1, ANSWER, false)].concat());
    run.read(&data(1, &[MESSAGE, MESSAGE].concat(), false));
    run.write(&headers(1, FAILED, true));
    assert_eq!(finished(&run), [tiny(0, 3, 4, 0), tiny(1, 5, 6, 13)]);
}

#[test]
fn messages_without_an_answer_are_unfinished_when_the_call_is_reset() {
    for (more, expected) in [(0, 0), (2, 2)] {
        let mut run = Run::open();
        run.read(&[headers(1, STREAM, false), data(1, MESSAGE, false)].concat());
        run.write(&[headers(1, OK, false), data(1, ANSWER, false)].concat());
        for _ in 0..more {
            run.read(&data(1, MESSAGE, false));
        }
        run.read(&reset(1));
        let unfinished = run
            .out
            .iter()
            .filter(|event| **event == Event::Unfinished(Unfinished::Reset));
        assert_eq!(unfinished.count(), expected);
        assert_eq!(run.out.len(), 1 + expected);
    }
}

#[test]
fn unanswered_messages_of_many_calls_are_bounded() {
    let mut run = Run::open();
    for call in 0..200 {
        let stream = 2 * call + 1;
        run.read(&headers(stream, STREAM, false));
        for _ in 0..40 {
            run.read(&data(stream, MESSAGE, false));
        }
    }
    let kept: usize = run.connection.streams.asked;
    assert!(kept <= 1024 + 200, "{kept}");
    for call in 0..200 {
        run.read(&reset(2 * call + 1));
    }
    assert_eq!(run.connection.streams.asked, 0);
}
