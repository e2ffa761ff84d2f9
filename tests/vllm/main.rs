//! Compares the agent with a real vLLM on CPUs: its own counters and histograms are the judge. Needs root and 6 GB.

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
    server_counters::Counters,
};

use server::Vllm;

/// Output tokens of each request.
const OUTPUT: u64 = 24;
/// Words of a prompt: so that the first token takes long enough to be compared.
const PROMPT: usize = 200;
/// Rounds of the times, of which one must be within the limits: the machine may stop this process or vLLM.
const ROUNDS: u32 = 3;

/// A request: path, model, and whether the response is streamed.
type Ask = (&'static str, &'static str, bool);

/// All requests whose responses state their tokens, in reports.
const ALL: &str = "60 requests, up to 4 at once";

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// Requests whose responses state their tokens: each API, each model, streamed and not.
const STATED: [Ask; 12] = [
    (COMPLETIONS, "tiny", false),
    (COMPLETIONS, "tiny", true),
    (CHAT, "tiny", false),
    (CHAT, "tiny", true),
    (MESSAGES, "tiny", false),
    (MESSAGES, "tiny", true),
    (RESPONSES, "tiny", false),
    (RESPONSES, "tiny", true),
    (COMPLETIONS, "terse", false),
    (CHAT, "terse", true),
    (CHAT, "polite", false),
    (COMPLETIONS, "polite", true),
];

/// Body of a request with a prompt of its own, whose tokens are no one's from a cache.
fn body((path, model, streamed): Ask, number: usize, stated: bool) -> String {
    let words = (0..PROMPT).map(|at| format!("w{}", 3 + (number * 131 + at * 7) % 500));
    let prompt = words.collect::<Vec<_>>().join(" ");
    let asked = match path {
        COMPLETIONS => format!(r#""prompt":"{prompt}","max_tokens":{OUTPUT},"ignore_eos":true"#),
        RESPONSES => format!(r#""input":"{prompt}","max_output_tokens":{OUTPUT}"#),
        MESSAGES => {
            format!(r#""messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":{OUTPUT}"#)
        }
        _ => format!(
            r#""messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":{OUTPUT},"ignore_eos":true"#
        ),
    };
    let usage = match streamed && stated && matches!(path, COMPLETIONS | CHAT) {
        true => r#","stream_options":{"include_usage":true}"#,
        false => "",
    };
    // The model behind the prompt.
    format!(r#"{{{asked},"stream":{streamed}{usage},"model":"{model}"}}"#)
}

/// Sends requests one after the other, each on a connection of its own.
fn ask(port: u16, asks: &[Ask], first: usize, stated: bool) {
    for (at, ask) in asks.iter().enumerate() {
        client::post_json(port, ask.0, &body(*ask, first + at, stated));
    }
}

#[test]
#[ignore = "needs a vLLM of 6 GB: run `cargo xtask compare vllm`"]
fn requests_and_tokens_are_those_of_vllm() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let vllm = Vllm::start();
    let agent = Agent::start(&["--watch-port", &vllm.port.to_string()]);
    ask(vllm.port, &STATED, 0, true);
    let threads: Vec<_> = (1..5)
        .map(|client| {
            let port = vllm.port;
            thread::spawn(move || ask(port, &STATED, 100 * client, true))
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let asked = 5 * STATED.len();
    let rows = agent.rows(asked, |row| row.purpose == "inference");
    assert_eq!(rows.len(), asked);

    let counters = vllm.counters();
    let metrics = agent.metrics();
    let ours = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    equal(
        ALL,
        "requests",
        counters.sum("vllm:request_success_total"),
        ours("inferprobe_requests_total", &[("code", "200")]),
    );
    equal(
        ALL,
        "prompt tokens",
        counters.sum("vllm:prompt_tokens_total"),
        ours("inferprobe_tokens_total", &[("type", "input")]),
    );
    equal(
        ALL,
        "generated tokens",
        counters.sum("vllm:generation_tokens_total"),
        ours("inferprobe_tokens_total", &[("type", "output")]),
    );
    for model in ["tiny", "terse", "polite"] {
        let sent = 5 * STATED.iter().filter(|ask| ask.1 == model).count();
        let labels = [("model", model), ("code", "200")];
        let value = format!("requests to {model} (sent)");
        equal(
            ALL,
            &value,
            sent as f64,
            ours("inferprobe_requests_total", &labels),
        );
    }
    equal(
        ALL,
        "responses without tokens",
        0.0,
        ours("inferprobe_usage_unknown_total", &[]),
    );
    equal(
        ALL,
        "unknown times",
        0.0,
        ours("inferprobe_stream_unknown_total", &[]),
    );

    ask(
        vllm.port,
        &[(CHAT, "tiny", true), (COMPLETIONS, "terse", true)],
        900,
        false,
    );
    agent.wait_sum(
        "inferprobe_usage_unknown_total",
        &[("reason", "not_stated")],
        2.0,
    );
}

/// Sums of the times since another reading: of vLLM, and of the agent.
struct Times {
    first_s: f64,
    between_s: f64,
}

impl Times {
    fn of_vllm(before: &Counters, after: &Counters) -> Self {
        let rise = |name: &str| after.sum(name) - before.sum(name);
        Self {
            first_s: rise("vllm:time_to_first_token_seconds_sum"),
            between_s: rise("vllm:inter_token_latency_seconds_sum"),
        }
    }

    fn of_rows(rows: &[Logged]) -> Self {
        let tokens = rows.iter().map(|row| row.tokens.unwrap());
        let (first_ns, between_ns) = tokens.fold((0, 0), |(first_ns, between_ns), tokens| {
            let gaps = tokens.output.unwrap() - 1;
            let gap_ns = tokens.gap_ns.unwrap();
            (
                first_ns + tokens.first_ns.unwrap(),
                between_ns + gaps * gap_ns,
            )
        });
        Self {
            first_s: first_ns as f64 / 1e9,
            between_s: between_ns as f64 / 1e9,
        }
    }
}

#[test]
#[ignore = "needs a vLLM of 6 GB: run `cargo xtask compare vllm`"]
fn times_of_tokens_are_those_of_vllm() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let vllm = Vllm::start();
    let agent = Agent::start(&["--watch-port", &vllm.port.to_string()]);
    // Of the others vLLM has fewer tokens than were asked for, if the model ends early.
    let counted = |ask: &Ask| ask.2 && matches!(ask.0, COMPLETIONS | CHAT);
    let streams: Vec<Ask> = STATED.into_iter().filter(counted).collect();
    ask(vllm.port, &streams, 0, true);
    let is_inference = |row: &Logged| row.purpose == "inference";
    let mut logged = agent.rows(streams.len(), is_inference).len();
    let held = (1..=ROUNDS).any(|round| {
        let before = vllm.counters();
        ask(vllm.port, &streams, 100 * round as usize, true);
        let rows = agent
            .rows(logged + streams.len(), is_inference)
            .split_off(logged);
        logged += rows.len();
        let theirs = Times::of_vllm(&before, &vllm.counters());
        let ours = Times::of_rows(&rows);
        let (responses, gaps) = (rows.len() as f64, rows.len() as f64 * (OUTPUT - 1) as f64);
        let name = format!("round {round}");
        let means = |sum: f64, count: f64| sum / count;
        let first = close(
            &name,
            "first token",
            means(theirs.first_s, responses),
            means(ours.first_s, responses),
        );
        let between = close(
            &name,
            "between tokens",
            means(theirs.between_s, gaps),
            means(ours.between_s, gaps),
        );
        first && between
    });
    assert!(held, "a mean time is beyond its limit in each round");
}
