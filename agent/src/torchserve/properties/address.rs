//! Parses an address of config.properties: HTTP over TCP, with or without TLS, or over a unix socket.
//!
//! Does not depend on: name resolution.

use std::{
    fmt::{self, Display},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    str::FromStr,
};

/// An address on which TorchServe listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// HTTP over TCP.
    Tcp {
        /// Whether it uses TLS.
        tls: bool,
        /// Name or IPv4 address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// HTTP over a unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Returns whether the address uses TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }

    /// Returns the IP address of the host; `None` for a name other than `localhost`, and for a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp { host, .. } if host.eq_ignore_ascii_case("localhost") => {
                Some(Ipv4Addr::LOCALHOST.into())
            }
            Self::Tcp { host, .. } => host.parse().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { tls, host, port } => {
                let scheme = if *tls { "https" } else { "http" };
                write!(f, "{scheme}://{host}:{port}")
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Parses an address; `default_ports` are those without and with TLS.
pub(super) fn parse(value: &str, default_ports: [u16; 2]) -> Result<Address, String> {
    try_parse(value, default_ports).ok_or_else(|| {
        "not an address that TorchServe supports; \
         give http://HOST:PORT, https://HOST:PORT (port 1 to 65534) or unix:/PATH"
            .into()
    })
}

fn try_parse(value: &str, [plain_port, tls_port]: [u16; 2]) -> Option<Address> {
    let (scheme, rest) = value.split_once(':')?;
    if scheme.eq_ignore_ascii_case("unix") {
        return rest
            .starts_with('/')
            .then(|| Address::Unix(PathBuf::from(rest)));
    }
    let tls = scheme.eq_ignore_ascii_case("https");
    if !tls && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let rest = rest.strip_prefix("//")?;
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, decimal(port)?),
        None => (rest, if tls { tls_port } else { plain_port }),
    };
    // TorchServe itself accepts neither the highest port nor an IPv6 address.
    let is_good = !host.is_empty() && !host.contains(['/', '^']) && (1..u16::MAX).contains(&port);
    is_good.then(|| Address::Tcp {
        tls,
        host: host.to_owned(),
        port,
    })
}

/// Parses digits without sign or space.
pub(super) fn decimal<T: FromStr>(value: &str) -> Option<T> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_parsed_as_torchserve_parses_it() {
        for (text, shown, ip) in [
            (
                "http://127.0.0.1:9082",
                "http://127.0.0.1:9082",
                Some("127.0.0.1"),
            ),
            ("HTTP://0.0.0.0", "http://0.0.0.0:8082", Some("0.0.0.0")),
            (
                "https://localhost",
                "https://localhost:8445",
                Some("127.0.0.1"),
            ),
            ("http://ts.internal:80", "http://ts.internal:80", None),
            ("unix:/tmp/ts.sock", "unix:/tmp/ts.sock", None),
        ] {
            let address = parse(text, [8082, 8445]).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.is_tls(), shown.starts_with("https"));
            assert_eq!(address.ip(), ip.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn address_that_torchserve_refuses_is_an_error_with_the_remedy() {
        for text in [
            "127.0.0.1:8082",
            "ftp://127.0.0.1:8082",
            "http:/127.0.0.1:8082",
            "http://:8082",
            "http://127.0.0.1:",
            "http://127.0.0.1:0",
            "http://127.0.0.1:65535",
            "http://127.0.0.1:+80",
            "http://127.0.0.1:8082/",
            "http://127.0.0.1:8082 ",
            "http://[::1]:8082",
            "unix:ts.sock",
            "",
        ] {
            let reason = parse(text, [80, 443]).unwrap_err();
            assert!(
                reason.contains("give http://HOST:PORT"),
                "{text:?}: {reason}"
            );
        }
    }
}
