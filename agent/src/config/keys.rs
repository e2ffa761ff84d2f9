//! Lists the keys of the configuration file, with their types, defaults and options.
//!
//! The documentation has one row for each; tests compare the list with what the file accepts. Does not depend on: the
//! checks of values.

/// One key at the top of the configuration file.
#[derive(Debug)]
pub struct Key {
    /// Name of the key.
    pub name: &'static str,
    /// Type and range of its value, in words.
    pub value: &'static str,
    /// Value if the key is left out, as written in TOML without quotes; empty if there is none.
    pub default: &'static str,
    /// Options of `serve` that set the same; empty if there is none.
    pub options: &'static [&'static str],
}

/// Every key, in the order of the documentation.
pub static KEYS: [Key; 21] = [
    key(
        "listen",
        "string `ADDR:PORT`",
        "127.0.0.1:8082",
        &["--listen"],
    ),
    key("allowed_hosts", "array of strings", "", &["--allowed-host"]),
    key("hostname", "string", "", &["--hostname"]),
    key("no_labels", "array of strings", "", &["--no-label"]),
    key("host_root", "path", "/", &["--host-root"]),
    key("ts_config", "path", "", &["--ts-config"]),
    key("discover", "boolean", "true", &["--no-discover"]),
    key(
        "refresh_interval_s",
        "integer, 1 to 3600",
        "5",
        &["--refresh-interval"],
    ),
    key("disk_mount", "path", "/", &["--disk-mount"]),
    key(
        "nvml_library",
        "path",
        "libnvidia-ml.so.1",
        &["--nvml-library"],
    ),
    key("gpm", "boolean", "false", &["--gpm"]),
    key("ask_servers", "boolean", "false", &["--ask-servers"]),
    key("probes", "boolean", "true", &["--no-probes"]),
    key("payload", "boolean", "true", &["--no-payload"]),
    key(
        "body_limit_kib",
        "integer, 0 to 16384",
        "1024",
        &["--body-limit"],
    ),
    key(
        "log_level",
        "error, warn, info, debug or trace",
        "info",
        &[],
    ),
    key("accept_wait", "boolean", "false", &["--accept-wait"]),
    key("tls", "timed or openssl", "timed", &["--tls"]),
    key("request_log", "path", "", &["--request-log"]),
    key(
        "watch",
        "array of tables",
        "",
        &["--watch-port", "--watch-exe"],
    ),
    key("server", "array of tables", "", &[]),
];

const fn key(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    options: &'static [&'static str],
) -> Key {
    Key {
        name,
        value,
        default,
        options,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        cli::ServeArgs,
        config::{Config, FileConfig},
    };

    #[test]
    fn the_keys_are_those_that_the_file_accepts() {
        let err = toml::from_str::<FileConfig>("no_such_key = 1").unwrap_err();
        let (_, accepted) = err.message().split_once("expected one of ").unwrap();
        let accepted: BTreeSet<&str> = accepted
            .split(", ")
            .map(|name| name.trim_matches('`'))
            .collect();
        assert_eq!(
            KEYS.iter().map(|key| key.name).collect::<BTreeSet<_>>(),
            accepted
        );
    }

    #[test]
    fn the_defaults_are_those_of_no_file() {
        let config = Config::load(&ServeArgs::default()).unwrap();
        for (name, actual) in [
            ("listen", config.listen.to_string()),
            ("refresh_interval_s", config.refresh.as_secs().to_string()),
            ("host_root", config.host_root.display().to_string()),
            ("disk_mount", config.disk_mount.display().to_string()),
            ("discover", config.discover.to_string()),
            ("gpm", config.gpm.to_string()),
            ("ask_servers", config.ask_servers.to_string()),
            ("probes", config.probes.to_string()),
            ("payload", config.payload.to_string()),
            ("body_limit_kib", config.body_limit.kib().to_string()),
            ("accept_wait", config.accept_wait.to_string()),
        ] {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            assert_eq!(key.default, actual, "{name}");
        }
    }
}
