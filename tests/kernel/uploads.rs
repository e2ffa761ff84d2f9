//! Covers long request bodies: they still arrive while the server reads them, and name their model last.

use inferprobe_tests::{
    agent::Agent,
    check_times::{mismatches, pair},
    client::{Connection, request},
    require_kernel::require_kernel,
    server::Server,
};

const MS: u64 = 1_000_000;
/// Longest time from bytes in a server's queue to the kernel's notification: a server that polls on another CPU may be
/// earlier.
const ANNOUNCED_NS: u64 = 200_000;

#[test]
fn arrival_of_a_large_upload_is_kept_across_reads() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    const REQUESTS: usize = 15;
    const SLEEP_MS: u64 = 30;
    // Reads of whole megabytes last long enough for more to arrive during each.
    let sleep = SLEEP_MS.to_string();
    let mut server = Server::start(&["--read-sleep-ms", &sleep, "--read-sizes", "4000000"]);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let mut client = Connection::open(&server.place).unwrap();
    let bytes = request("POST", "/predictions/upload", &[], &vec![b'x'; 20_000_000]);
    let mut sends = Vec::new();
    for _ in 0..REQUESTS {
        sends.push(client.exchange(&bytes).unwrap().0);
    }
    let rows = agent.rows(REQUESTS, |row| row.model == "upload");
    let stamps = server.stamps(REQUESTS);
    for ((stamp, row), sent) in pair(&stamps, &rows).iter().zip(&sends) {
        assert_eq!(
            mismatches(stamp, sent, row),
            Vec::<String>::new(),
            "{row:?}"
        );
        assert!(row.queue_ns() >= Some(SLEEP_MS * MS), "{row:?}");
        let latest_ns = stamp.readable_ns.map(|ns| ns + ANNOUNCED_NS);
        assert!(row.arrival_ns <= latest_ns, "{row:?}, {stamp:?}");
        let stages = [
            row.arrival_ns.unwrap(),
            row.first_read_ns,
            row.last_read_ns,
            row.first_write_ns.unwrap(),
            row.last_write_ns.unwrap(),
        ];
        assert!(stages.is_sorted(), "{row:?}");
    }
    agent.stop();
}

#[test]
fn model_behind_a_long_prompt_is_found_in_reads_of_any_size() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    const PROMPTS: [usize; 7] = [100, 900, 4_000, 20_000, 64_000, 300_000, 1_000_000];
    for sizes in ["4096", "9000", "65536", "4000000"] {
        let server = Server::start(&["--read-sizes", sizes]);
        let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
        let mut client = Connection::open(&server.place).unwrap();
        for bytes in PROMPTS {
            let prompt = "no ".repeat(bytes / 3);
            let body = format!(r#"{{"prompt":"{prompt}","model":"m{bytes}"}}"#);
            let bytes = request("POST", "/v1/completions", &[], body.as_bytes());
            client.exchange(&bytes).unwrap();
        }
        let rows = agent.rows(PROMPTS.len(), |row| row.status == 200);
        let models: Vec<&str> = rows.iter().map(|row| row.model.as_str()).collect();
        let expected = PROMPTS.map(|bytes| format!("m{bytes}"));
        assert_eq!(models, expected, "reads of {sizes}");
        agent.stop();
    }
}
