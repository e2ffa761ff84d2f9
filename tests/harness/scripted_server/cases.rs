//! Defines the scripts: servers with threads, odd buffers and odd endings.

use std::{ops::Range, time::Duration};

use crate::scripted_server::script::{
    Act::{self, Awaited, FinishSending, Receive, Send},
    Script,
    Step::{
        self, Arrived, Beside, Drain, Elsewhere, FinishWriting, Join, Probe, Read, Work, Write,
    },
};

/// One script, by name.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Name, in messages.
    pub name: &'static str,
    /// Makes it.
    pub script: fn() -> Script,
}

/// Every script.
pub const CASES: &[Case] = &[
    case("a byte a read", a_byte_a_read),
    case("24 bytes first", first_24),
    case("a reader that waits", a_reader_that_waits),
    case("probes", probes),
    case("bodies over many reads", many_reads),
    case("a read across two requests", a_read_across_two),
    case("three in one read", three_in_one_read),
    case("two sends in one read", two_sends_in_one_read),
    case("three answers in one write", three_in_one_write),
    case("read ahead", read_ahead),
    case("read ahead within an answer", read_ahead_within_an_answer),
    case("early, drained", early_drained),
    case("early, drained with the next", early_drained_with_the_next),
    case("drained and never answered", drained_and_never_answered),
    case("split continue", split_continue),
    case("websocket", websocket),
    case("split terminator", split_terminator),
    case("four writes a chunk", four_writes_a_chunk),
    case("an answer cut anywhere", an_answer_cut_anywhere),
    case("a byte a write", a_byte_a_write),
    case("background reads", background_reads),
    case("reads and writes on two threads", two_threads),
    case("half-closed", half_closed),
    case("client reset", client_reset),
    case("server reset", server_reset),
    case("trailers", trailers),
    case("a chunked request a byte a read", a_chunk_a_byte),
];

const fn case(name: &'static str, script: fn() -> Script) -> Case {
    Case { name, script }
}

const BIG: usize = 65536;
const WORK: Step = Work(Duration::from_millis(10));

/// Adds one exchange: the request is sent whole and read in reads of `size`, and the response is written at once.
fn simple(script: &mut Script, size: usize, body_bytes: usize, status: u16) {
    let request = script.post(body_bytes);
    let answer = script.answer(status, &[], b"answer");
    script.act([Send(request.end), Receive(answer.end)]);
    let until = request.end;
    script.serve([Read { size, until }, WORK, Write(answer.end)]);
}

fn a_byte_a_read() -> Script {
    let mut script = Script::default();
    simple(&mut script, 1, 50, 200);
    simple(&mut script, 1, 0, 404);
    simple(&mut script, 1, 1200, 201);
    script
}

fn first_24() -> Script {
    let mut script = Script::default();
    for status in [200, 201] {
        let request = script.post(300);
        let answer = script.answer(status, &[], b"answer");
        script.act([Send(request.end), Receive(answer.end)]);
        script.serve([
            Read {
                size: 24,
                until: request.start + 24,
            },
            Read {
                size: 16360,
                until: request.end,
            },
            WORK,
            Write(answer.end),
        ]);
    }
    script
}

fn a_reader_that_waits() -> Script {
    let mut script = Script::default();
    for status in [200, 500] {
        let request = script.post(100);
        let answer = script.answer(status, &[], b"answer");
        script.act([Awaited, Send(request.end), Receive(answer.end)]);
        let until = request.end;
        script.serve([Read { size: BIG, until }, WORK, Write(answer.end)]);
    }
    script
}

fn probes() -> Script {
    let mut script = Script::default();
    for status in [200, 201] {
        let request = script.post(3000);
        let middle = request.start + 1000;
        let answer = script.answer(status, &[], b"answer");
        script.serve([
            Read {
                size: BIG,
                until: middle,
            },
            Probe,
        ]);
        script.act([Send(middle), Act::Read(middle), Send(request.end)]);
        script.act([Receive(answer.end)]);
        let until = request.end;
        script.serve([Arrived(until), Read { size: BIG, until }, Probe]);
        script.serve([WORK, Write(answer.end)]);
    }
    script
}

fn many_reads() -> Script {
    let mut script = Script::default();
    simple(&mut script, 700, 30_000, 200);
    simple(&mut script, 4096, 30_000, 201);
    script
}

fn a_read_across_two() -> Script {
    let mut script = Script::default();
    let (first, second) = (script.post(500), script.post(500));
    let (one, two) = (script.answer(200, &[], b"1"), script.answer(201, &[], b"2"));
    let (early, middle) = (first.start + 200, second.start + 40);
    script.act([Send(second.end), Receive(two.end)]);
    // The second read ends within the head of the second request.
    script.serve([
        Arrived(second.end),
        Read {
            size: early,
            until: early,
        },
        Read {
            size: middle - early,
            until: middle,
        },
        WORK,
        Write(one.end),
        Read {
            size: BIG,
            until: second.end,
        },
        WORK,
        Write(two.end),
    ]);
    script
}

fn three_in_one_read() -> Script {
    let mut script = Script::default();
    let last = [600, 600, 600].map(|body_bytes| script.post(body_bytes));
    let until = last[2].end;
    script.act([Send(until)]);
    script.serve([Arrived(until), Read { size: BIG, until }]);
    for status in [200, 500, 201] {
        let answer = script.answer(status, &[], b"answer");
        script.serve([WORK, Write(answer.end)]);
        script.act([Receive(answer.end)]);
    }
    simple(&mut script, BIG, 10, 202);
    script
}

fn two_sends_in_one_read() -> Script {
    let mut script = Script::default();
    let (first, second) = (script.post(10), script.post(20));
    let until = second.end;
    script.act([Send(first.end), Send(until)]);
    script.serve([Arrived(until), Read { size: BIG, until }]);
    for status in [200, 201] {
        let answer = script.answer(status, &[], b"answer");
        script.serve([WORK, Write(answer.end)]);
        script.act([Receive(answer.end)]);
    }
    script
}

fn three_in_one_write() -> Script {
    let mut script = Script::default();
    let last = [0, 20, 300].map(|body_bytes| script.post(body_bytes));
    let until = last[2].end;
    let answers = [200, 500, 201].map(|status| script.answer(status, &[], &[b'a'; 400]));
    script.act([Send(until), Receive(answers[2].end)]);
    script.serve([Arrived(until), Read { size: BIG, until }, WORK]);
    script.serve([Write(answers[2].end)]);
    simple(&mut script, BIG, 10, 202);
    script
}

fn read_ahead() -> Script {
    let mut script = Script::default();
    let asked = [10, 2000, 30].map(|body_bytes| script.post(body_bytes));
    for request in &asked {
        let until = request.end;
        script.act([Send(until), Act::Read(until)]);
        script.serve([Read { size: BIG, until }]);
    }
    for status in [200, 404, 201] {
        let answer = script.answer(status, &[], b"answer");
        script.serve([WORK, Write(answer.end)]);
        script.act([Receive(answer.end)]);
    }
    script
}

fn read_ahead_within_an_answer() -> Script {
    let mut script = Script::default();
    let (first, second) = (script.post(10), script.post(20));
    let one = script.answer(200, &[], &[b'1'; 3000]);
    let two = script.answer(201, &[], b"2");
    let middle = one.start + 1000;
    let until = first.end;
    script.serve([Read { size: BIG, until }, WORK, Write(middle)]);
    let until = second.end;
    script.serve([Read { size: BIG, until }, WORK, Write(one.end), WORK]);
    script.serve([Write(two.end)]);
    script.act([Send(first.end), Receive(middle), Send(second.end)]);
    script.act([Receive(two.end)]);
    script
}

/// Adds an early response to a request of which 1,000 bytes were read. The client goes on to send the request.
fn early(script: &mut Script) -> Range<usize> {
    let request = script.post(20_000);
    let until = request.start + 1000;
    let answer = script.answer(413, &[], b"too long");
    script.asked[0].early = true;
    script.act([Send(until), Receive(answer.end), Send(request.end)]);
    script.serve([Read { size: BIG, until }, WORK, Write(answer.end)]);
    request
}

fn early_drained() -> Script {
    let mut script = Script::default();
    let until = early(&mut script).end;
    script.act([Act::Read(until)]);
    script.serve([Read { size: 4096, until }]);
    simple(&mut script, BIG, 10, 200);
    script
}

fn early_drained_with_the_next() -> Script {
    let mut script = Script::default();
    early(&mut script);
    let next = script.post(10);
    let answer = script.answer(200, &[], b"answer");
    let until = next.end;
    script.act([Send(until), Receive(answer.end)]);
    script.serve([Arrived(until), Read { size: BIG, until }]);
    script.serve([WORK, Write(answer.end)]);
    script
}

fn drained_and_never_answered() -> Script {
    let mut script = Script::default();
    let request = script.post(10);
    let answer = script.answer(200, &["Connection: close"], b"answer");
    let until = request.end;
    script.serve([Read { size: BIG, until }, WORK, Write(answer.end)]);
    script.serve([FinishWriting, Drain { size: 4096 }]);
    let all = script.post(10).end;
    script.act([Send(until), Receive(answer.end), Send(all), Act::Read(all)]);
    script.act([FinishSending]);
    script.unfinished = (0, 1);
    script
}

fn split_continue() -> Script {
    let mut script = Script::default();
    let request = script.ask("POST", &["Expect: 100-continue"], &[b'x'; 3000]);
    let head = request.end - 3000;
    let most = script.interim(b"HTTP/1.1 100 Continue\r\n");
    let interim = script.interim(b"\r\n");
    let answer = script.answer(200, &[], b"answer");
    script.act([Send(head), Receive(interim), Send(request.end)]);
    script.act([Receive(answer.end)]);
    let until = head;
    script.serve([Read { size: BIG, until }, Write(most), Write(interim)]);
    let until = request.end;
    script.serve([Read { size: BIG, until }, WORK, Write(answer.end)]);
    simple(&mut script, BIG, 10, 201);
    script
}

fn websocket() -> Script {
    let mut script = Script::default();
    let fields = ["Connection: Upgrade", "Upgrade: websocket"];
    let request = script.ask("GET", &fields, b"");
    let answer = script.answer(101, &fields, b"");
    script.act([Send(request.end), Receive(answer.end)]);
    let until = request.end;
    script.serve([Read { size: BIG, until }, Write(answer.end)]);
    for _ in 0..3 {
        let until = script.send(b"POST /v1/models/fake:predict HTTP/1.1\r\n\r\n");
        let echo = script.interim(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        script.act([Send(until), Receive(echo)]);
        script.serve([Read { size: BIG, until }, Write(echo)]);
    }
    // The session is one request, to its last byte in both directions.
    script.asked[0].session_bytes = script.sent.len() - request.end;
    script.asked[0].answer.end = script.answered.len();
    script
}

const CHUNKED: &[&str] = &["Transfer-Encoding: chunked"];

fn split_terminator() -> Script {
    let mut script = Script::default();
    for status in [200, 201] {
        let request = script.post(10);
        let answer = script.answer(status, CHUNKED, b"3\r\nabc\r\n0\r\n\r\n");
        let until = request.end;
        script.act([Send(until), Receive(answer.end)]);
        script.serve([Read { size: BIG, until }, WORK, Write(answer.end - 5)]);
        script.serve([WORK, Write(answer.end - 2), WORK, Write(answer.end)]);
    }
    script
}

fn four_writes_a_chunk() -> Script {
    let mut script = Script::default();
    for status in [200, 201] {
        let request = script.post(10);
        let body = [&b"200\r\n"[..], &[b'c'; 512], b"\r\n"].concat().repeat(6);
        let body = [&body[..], b"0\r\n\r\n"].concat();
        let answer = script.answer(status, CHUNKED, &body);
        let until = request.end;
        script.act([Send(until), Receive(answer.end)]);
        script.serve([Read { size: BIG, until }, WORK]);
        let mut at = answer.end - body.len();
        script.serve([Write(at)]);
        while at + 5 < answer.end {
            script.serve([
                Write(at + 3),
                Write(at + 5),
                Write(at + 517),
                Write(at + 519),
            ]);
            at += 519;
        }
        script.serve([
            Write(answer.end - 4),
            Write(answer.end - 2),
            Write(answer.end),
        ]);
    }
    script
}

fn an_answer_cut_anywhere() -> Script {
    let mut script = Script::default();
    for (cut, status) in [
        (1, 200),
        (7, 201),
        (12, 404),
        (30, 500),
        (60, 200),
        (62, 201),
    ] {
        let request = script.post(10);
        let answer = script.answer(status, &[], &[b'a'; 40]);
        let until = request.end;
        script.act([Send(until), Receive(answer.end)]);
        script.serve([Read { size: BIG, until }, WORK, Write(answer.start + cut)]);
        script.serve([WORK, Write(answer.end)]);
    }
    script
}

fn a_byte_a_write() -> Script {
    let mut script = Script::default();
    for status in [200, 201] {
        let request = script.post(10);
        let answer = script.answer(status, &[], b"answer");
        let until = request.end;
        script.act([Send(until), Receive(answer.end)]);
        script.serve([Read { size: BIG, until }, WORK]);
        script.serve((answer.start..answer.end).map(|at| Write(at + 1)));
    }
    script
}

fn background_reads() -> Script {
    let mut script = Script::default();
    let first = script.post(10);
    let until = first.end;
    script.act([Send(until), Act::Read(until)]);
    script.serve([Read { size: BIG, until }]);
    for status in [200, 201, 202] {
        // While the handler runs, one byte of the next request is read beside it.
        let next = script.post(10);
        let answer = script.answer(status, &[], b"answer");
        let until = next.start + 1;
        script.serve([Beside(vec![Read { size: 1, until }]), Arrived(next.end)]);
        script.serve([WORK, Write(answer.end), Join]);
        let until = next.end;
        script.serve([Read { size: 4096, until }]);
        script.act([Awaited, Send(next.end), Receive(answer.end)]);
    }
    let answer = script.answer(500, &[], b"answer");
    script.serve([WORK, Write(answer.end)]);
    script.act([Receive(answer.end)]);
    script
}

fn two_threads() -> Script {
    let mut script = Script::default();
    for status in [200, 201] {
        let request = script.post(400);
        let answer = script.answer(status, &[], &[b'a'; 100]);
        let (middle, until) = (request.start + 100, request.end);
        script.act([Send(until), Receive(answer.end)]);
        script.serve([
            Arrived(until),
            Elsewhere(vec![Read {
                size: 100,
                until: middle,
            }]),
            Elsewhere(vec![Read { size: BIG, until }]),
            WORK,
            Elsewhere(vec![Write(answer.start + 30)]),
            Elsewhere(vec![Write(answer.end)]),
        ]);
    }
    script
}

fn half_closed() -> Script {
    let mut script = Script::default();
    let request = script.post(10);
    let answer = script.answer(200, &[], b"answer");
    let until = request.end;
    script.act([Send(until), FinishSending, Receive(answer.end)]);
    script.serve([Read { size: BIG, until }, Drain { size: BIG }, WORK]);
    script.serve([Write(answer.end)]);
    script
}

fn client_reset() -> Script {
    let mut script = Script::default();
    simple(&mut script, BIG, 10, 200);
    let until = script.post(10).end;
    script.act([Send(until), Act::Read(until), Act::Reset]);
    script.serve([Read { size: BIG, until }, Drain { size: BIG }]);
    script.unfinished = (1, 1);
    script
}

fn server_reset() -> Script {
    let mut script = Script::default();
    simple(&mut script, BIG, 10, 200);
    let until = script.post(10).end;
    script.act([Send(until)]);
    script.serve([Read { size: BIG, until }, WORK, Step::Reset]);
    script.unfinished = (1, 1);
    script
}

fn trailers() -> Script {
    let mut script = Script::default();
    for status in [200, 201] {
        let request = script.post(10);
        let body = b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";
        let answer = script.answer(status, CHUNKED, body);
        let until = request.end;
        script.act([Send(until), Receive(answer.end)]);
        script.serve([Read { size: BIG, until }, WORK, Write(answer.end)]);
    }
    script
}

fn a_chunk_a_byte() -> Script {
    let mut script = Script::default();
    for status in [200, 201, 202] {
        let body = [b"5\r\nabcde\r\n12c\r\n", &[b'c'; 300][..], b"\r\n0\r\n\r\n"].concat();
        let request = script.ask("POST", CHUNKED, &body);
        let answer = script.answer(status, &[], b"answer");
        let until = request.end;
        script.act([Send(until), Receive(answer.end)]);
        script.serve([Read { size: 1, until }, WORK, Write(answer.end)]);
    }
    script
}
