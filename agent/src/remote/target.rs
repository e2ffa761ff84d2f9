//! Parses where an agent is: an address of its endpoint, or a host to reach by ssh.
//!
//! Does not depend on: the network, ssh.

use std::fmt;

use crate::{
    cli::AgentArgs,
    http::url::{HttpUrl, UrlError},
    usage::{UsageError, invalid},
};

/// Address of an agent's endpoint unless another is given.
pub const DEFAULT: &str = "http://127.0.0.1:8082";
/// Port of an agent's endpoint, for a host without one.
const PORT: u16 = 8082;
/// Paths of the endpoint that people copy together with its address.
const PAGES: [&str; 3] = ["/metrics", "/healthz", "/api"];

/// Where an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Its endpoint, at the address without a path of its own.
    Http(HttpUrl),
    /// Its endpoint is reached through ssh.
    Ssh(SshHost),
}

/// A host that ssh logs in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshHost {
    /// Host, after the user if one is given.
    pub destination: String,
    /// Port of the ssh server, if one is given.
    pub port: Option<u16>,
    /// Address of the agent's endpoint, as that host sees it.
    pub endpoint: HttpUrl,
}

impl Target {
    /// Parses the options that `why` and `record` share.
    pub fn of(args: &AgentArgs) -> Result<Self, UsageError> {
        Self::parse("--url", args.url.as_deref(), args.remote.as_deref())
    }

    /// Parses `text`, the value of `flag`; `remote` is the endpoint's address behind ssh.
    pub fn parse(flag: &str, text: Option<&str>, remote: Option<&str>) -> Result<Self, UsageError> {
        let text = text.unwrap_or(DEFAULT);
        if let Some(host) = text.strip_prefix("ssh://") {
            let refused = |reason: &str| invalid(flag, text, reason.into());
            let host = SshHost::parse(host, remote).map_err(|reason| refused(&reason))?;
            return Ok(Self::Ssh(host));
        }
        if let Some(remote) = remote {
            let reason = "has no use without an ssh:// address; leave it out";
            return Err(invalid("--remote", remote, reason.into()));
        }
        let url = endpoint(text).map_err(|reason| invalid(flag, text, reason))?;
        Ok(Self::Http(url))
    }
}

impl SshHost {
    fn parse(text: &str, remote: Option<&str>) -> Result<Self, String> {
        const FORM: &str =
            "write it like ssh://USER@HOST, or ssh://USER@HOST:PORT for another port of ssh";
        let text = text.strip_suffix('/').unwrap_or(text);
        let at_host = text.rfind('@').map_or(0, |at| at + 1);
        let (user, host) = text.split_at(at_host);
        // What follows the brackets of an IPv6 address, or the last colon, is the port.
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, "")) => (address, None),
            Some((address, rest)) => (address, Some(rest.strip_prefix(':').ok_or(FORM)?)),
            None => match host.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host, None),
            },
        };
        let port = match port {
            None => None,
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or(FORM)?),
        };
        let is_plain = |c: char| c.is_alphanumeric() || "@.-_:%+\\".contains(c);
        // ssh would take a leading hyphen for an option.
        if host.is_empty() || !text.chars().all(|c| is_plain(c) || "[]".contains(c)) {
            return Err(FORM.into());
        }
        if user.starts_with(['-', '@']) || host.starts_with('-') || !host.chars().all(is_plain) {
            return Err(FORM.into());
        }
        let remote = remote.unwrap_or(DEFAULT);
        Ok(Self {
            destination: format!("{user}{host}"),
            port,
            endpoint: endpoint(remote)
                .map_err(|reason| format!("--remote {remote:?}: {reason}"))?,
        })
    }
}

/// Returns the address of an endpoint that is given as `http://HOST:PORT`, with or without one of its paths, or only as
/// `HOST` or `HOST:PORT`.
fn endpoint(text: &str) -> Result<HttpUrl, String> {
    const FORM: &str = "not an address; write it like http://127.0.0.1:8082, or ssh://USER@HOST";
    let full = match text.contains("://") || text.starts_with("unix:") {
        true => text.to_owned(),
        false if text.contains(['/', '?', '#']) => return Err(FORM.into()),
        false => {
            let is_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
            let host = if is_ipv6 {
                format!("[{text}]")
            } else {
                text.to_owned()
            };
            let has_port = host
                .rsplit_once(':')
                .is_some_and(|(_, port)| !port.contains(']'));
            match has_port {
                true => format!("http://{host}"),
                false => format!("http://{host}:{PORT}"),
            }
        }
    };
    let url: HttpUrl = full.parse().map_err(|err| match err {
        UrlError::Malformed => FORM.to_owned(),
        UrlError::Tls => {
            "https:// is not supported; give ssh://USER@HOST, which is encrypted too".into()
        }
        UrlError::Unix => {
            "unix sockets are not supported; give an http:// or ssh:// address".into()
        }
        UrlError::User => "a user name works only in an ssh:// address".into(),
    })?;
    let path = url.target().split(['?', '#']).next().unwrap_or_default();
    let page = PAGES.iter().find_map(|page| path.find(page));
    let base = path[..page.unwrap_or(path.len())].trim_end_matches('/');
    format!("http://{}{base}/", url.authority())
        .parse()
        .map_err(|_| FORM.to_owned())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => write!(f, "{}", url.to_string().trim_end_matches('/')),
            Self::Ssh(SshHost {
                destination,
                port: None,
                ..
            }) => write!(f, "ssh://{destination}"),
            Self::Ssh(SshHost {
                destination,
                port: Some(port),
                ..
            }) => write!(f, "ssh://{destination}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, UsageError> {
        Target::parse("URL", Some(text), None)
    }

    #[test]
    fn an_endpoint_is_found_however_it_is_written() {
        for (text, expected) in [
            ("http://127.0.0.1:8082", "http://127.0.0.1:8082"),
            ("http://127.0.0.1:8082/", "http://127.0.0.1:8082"),
            ("http://127.0.0.1:8082/metrics", "http://127.0.0.1:8082"),
            ("http://h:1/metrics/", "http://h:1"),
            ("http://h:1/healthz", "http://h:1"),
            ("http://h:1/api/v1/live?x=y", "http://h:1"),
            ("http://h/gpu-07/metrics", "http://h/gpu-07"),
            ("http://h/gpu-07", "http://h/gpu-07"),
            ("gpu-07", "http://gpu-07:8082"),
            ("gpu-07:9000", "http://gpu-07:9000"),
            ("10.0.0.7", "http://10.0.0.7:8082"),
            ("::1", "http://[::1]:8082"),
            ("[::1]", "http://[::1]:8082"),
            ("[::1]:9000", "http://[::1]:9000"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        }
        let default = Target::parse("URL", None, None).unwrap();
        assert_eq!(default.to_string(), DEFAULT);
    }

    #[test]
    fn an_ssh_host_has_user_and_port_of_ssh() {
        for (text, destination, port) in [
            ("ssh://gpu-07", "gpu-07", None),
            ("ssh://me@gpu-07/", "me@gpu-07", None),
            ("ssh://me@gpu-07:2222", "me@gpu-07", Some(2222)),
            ("ssh://me@[fe80::1%eth0]:22", "me@fe80::1%eth0", Some(22)),
            ("ssh://[::1]", "::1", None),
            ("ssh://me@corp@gpu-07", "me@corp@gpu-07", None),
        ] {
            let Target::Ssh(host) = parse(text).unwrap() else {
                panic!("{text}");
            };
            assert_eq!(
                (host.destination.as_str(), host.port),
                (destination, port),
                "{text}"
            );
            assert_eq!(host.endpoint.to_string(), "http://127.0.0.1:8082/");
        }
        let target = Target::parse("URL", Some("ssh://h"), Some("127.0.0.1:9000")).unwrap();
        assert!(matches!(target, Target::Ssh(host) if host.endpoint.port() == 9000));
    }

    #[test]
    fn what_ssh_would_take_for_an_option_is_refused() {
        for text in [
            "ssh://-oProxyCommand=x",
            "ssh://-l@host",
            "ssh://me@-host",
            "ssh://",
            "ssh://me@",
            "ssh://@host",
            "ssh://host:0",
            "ssh://host:x",
            "ssh://host:22:22",
            "ssh://ho st",
            "ssh://host;id",
            "ssh://host\n",
            "ssh://host/path",
            "ssh://[::1",
            "ssh://[::1]22",
        ] {
            let err = parse(text).unwrap_err().to_string();
            assert!(err.contains("ssh://USER@HOST"), "{text:?}: {err}");
        }
    }

    #[test]
    fn other_addresses_are_refused_with_the_remedy() {
        for (text, part) in [
            ("https://gpu-07:8082", "ssh://USER@HOST"),
            ("unix:/run/x", "unix sockets"),
            ("http://me@gpu-07", "only in an ssh:// address"),
            ("ftp://gpu-07", "write it like http://127.0.0.1:8082"),
            ("gpu-07/metrics", "write it like http://127.0.0.1:8082"),
            ("", "write it like http://127.0.0.1:8082"),
            ("gpu-07:0", "write it like http://127.0.0.1:8082"),
            ("gpu 07", "write it like http://127.0.0.1:8082"),
        ] {
            let err = parse(text).unwrap_err().to_string();
            assert!(err.contains(part), "{text:?}: {err}");
        }
        let err = Target::parse("URL", Some("gpu-07"), Some("127.0.0.1:1")).unwrap_err();
        assert!(err.to_string().starts_with("--remote"), "{err}");
    }
}
