//! Chooses where the endpoint listens, and rejects every address where TorchServe itself listens according to its file.
//!
//! The option wins over the file's key, that over TorchServe's `metrics_address`, that over the default.
//! Does not depend on: sockets.

use std::net::{IpAddr, SocketAddr};

use crate::{
    torchserve::properties::{TorchServeFile, address::Address},
    usage::{UsageError, invalid},
};

/// Default address: the default of TorchServe's own metrics address.
const DEFAULT: &str = "127.0.0.1:8082";

/// Chooses the address; `given` is the name and value of the option or key.
pub(super) fn choose(
    given: Option<(&str, &str)>,
    torchserve: Option<&TorchServeFile>,
) -> Result<SocketAddr, UsageError> {
    match (given, torchserve) {
        (Some((name, value)), None) => parse(name, value),
        (Some((name, value)), Some(file)) => {
            let listen = parse(name, value)?;
            check_free(name, value, listen, file)?;
            Ok(listen)
        }
        (None, Some(file)) => of_torchserve(file),
        (None, None) => parse("--listen", DEFAULT),
    }
}

/// Parses an address and port to listen on; `name` is the option or key.
pub(crate) fn parse(name: &str, value: &str) -> Result<SocketAddr, UsageError> {
    value.parse().map_err(|_| {
        invalid(
            name,
            value,
            "not an address and port; write it like 127.0.0.1:8082 or [::1]:8082".into(),
        )
    })
}

/// Checks that TorchServe does not listen on `listen`.
fn check_free(
    name: &str,
    value: &str,
    listen: SocketAddr,
    file: &TorchServeFile,
) -> Result<(), UsageError> {
    let metrics = file.enable_metrics_api.value;
    for (key, setting, is_used, remedy) in [
        ("inference_address", &file.inference_address, true, ""),
        ("management_address", &file.management_address, true, ""),
        (
            "metrics_address",
            &file.metrics_address,
            metrics,
            " or set enable_metrics_api=false there",
        ),
    ] {
        if is_used && collide(listen, &setting.value) {
            let place = setting.place(&file.path);
            let address = &setting.value;
            let reason = format!(
                "TorchServe listens there ({place}: {key} {address}); choose another port{remedy}"
            );
            return Err(invalid(name, value, reason));
        }
    }
    Ok(())
}

/// Whether the two addresses exclude each other; a host name may stand for any address.
fn collide(listen: SocketAddr, theirs: &Address) -> bool {
    let Address::Tcp { port, .. } = theirs else {
        return false;
    };
    let same_host = theirs.ip().is_none_or(|ip| {
        let ours: IpAddr = listen.ip().to_canonical();
        ip.is_unspecified() || ours.is_unspecified() || ip == ours
    });
    listen.port() == *port && same_host
}

/// Returns TorchServe's own metrics address, if TorchServe does not use it itself.
fn of_torchserve(file: &TorchServeFile) -> Result<SocketAddr, UsageError> {
    let setting = &file.metrics_address;
    if file.enable_metrics_api.value {
        return Err(UsageError::Listen {
            place: file.enable_metrics_api.place(&file.path),
            reason: format!(
                "TorchServe serves its own metrics at {} while enable_metrics_api is true",
                setting.value
            ),
            remedy: "set enable_metrics_api=false there, or give --listen ADDR:PORT".into(),
        });
    }
    let Some(line) = setting.line else {
        return parse("--listen", DEFAULT);
    };
    let error = |reason: &str| UsageError::Property {
        path: file.path.clone(),
        line,
        key: "metrics_address".into(),
        value: setting.value.to_string(),
        reason: format!("{reason}; give --listen ADDR:PORT"),
    };
    match &setting.value {
        Address::Tcp {
            tls: false, port, ..
        } => match setting.value.ip() {
            Some(ip) => Ok(SocketAddr::new(ip, *port)),
            None => Err(error(
                "the endpoint listens on an IP address, not on a host name",
            )),
        },
        _ => Err(error("the endpoint supports only plain HTTP over TCP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API_OFF: &str = "enable_metrics_api=false\n";

    fn file(text: &str) -> TorchServeFile {
        TorchServeFile::parse("ts.properties", text.as_bytes()).unwrap()
    }

    fn refusal(given: Option<&str>, text: &str) -> String {
        let given = given.map(|value| ("--listen", value));
        let message = choose(given, Some(&file(text))).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message:?}");
        message
    }

    #[test]
    fn torchserves_address_is_used_if_torchserve_leaves_it_free() {
        for (text, expected) in [
            ("", "127.0.0.1:8082"),
            ("metrics_address=http://0.0.0.0:9082", "0.0.0.0:9082"),
            ("metrics_address=http://localhost:9082", "127.0.0.1:9082"),
        ] {
            let file = file(&format!("{API_OFF}{text}"));
            assert_eq!(choose(None, Some(&file)).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn an_address_that_is_given_wins() {
        for (text, given) in [
            ("metrics_address=http://127.0.0.1:9082\n", "127.0.0.1:8082"),
            ("metrics_address=http://127.0.0.1:9082\n", "127.0.0.1:9083"),
            ("metrics_address=unix:/ts.sock\n", "127.0.0.1:8082"),
            ("metrics_address=https://10.0.0.1:9082\n", "127.0.0.1:9082"),
            (API_OFF, "127.0.0.1:8082"),
            ("", "[::1]:8082"),
        ] {
            let chosen = choose(Some(("--listen", given)), Some(&file(text)));
            assert_eq!(chosen.unwrap().to_string(), given, "{text}");
        }
    }

    #[test]
    fn a_torchserve_that_serves_its_own_metrics_is_an_error() {
        for (text, start) in [
            (
                "",
                "ts.properties: TorchServe serves its own metrics at http://127.0.0.1:8082 ",
            ),
            (
                "metrics_address=http://127.0.0.1:9082\nenable_metrics_api=true",
                "ts.properties:2: TorchServe serves its own metrics at http://127.0.0.1:9082 ",
            ),
        ] {
            let message = refusal(None, text);
            assert!(message.starts_with(start), "{message:?}");
            let remedy = "; set enable_metrics_api=false there, or give --listen ADDR:PORT";
            assert!(message.ends_with(remedy), "{message:?}");
        }
    }

    #[test]
    fn an_address_that_torchserve_uses_is_an_error() {
        for (given, text, part) in [
            (
                "127.0.0.1:8082",
                "",
                "(ts.properties: metrics_address http://127.0.0.1:8082)",
            ),
            (
                "0.0.0.0:9082",
                "\nmetrics_address=http://127.0.0.1:9082",
                "(ts.properties:2: metrics_address",
            ),
            (
                "[::]:9082",
                "metrics_address=https://127.0.0.1:9082",
                "metrics_address https",
            ),
            (
                "[::ffff:127.0.0.1]:8082",
                "",
                "set enable_metrics_api=false",
            ),
            (
                "10.0.0.1:9082",
                "metrics_address=http://0.0.0.0:9082",
                "metrics_address",
            ),
            (
                "10.0.0.1:9082",
                "metrics_address=http://ts.internal:9082",
                "metrics_address",
            ),
            ("127.0.0.1:8080", API_OFF, "inference_address"),
            ("127.0.0.1:8081", API_OFF, "management_address"),
        ] {
            let message = refusal(Some(given), text);
            let start = format!("--listen {given:?}: TorchServe listens there ");
            assert!(message.starts_with(&start), "{message:?}");
            assert!(message.contains(part), "{message:?}");
        }
    }

    #[test]
    fn an_address_that_the_endpoint_cannot_use_is_an_error() {
        for (value, reason) in [
            ("https://127.0.0.1:8445", "plain HTTP over TCP"),
            ("unix:/ts.sock", "plain HTTP over TCP"),
            ("http://ts.internal:8082", "not on a host name"),
        ] {
            let message = refusal(None, &format!("{API_OFF}metrics_address={value}"));
            let start = format!("ts.properties:2: metrics_address {value:?}: ");
            assert!(message.starts_with(&start), "{message:?}");
            assert!(message.contains(reason), "{message:?}");
            assert!(
                message.ends_with("; give --listen ADDR:PORT"),
                "{message:?}"
            );
        }
    }
}
