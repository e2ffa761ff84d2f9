//! Parses an `http://` address that plain HTTP can reach.
//!
//! `client` connects to it.
//! Does not depend on: name resolution, sockets.

use std::{fmt, str::FromStr};

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Every character except those that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Port of an address without one.
const HTTP_PORT: u16 = 80;

/// An address for plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// Host and port as given, for the `Host` header.
    authority: String,
    host: String,
    port: u16,
    /// Path and query; the path begins with a slash.
    target: String,
}

/// Why a text is no [`HttpUrl`], with the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not an absolute address with a host.
    #[error("not an address; write it like http://127.0.0.1:8081")]
    Malformed,
    /// `https://`.
    #[error("https:// is not supported; give an http:// address, such as one on loopback")]
    Tls,
    /// `unix:`.
    #[error("unix sockets are not supported; give an http:// address")]
    Unix,
    /// User and password in the address.
    #[error("a user name in an address is not supported; a TorchServe key goes into --token-file")]
    User,
}

impl HttpUrl {
    /// Returns the host to connect to; an IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the value of the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns path and query for the request line.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the address of `segments` below this one, each percent-encoded, without a query.
    pub fn join(&self, segments: &[&str]) -> Self {
        let path = self.target.split('?').next().unwrap_or_default();
        let mut target = path.trim_end_matches('/').to_owned();
        for segment in segments {
            target.push('/');
            target.extend(utf8_percent_encode(segment, RESERVED));
        }
        Self {
            target,
            ..self.clone()
        }
    }

    /// Returns this address with another pair in its query, percent-encoded.
    #[must_use]
    pub fn with_pair(&self, name: &str, value: &str) -> Self {
        let mut target = self.target.clone();
        target.push(if target.contains('?') { '&' } else { '?' });
        target.extend(utf8_percent_encode(name, RESERVED));
        target.push('=');
        target.extend(utf8_percent_encode(value, RESERVED));
        Self {
            target,
            ..self.clone()
        }
    }
}

impl FromStr for HttpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // TorchServe writes its own sockets as `unix:/path`.
        if text.starts_with("unix:") {
            return Err(UrlError::Unix);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(UrlError::Tls),
            _ => return Err(UrlError::Malformed),
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let host = authority.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let rest = &authority.as_str()[authority.host().len()..];
        let port = match rest.strip_prefix(':') {
            None => HTTP_PORT,
            Some(port) => port.parse().map_err(|_| UrlError::Malformed)?,
        };
        if host.is_empty() || port == 0 {
            return Err(UrlError::Malformed);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self {
            authority: authority.to_string(),
            host: host.to_owned(),
            port,
            target: target.to_owned(),
        })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_found() {
        for (text, host, port, target) in [
            ("http://127.0.0.1:8081", "127.0.0.1", 8081, "/"),
            ("http://localhost", "localhost", 80, "/"),
            ("HTTP://localhost:1/", "localhost", 1, "/"),
            ("http://[::1]:8081/a/b?c=d", "::1", 8081, "/a/b?c=d"),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!(
                (url.host(), url.port(), url.target()),
                (host, port, target),
                "{text}"
            );
        }
    }

    #[test]
    fn unsupported_address_is_an_error_with_its_reason() {
        for (text, expected) in [
            ("", UrlError::Malformed),
            ("/models", UrlError::Malformed),
            ("127.0.0.1:8081", UrlError::Malformed),
            ("ftp://127.0.0.1", UrlError::Malformed),
            ("http://", UrlError::Malformed),
            ("http://a b", UrlError::Malformed),
            ("http://a:0", UrlError::Malformed),
            ("http://a:", UrlError::Malformed),
            ("http://a:65536", UrlError::Malformed),
            ("http://:8081", UrlError::Malformed),
            ("https://127.0.0.1:8081", UrlError::Tls),
            ("unix:/tmp/management.sock", UrlError::Unix),
            ("http://user:secret@127.0.0.1", UrlError::User),
        ] {
            assert_eq!(text.parse::<HttpUrl>(), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn names_are_percent_encoded() {
        let url: HttpUrl = "http://a:1/prefix/?x=y".parse().unwrap();
        let url = url.join(&["models", "a b?/%ü"]).with_pair("n[]", "a&b");
        assert_eq!(
            url.with_pair("c", "-._~").to_string(),
            "http://a:1/prefix/models/a%20b%3F%2F%25%C3%BC?n%5B%5D=a%26b&c=-._~"
        );
    }
}
