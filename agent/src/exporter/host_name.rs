//! Checks the host that a browser named, against DNS rebinding: a page from elsewhere may point its own name at this
//! endpoint, and then read it.
//!
//! An IP address cannot be pointed elsewhere, and neither can `localhost`.
//! Does not depend on: what is served.

use std::net::IpAddr;

use hyper::{
    Request,
    header::HOST,
    http::uri::{Authority, Uri},
};

/// Returns the host of a request if it is not allowed: neither an IP address, nor `localhost`, nor one of `names`.
pub(super) fn refused<B>(request: &Request<B>, names: &[String]) -> Option<String> {
    let hosts = request.headers().get_all(HOST).into_iter();
    let named = hosts.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    // A request to a proxy names it in its target too.
    let target = Uri::authority(request.uri()).map(|authority| authority.as_str().to_owned());
    named
        .chain(target)
        .find(|authority| !is_allowed(authority, names))
}

fn is_allowed(authority: &str, names: &[String]) -> bool {
    let Ok(authority) = Authority::try_from(authority) else {
        return false;
    };
    // What stands before an @ is no host.
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if bare.unwrap_or(host).parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || names.iter().any(|name| name.eq_ignore_ascii_case(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_own_names_are_allowed() {
        let names = ["gpu-07".to_owned(), "Metrics.example.org".to_owned()];
        for (authority, expected) in [
            ("127.0.0.1:8082", true),
            ("10.0.0.7", true),
            ("[::1]:8082", true),
            ("[2001:db8::1]", true),
            ("localhost:8082", true),
            ("LOCALHOST.", true),
            ("a.localhost", true),
            ("gpu-07:8082", true),
            ("GPU-07", true),
            ("metrics.example.org:1", true),
            ("evil.example", false),
            ("gpu-07.evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("127.0.0.1@evil.example", false),
            ("evil.example@127.0.0.1", false),
            ("notlocalhost", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(is_allowed(authority, &names), expected, "{authority}");
        }
    }

    #[test]
    fn every_host_of_a_request_is_checked() {
        let request = |target: &str, hosts: &[&str]| {
            let mut request = Request::get(target);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            refused(&request.body(()).unwrap(), &[])
        };
        assert_eq!(request("/", &[]), None);
        assert_eq!(request("/", &["127.0.0.1"]), None);
        assert_eq!(request("/", &["127.0.0.1", "evil"]), Some("evil".into()));
        assert_eq!(request("http://evil/", &["127.0.0.1"]), Some("evil".into()));
    }
}
