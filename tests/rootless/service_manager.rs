//! Checks what the agent reports to a service manager that waits for it.

use std::{os::unix::net::UnixDatagram, process::Command, time::Duration};

use inferprobe_tests::agent::{Agent, launcher::agent_binary};

/// Receives the next message of a service.
fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let size = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..size].to_vec()).unwrap()
}

#[test]
fn a_service_is_ready_once_it_serves_and_says_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut command = Command::new(agent_binary());
    command.env("NOTIFY_SOCKET", &path);
    let agent = Agent::start_by(command, &["--no-probes"]);
    assert_eq!(receive(&socket), "READY=1\nSTATUS=probes are off\n");
    agent.stop();
    assert_eq!(receive(&socket), "STOPPING=1\n");
}
