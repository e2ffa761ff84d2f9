//! Reads how many bytes wait in the queues of TCP connections, as the kernel lists them.

use std::fs;

/// Returns how many bytes clients sent to a local port and its server has not read: in its queues, and still in theirs.
pub fn unread(port: u16) -> u64 {
    waiting(|server, _| server == port)
}

/// As [`unread`], of the one client on this host whose port is `client_port`.
pub fn unread_from(port: u16, client_port: u16) -> u64 {
    waiting(|server, client| (server, client) == (port, client_port))
}

/// Returns how many bytes the server at a local port has received from the client at `client_port`, and not read.
pub fn received_from(port: u16, client_port: u16) -> u64 {
    let mut bytes = 0;
    each_connection(|queues| {
        if (queues.own, queues.other) == (port, client_port) {
            bytes += queues.unread;
        }
    });
    bytes
}

/// Returns how many bytes wait on the connections that `wanted` accepts, by the ports of server and client.
fn waiting(wanted: impl Fn(u16, u16) -> bool) -> u64 {
    let mut bytes = 0;
    each_connection(|queues| {
        if wanted(queues.own, queues.other) {
            bytes += queues.unread;
        }
        if wanted(queues.other, queues.own) {
            bytes += queues.unacknowledged;
        }
    });
    bytes
}

/// The queues of one end of a connection.
struct Queues {
    own: u16,
    other: u16,
    unread: u64,
    unacknowledged: u64,
}

fn each_connection(mut look: impl FnMut(Queues)) {
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(path).expect("procfs is mounted");
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == "0A" {
                continue; // It listens: its queues count connections.
            }
            let (unacknowledged, unread) = fields[4].split_once(':').expect("two queues");
            let bytes = |hex| u64::from_str_radix(hex, 16).expect("a length");
            look(Queues {
                own: port_of(fields[1]),
                other: port_of(fields[2]),
                unread: bytes(unread),
                unacknowledged: bytes(unacknowledged),
            });
        }
    }
}

fn port_of(address: &str) -> u16 {
    let (_, port) = address.rsplit_once(':').expect("an address has a port");
    u16::from_str_radix(port, 16).expect("a port")
}
