//! Compares the tokens of language models' responses with what their server wrote, and when.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread::{self, JoinHandle},
    time::Duration,
};

use inferprobe_tests::{
    agent::{
        Agent,
        request_log::{Logged, LoggedTokens},
    },
    client::{Connection, request},
    clock::monotonic_ns,
    http::head_len,
    require_kernel::require_kernel,
};

/// Pause before each write.
const PAUSE: Duration = Duration::from_millis(3);

const CHUNKED: &str = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n";
const UNTIL_CLOSE: &str = "Content-Type: text/event-stream\r\nConnection: close\r\n";
const LINES: &str = "Content-Type: application/x-ndjson\r\nConnection: close\r\n";
const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
const WORD: &str = r#"{"choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}]}"#;
const END: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":4}}"#;

/// A response, write by write; the first is its head.
struct Script {
    name: &'static str,
    writes: Vec<String>,
    /// Write that completes the first token; `None`: the response has none, or it cannot be known.
    first: Option<usize>,
    /// Write that completes the last one, and how many tokens there are; `None` if that cannot be known.
    last: Option<(usize, u64)>,
    input: Option<u64>,
    output: Option<u64>,
}

fn head(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// A whole response of a chat, with `filler` bytes of content.
fn plain(filler: usize) -> String {
    let content = "x".repeat(filler);
    format!(
        r#"{{"model":"m","choices":[{{"message":{{"content":"{content}"}}}}],"usage":{{"prompt_tokens":7,"completion_tokens":4}},"more":null}}"#
    )
}

fn with_length(body: &str) -> String {
    head(&format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    ))
}

fn scripts() -> Vec<Script> {
    let events = [
        ": ping\n\n".to_owned(),
        event(ROLE),
        event(WORD),
        event(WORD),
        event(END),
    ];
    let usage = [event(USAGE), event("[DONE]")];
    let chunks = |events: &[String]| events.iter().map(|data| chunk(data)).collect::<Vec<_>>();
    let last_chunk = || vec!["0\r\n\r\n".to_owned()];
    let stream = |name, writes: Vec<Vec<String>>, output| Script {
        name,
        writes: writes.concat(),
        first: Some(3),
        last: Some((5, if output { 4 } else { 2 })),
        input: output.then_some(7),
        output: output.then_some(4),
    };
    let state = |name, writes: Vec<String>| Script {
        name,
        writes,
        first: None,
        last: None,
        input: Some(7),
        output: Some(4),
    };
    let long = plain(100_000);
    let pieces = long.as_bytes().chunks(16_384);
    let pieces = pieces.map(|piece| String::from_utf8(piece.to_vec()).unwrap());
    let many = event(WORD).repeat(60);
    let line = |word: &str, done: bool| {
        format!("{{\"model\":\"m\",\"response\":\"{word}\",\"done\":{done}}}\n")
    };
    vec![
        stream(
            "events in chunks",
            vec![vec![head(CHUNKED)], chunks(&events), chunks(&usage), last_chunk()],
            true,
        ),
        stream(
            "events in chunks without usage",
            vec![vec![head(CHUNKED)], chunks(&events), chunks(&usage[1..]), last_chunk()],
            false,
        ),
        stream(
            "events until close",
            vec![vec![head(UNTIL_CLOSE)], events.to_vec(), usage.to_vec()],
            true,
        ),
        Script {
            name: "lines until close",
            writes: vec![
                head(LINES),
                line("", false),
                line("a", false),
                line("b", false),
                "{\"model\":\"m\",\"response\":\"\",\"done\":true,\"prompt_eval_count\":7,\"eval_count\":4}\n".into(),
            ],
            first: Some(2),
            last: Some((4, 4)),
            input: Some(7),
            output: Some(4),
        },
        Script {
            name: "an event in two writes",
            writes: vec![
                head(UNTIL_CLOSE),
                event(ROLE),
                event(WORD)[..30].to_owned(),
                event(WORD)[30..].to_owned(),
                event(USAGE),
            ],
            first: Some(3),
            last: Some((3, 4)),
            input: Some(7),
            output: Some(4),
        },
        Script {
            name: "many events in one write",
            writes: vec![
                head(CHUNKED),
                chunk(&event(WORD)),
                chunk(&many),
                chunk(&(many.clone() + &event(END))),
                "0\r\n\r\n".into(),
            ],
            first: Some(1),
            last: Some((3, 121)),
            input: None,
            output: None,
        },
        state("a long response in one write", vec![with_length(&long) + &long]),
        state("head and body in two writes", vec![with_length(&long), long.clone()]),
        state("a long response in pieces", [vec![with_length(&long)], pieces.collect()].concat()),
        state("a short response", vec![with_length(&plain(9)), plain(9)]),
        state(
            "a long response in a chunk",
            vec![head("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n") + &chunk(&long) + "0\r\n\r\n"],
        ),
        state(
            "a long response in chunks of several kilobytes",
            [
                vec![head("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n")],
                long.as_bytes()
                    .chunks(8_192)
                    .map(|piece| chunk(str::from_utf8(piece).unwrap()))
                    .collect(),
                last_chunk(),
            ]
            .concat(),
        ),
        Script {
            name: "a stream and its end in one write",
            writes: vec![
                head(CHUNKED),
                chunk(&(many.clone() + &usage.concat())) + "0\r\n\r\n",
            ],
            first: Some(1),
            last: Some((1, 4)),
            input: Some(7),
            output: Some(4),
        },
        Script {
            name: "a compressed stream",
            writes: vec![
                head("Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\nConnection: close\r\n"),
                event(WORD),
            ],
            first: None,
            last: None,
            input: None,
            output: None,
        },
    ]
}

/// Answers one request with the writes of `script`; returns the times before and after each.
fn serve(listener: &TcpListener, script: &Script) -> Vec<(u64, u64)> {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut input, mut block) = (Vec::new(), [0; 4096]);
    while head_len(&input).is_none_or(|len| input.len() < len + 2) {
        let len = socket.read(&mut block).unwrap();
        input.extend_from_slice(&block[..len]);
    }
    let writes = script.writes.iter().map(|write| {
        thread::sleep(PAUSE);
        let before_ns = monotonic_ns();
        socket.write_all(write.as_bytes()).unwrap();
        (before_ns, monotonic_ns())
    });
    writes.collect()
}

fn check(script: &Script, row: &Logged, writes_ns: &[(u64, u64)]) {
    let name = script.name;
    let tokens: LoggedTokens = row.tokens.unwrap_or_else(|| panic!("{name}: {row:?}"));
    assert_eq!(
        (tokens.input, tokens.output),
        (script.input, script.output),
        "{name}"
    );
    if script.writes.concat().contains(r#""model":"m""#) {
        assert_eq!(row.model, "m", "{name}");
    }
    let first_ns = tokens.first_ns.filter(|_| row.stream.is_some());
    let Some(first) = script.first else {
        assert!(
            script.output.is_some() || first_ns.is_none(),
            "{name}: {row:?}"
        );
        return;
    };
    let at_ns = row.arrival_ns.unwrap() + first_ns.unwrap_or_else(|| panic!("{name}: {row:?}"));
    let (before_ns, after_ns) = writes_ns[first];
    assert!(
        (before_ns..=after_ns).contains(&at_ns),
        "{name}: first token"
    );
    let (last, count) = script
        .last
        .expect("a stream with a first token has a last one");
    let gap_ns = tokens.gap_ns.unwrap_or_else(|| panic!("{name}: {row:?}"));
    let (last_before_ns, last_after_ns) = writes_ns[last];
    let least_ns = last_before_ns.saturating_sub(after_ns) / (count - 1);
    let most_ns = (last_after_ns - before_ns) / (count - 1);
    assert!(
        (least_ns..=most_ns).contains(&gap_ns),
        "{name}: {gap_ns} of {least_ns} to {most_ns}"
    );
}

#[test]
fn tokens_are_those_that_the_server_wrote() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = Agent::start(&["--watch-port", &port.to_string()]);
    let served: JoinHandle<Vec<_>> = thread::spawn(move || {
        let scripts = scripts().into_iter();
        scripts
            .map(|script| {
                let writes_ns = serve(&listener, &script);
                (script, writes_ns)
            })
            .collect()
    });
    for _ in scripts() {
        let bytes = request("POST", "/v1/chat/completions", &[], b"{}");
        Connection::open_tcp(port)
            .unwrap()
            .exchange(&bytes)
            .unwrap();
    }
    let served = served.join().unwrap();
    let rows = agent.rows(served.len(), |_| true);
    for ((script, writes_ns), row) in served.iter().zip(&rows) {
        check(script, row, writes_ns);
    }
    let metrics = agent.metrics();
    let count = |name: &str, label: (&str, &str)| metrics.sum(name, &[label]);
    let stated = served
        .iter()
        .filter(|(script, _)| script.output.is_some())
        .count() as f64;
    assert_eq!(
        count("inferprobe_tokens_total", ("type", "input")),
        7.0 * stated
    );
    assert_eq!(
        count("inferprobe_tokens_total", ("type", "output")),
        4.0 * stated
    );
    for (reason, expected) in [
        ("not_stated", 2.0),
        ("compressed", 1.0),
        ("not_copied", 0.0),
        ("unknown_form", 0.0),
    ] {
        assert_eq!(
            count("inferprobe_usage_unknown_total", ("reason", reason)),
            expected,
            "{reason}"
        );
    }
    let unknown = |figure| count("inferprobe_stream_unknown_total", ("figure", figure));
    assert_eq!(
        (
            unknown("time_to_first_token"),
            unknown("time_per_output_token")
        ),
        (1.0, 1.0)
    );
}
