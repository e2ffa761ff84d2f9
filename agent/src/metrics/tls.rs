//! Sums up TLS connections, and the requests on them: those that were only timed, and those that were read.
//!
//! Does not depend on: how a connection was followed.

use std::collections::BTreeMap;

use crate::{
    exchange::event::{Secured, TlsEvent},
    identity::Instance,
    metrics::{
        encode::{Samples, Value},
        families,
        histogram::Histogram,
    },
    protocol::tls::{Alpn, Version},
};

/// Label value of what was not observed.
const UNKNOWN: &str = "unknown";
/// Label `content` of requests that were timed and not read, and of those that were read.
const TIMED: &str = "timed";
const READ: &str = "read";

/// The TLS connections of each server.
#[derive(Debug, Default)]
pub(super) struct Tls {
    by_server: BTreeMap<Instance, Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    /// By version, protocol, resumption and certificate of the client.
    connections: BTreeMap<[&'static str; 4], u64>,
    handshake: Histogram,
    timed: u64,
    read: u64,
    busy_ns: u64,
}

impl Tls {
    /// Adds what a connection of `server` showed.
    pub(super) fn add(&mut self, server: Instance, event: TlsEvent) {
        let totals = self.by_server.entry(server).or_default();
        match event {
            TlsEvent::Secured(secured) => {
                *totals.connections.entry(labels(&secured)).or_default() += 1;
                if let Some(ns) = secured.handshake_ns {
                    totals.handshake.observe_ns(ns);
                }
            }
            TlsEvent::Timed => totals.timed += 1,
            TlsEvent::Read => totals.read += 1,
            TlsEvent::Busy(ns) => totals.busy_ns += ns,
        }
    }

    /// Adds every series to `samples`.
    pub(super) fn collect(&self, samples: &mut Samples) {
        for (Instance { server, replica }, totals) in &self.by_server {
            for ([version, alpn, resumed, client_cert], count) in &totals.connections {
                let labels = [&**server, version, alpn, resumed, client_cert];
                let value = Value::Integer(*count);
                samples.push_of(replica, &families::TLS_CONNECTIONS, &labels, value);
            }
            samples.push_histogram_of(
                replica,
                &families::TLS_HANDSHAKE,
                &[&**server],
                &totals.handshake,
            );
            for (content, count) in [(TIMED, totals.timed), (READ, totals.read)] {
                if count > 0 {
                    let value = Value::Integer(count);
                    samples.push_of(
                        replica,
                        &families::TLS_REQUESTS,
                        &[&**server, content],
                        value,
                    );
                }
            }
            if totals.busy_ns > 0 {
                let value = Value::Float(totals.busy_ns as f64 / 1e9);
                samples.push_of(replica, &families::TLS_BUSY, &[&**server], value);
            }
        }
    }
}

fn labels(secured: &Secured) -> [&'static str; 4] {
    [
        secured.version.map_or(UNKNOWN, Version::name),
        secured.alpn.map_or(UNKNOWN, Alpn::name),
        yes_or_no(secured.resumed),
        yes_or_no(secured.client_certificate),
    ]
}

fn yes_or_no(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "yes",
        Some(false) => "no",
        None => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::Replica,
        metrics::{Format, Metrics, Selection},
    };

    fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
        let text = metrics.encode(&Selection::named([name]), Format::Text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn connections_are_counted_by_what_their_handshakes_show() {
        let metrics = Metrics::new("vm");
        let server = Instance {
            server: "vllm".into(),
            replica: Replica::default(),
        };
        let secured = Secured {
            version: Some(Version::Tls13),
            alpn: Some(Alpn::Http2),
            resumed: Some(true),
            client_certificate: Some(false),
            handshake_ns: Some(2_000_000),
        };
        let unknown = Secured {
            version: None,
            alpn: None,
            resumed: None,
            client_certificate: None,
            handshake_ns: None,
        };
        for event in [
            TlsEvent::Secured(secured),
            TlsEvent::Secured(secured),
            TlsEvent::Secured(unknown),
            TlsEvent::Timed,
            TlsEvent::Busy(1_500_000_000),
        ] {
            metrics.tls(&server, event);
        }
        assert_eq!(
            lines(&metrics, "inferprobe_tls_connections_total"),
            [
                r#"inferprobe_tls_connections_total{server="vllm",version="1.3",alpn="h2",resumed="yes",client_cert="no",port="",namespace="",pod="",container=""} 2"#,
                r#"inferprobe_tls_connections_total{server="vllm",version="unknown",alpn="unknown",resumed="unknown",client_cert="unknown",port="",namespace="",pod="",container=""} 1"#,
            ]
        );
        assert_eq!(
            lines(&metrics, "inferprobe_tls_requests_total"),
            [
                r#"inferprobe_tls_requests_total{server="vllm",content="timed",port="",namespace="",pod="",container=""} 1"#
            ]
        );
        assert_eq!(
            lines(&metrics, "inferprobe_tls_multiplexed_busy_seconds_total"),
            [
                r#"inferprobe_tls_multiplexed_busy_seconds_total{server="vllm",port="",namespace="",pod="",container=""} 1.5"#
            ]
        );
        let handshakes = lines(&metrics, "inferprobe_tls_handshake_seconds");
        let count = r#"inferprobe_tls_handshake_seconds_count{server="vllm",port="",namespace="",pod="",container=""} 2"#;
        assert!(handshakes.contains(&count.to_owned()), "{handshakes:?}");
    }
}
