//! Tells a client that receives slowly from a server that produces slowly.

use std::time::Duration;

use inferprobe_tests::{
    agent::{Agent, request_log::Logged},
    client::{Connection, request},
    require_kernel::require_kernel,
    server::Server,
};

/// Larger than the send buffer of a loopback connection and the receive buffer behind it.
const LARGE: usize = 24 << 20;

/// Requests `target` of a server that is started with `args`; `receive` reads the response of at least these bytes.
fn measure(
    args: &[&str],
    target: &str,
    bytes: usize,
    receive: impl Fn(&mut Connection, usize),
) -> Logged {
    let server = Server::start(args);
    let agent = Agent::start(&["--watch-port", &server.port().to_string()]);
    let mut client = Connection::open(&server.place).unwrap();
    client.send(&request("POST", target, &[], b"{}")).unwrap();
    receive(&mut client, bytes);
    let mut rows = agent.rows(1, |row| row.model == "m");
    rows.remove(0)
}

fn stream_ms(row: &Logged) -> f64 {
    (row.last_write_ns.unwrap() - row.first_write_ns.unwrap()) as f64 / 1e6
}

#[test]
fn the_time_of_a_response_that_its_client_receives_slowly_is_the_clients() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let slowly = |client: &mut Connection, bytes| {
        let pause = Duration::from_millis(8);
        client.receive_slowly(bytes, 256 << 10, pause).unwrap();
    };
    let whole = format!("/predictions/m?body={LARGE}");
    let pieces = format!("{whole}&write_size=300000");
    for (args, target) in [
        (&[][..], &whole),
        (&["--io", "message"], &pieces),
        (&["--io", "sendfile"], &whole),
    ] {
        let row = measure(args, target, LARGE, slowly);
        let (stream_ms, undrained_ms) = (stream_ms(&row), row.undrained_ms.unwrap());
        println!("{args:?} {target}: {undrained_ms} of {stream_ms} ms");
        assert!(undrained_ms <= stream_ms + 0.1, "{row:?}");
        // Between the parts of a sendfile, the server reads the file, for as long as it has no CPU.
        let least_ms = if args.contains(&"sendfile") {
            300.0
        } else {
            0.8 * stream_ms
        };
        assert!(stream_ms > 300.0 && undrained_ms > least_ms, "{row:?}");
    }
}

#[test]
fn pauses_of_the_server_are_not_the_clients() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let at_once = |client: &mut Connection, _| {
        client.receive(false).unwrap();
    };
    for target in [
        "/predictions/m?chunks=10&body=40&gap_ms=30",
        // Large pieces, each of which may fill the buffer for a moment.
        "/predictions/m?chunks=10&body=2000000&gap_ms=40",
    ] {
        let row = measure(&[], target, 0, at_once);
        let (stream_ms, undrained_ms) = (stream_ms(&row), row.undrained_ms.unwrap());
        println!("{target}: {undrained_ms} of {stream_ms} ms");
        assert!(stream_ms > 250.0, "{row:?}");
        assert!(undrained_ms < 0.4 * stream_ms, "{row:?}");
    }
}

#[test]
fn a_unix_socket_tells_a_slow_server_and_never_takes_a_slow_client_for_one() {
    let Some(_kernel) = require_kernel() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = Server::start(&["--unix", path.to_str().unwrap(), "--tag", "of-receivers"]);
    let agent = Agent::start(&["--watch-exe", "reference-server.*of-receivers"]);
    let mut client = Connection::open(&server.place).unwrap();
    let target = "/predictions/m?chunks=10&body=40&gap_ms=30";
    client
        .exchange(&request("POST", target, &[], b"{}"))
        .unwrap();
    let target = format!("/predictions/n?body={LARGE}&write_size=30000");
    client.send(&request("POST", &target, &[], b"{}")).unwrap();
    let pause = Duration::from_millis(8);
    client.receive_slowly(LARGE, 256 << 10, pause).unwrap();
    let rows = agent.rows(2, |row| !row.model.is_empty());
    let (produced, received) = (&rows[0], &rows[1]);
    let undrained_ms = produced.undrained_ms.unwrap();
    assert!(undrained_ms < 0.1 * stream_ms(produced), "{produced:?}");
    // Only some attach modes know when writes to it begin.
    let is_told = received
        .undrained_ms
        .is_none_or(|undrained_ms| undrained_ms > 0.8 * stream_ms(received));
    assert!(stream_ms(received) > 300.0 && is_told, "{received:?}");
}
