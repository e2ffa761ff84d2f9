//! Finds the addresses at which processes listen, as far as they can be reached from here.
//!
//! Does not depend on: what they serve.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::discovery::{listeners, procfs, roster::Recognised};

/// Process of Ray that has the page of all processes of its node.
const RAY_AGENT: [&str; 2] = ["ray/dashboard/agent.py", "ray::DashboardAgent"];
/// The server whose page that is, by its name in the catalogue.
const RAY_SERVE: &str = "ray-serve";

/// Why a process cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// It has a network of its own, as in a container.
    OtherNamespace,
    /// Its files could not be read.
    Refused,
}

/// Returns the addresses that a process listens on, as a client on this host connects to them.
pub(super) fn of(pid: u32) -> Result<BTreeSet<SocketAddr>, Unreachable> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    let its = namespace(&pid.to_string()).map_err(|_| Unreachable::Refused)?;
    if namespace("self").is_ok_and(|own| own != its) {
        return Err(Unreachable::OtherNamespace);
    }
    let addresses = listeners::addresses_of(pid).map_err(|_| Unreachable::Refused)?;
    Ok(addresses.into_iter().map(reachable).collect())
}

/// Returns processes of a server, and those that have its page although they serve nothing else.
pub(super) fn with_helpers(server: &Recognised) -> BTreeSet<u32> {
    let mut all = server.pids.clone();
    if &*server.name == RAY_SERVE {
        let processes = procfs::all().unwrap_or_default().into_iter();
        all.extend(processes.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            RAY_AGENT.iter().any(|name| line.contains(name))
        }));
    }
    all
}

/// A listener on every address is reached on loopback.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn own_listeners_are_reached_on_loopback() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = of(std::process::id()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        assert!(found.contains(&address), "{found:?}");
        assert_eq!(of(u32::MAX), Err(Unreachable::Refused));
        for (listening, expected) in [
            ("[::]:80", "[::1]:80"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
        ] {
            assert_eq!(
                reachable(listening.parse().unwrap()),
                expected.parse().unwrap()
            );
        }
    }
}
