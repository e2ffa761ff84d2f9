//! Compares the agent with a real server of llama.cpp: its own counters are the judge. Needs root and 300 MB.

#![expect(
    clippy::unwrap_used,
    reason = "in a test file, a panic is a failed test"
)]

mod server;

use std::thread;

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    client,
    report::{close, equal},
    require_kernel::require_kernel,
};

use server::Llama;

/// Output tokens of each request.
const OUTPUT: u64 = 24;
/// Words of a prompt.
const PROMPT: usize = 100;
/// Rounds of the times, of which one must be within the limits: the machine may stop this process or the server.
const ROUNDS: usize = 3;

/// A request: path, and whether the response is streamed.
type Ask = (&'static str, bool);

/// How the agent calls the server, by its command line.
const SERVER: &str = "llama-server";
const NATIVE: &str = "/completion";
const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// Each API, streamed and not. Each response states its tokens.
const STATED: [Ask; 10] = [
    (NATIVE, false),
    (NATIVE, true),
    (COMPLETIONS, false),
    (COMPLETIONS, true),
    (CHAT, false),
    (CHAT, true),
    (MESSAGES, false),
    (MESSAGES, true),
    (RESPONSES, false),
    (RESPONSES, true),
];

/// Body of a request with a prompt of its own. The model is behind the prompt; the native API has none.
fn body((path, streamed): Ask, number: usize) -> String {
    let words = (0..PROMPT).map(|at| format!("w{}", 259 + (number * 131 + at * 7) % 250));
    let prompt = words.collect::<Vec<_>>().join(" ");
    let messages = format!(r#""messages":[{{"role":"user","content":"{prompt}"}}]"#);
    let asked = match path {
        NATIVE => format!(r#""prompt":"{prompt}","n_predict":{OUTPUT},"ignore_eos":true"#),
        COMPLETIONS => format!(r#""prompt":"{prompt}","max_tokens":{OUTPUT},"ignore_eos":true"#),
        RESPONSES => {
            format!(r#""input":"{prompt}","max_output_tokens":{OUTPUT},"ignore_eos":true"#)
        }
        _ => format!(r#"{messages},"max_tokens":{OUTPUT},"ignore_eos":true"#),
    };
    let usage = match streamed && path == CHAT {
        true => r#","stream_options":{"include_usage":true}"#,
        false => "",
    };
    let model = match path {
        NATIVE => "",
        _ => r#","model":"tiny""#,
    };
    format!(r#"{{{asked},"stream":{streamed}{usage}{model}}}"#)
}

/// Whether a line of the request log is of a request to llama.cpp's server.
fn is_inference(row: &Logged) -> bool {
    row.purpose == "inference" && row.server == SERVER
}

/// Sends requests one after the other, each on a connection of its own.
fn ask(port: u16, asks: &[Ask], first: usize) {
    for (at, ask) in asks.iter().enumerate() {
        client::post_json(port, ask.0, &body(*ask, first + at));
    }
}

#[test]
#[ignore = "needs llama.cpp's server: run `cargo xtask compare llama`"]
fn requests_and_tokens_are_those_of_llama() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let llama = Llama::start();
    let agent = Agent::start::<&str>(&[]);
    let port = llama.port;
    ask(port, &STATED, 0);
    let threads: Vec<_> = (1..5)
        .map(|client| thread::spawn(move || ask(port, &STATED, 100 * client)))
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let asked = 5 * STATED.len();
    let rows = agent.rows(asked, is_inference);
    assert_eq!(rows.len(), asked);

    let when = format!("{asked} requests, up to 4 at once");
    let counters = llama.counters();
    let metrics = agent.metrics();
    let ours = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let named = [("server", SERVER), ("model", "tiny"), ("code", "200")];
    let requests = ours("inferprobe_requests_total", &named);
    equal(&when, "requests (sent)", asked as f64, requests);
    for (theirs, value, kind) in [
        ("llamacpp:prompt_tokens_total", "tokens of prompts", "input"),
        (
            "llamacpp:tokens_predicted_total",
            "generated tokens",
            "output",
        ),
    ] {
        let labels = [("server", SERVER), ("type", kind)];
        let tokens = ours("inferprobe_tokens_total", &labels);
        equal(&when, value, counters.sum(theirs), tokens);
    }
    for (name, labels, value) in [
        (
            "inferprobe_usage_unknown_total",
            &[("server", SERVER)][..],
            "responses without tokens",
        ),
        ("inferprobe_stream_unknown_total", &[], "unknown times"),
    ] {
        equal(&when, value, 0.0, ours(name, labels));
    }
}

#[test]
#[ignore = "needs llama.cpp's server: run `cargo xtask compare llama`"]
fn times_of_tokens_are_those_of_llama() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let llama = Llama::start();
    let agent = Agent::start::<&str>(&[]);
    let streams: Vec<Ask> = STATED.into_iter().filter(|ask| ask.1).collect();
    ask(llama.port, &streams, 0);
    let mut logged = agent.rows(streams.len(), is_inference).len();
    let held = (1..=ROUNDS).any(|round| {
        let before = llama.counters();
        ask(llama.port, &streams, 100 * round);
        let rows = agent
            .rows(logged + streams.len(), is_inference)
            .split_off(logged);
        logged += rows.len();
        let after = llama.counters();
        let rise = |name: &str| after.sum(name) - before.sum(name);
        let count = rows.len() as f64;
        let name = format!("round {round}: {count} streams");
        let tokens = rows.iter().map(|row| row.tokens.unwrap());
        let (first_ns, between_ns) = tokens.fold((0, 0), |(first_ns, between_ns), tokens| {
            (
                first_ns + tokens.first_ns.unwrap(),
                between_ns + tokens.gap_ns.unwrap(),
            )
        });
        // llama.cpp's clock of generated tokens begins with the first one.
        let predicted = rise("llamacpp:tokens_predicted_seconds_total");
        let first = close(
            &name,
            "first token",
            rise("llamacpp:prompt_seconds_total") / count,
            first_ns as f64 / 1e9 / count,
        );
        let between = close(
            &name,
            "between tokens",
            predicted / (count * (OUTPUT - 1) as f64),
            between_ns as f64 / 1e9 / count,
        );
        first && between
    });
    assert!(held, "a mean time is beyond its limit in each round");
}
