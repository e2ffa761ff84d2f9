//! Parses TorchServe's config.properties: the settings that the agent uses, each with its line for messages.
//!
//! `config` combines them with the agent's own options.
//! Does not depend on: files, what the agent does with the settings.

pub mod address;

use std::{
    collections::HashMap,
    fmt::{self, Display},
    io::Read as _,
};

use java_properties::{LineContent, PropertiesIter};

use crate::{torchserve::properties::address::Address, usage::UsageError};

/// TorchServe's settings, including its defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchServeFile {
    /// Path of the file as given.
    pub path: String,
    /// Address of the inference API over HTTP.
    pub inference_address: Setting<Address>,
    /// Address of the management API over HTTP.
    pub management_address: Setting<Address>,
    /// Address of TorchServe's metrics, if it serves them.
    pub metrics_address: Setting<Address>,
    /// Port of the inference API over gRPC.
    pub grpc_inference_port: Setting<u16>,
    /// Whether TorchServe serves its metrics itself.
    pub enable_metrics_api: Setting<bool>,
    /// How TorchServe publishes its metrics.
    pub metrics_mode: Setting<MetricsMode>,
    /// Time between TorchServe's readings of host metrics, seconds; not 0.
    pub metric_time_interval_s: Setting<u32>,
    /// Whether TorchServe uses epoll, and unix sockets to its workers; otherwise it uses TCP to them.
    pub use_native_io: Setting<bool>,
}

/// A value, and its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Line in the file, from 1; `None` if it is TorchServe's default.
    pub line: Option<usize>,
}

/// TorchServe's modes of publishing metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsMode {
    /// Only to log files: the endpoint is empty.
    Log,
    /// At the endpoint.
    Prometheus,
    /// Host metrics to log files, three counters at the endpoint.
    Legacy,
}

impl TorchServeFile {
    /// Parses the bytes of the file at `path`, which is only for messages; ignores unknown keys.
    pub fn parse(path: &str, bytes: &[u8]) -> Result<Self, UsageError> {
        let mut file = Lines::read(path, bytes)?;
        Ok(Self {
            inference_address: file.take(
                "inference_address",
                "http://127.0.0.1:8080",
                |value| address::parse(value, [80, 443]),
            )?,
            management_address: file.take(
                "management_address",
                "http://127.0.0.1:8081",
                |value| address::parse(value, [8081, 8444]),
            )?,
            metrics_address: file.take("metrics_address", "http://127.0.0.1:8082", |value| {
                address::parse(value, [8082, 8445])
            })?,
            grpc_inference_port: file.take("grpc_inference_port", "7070", parse_port)?,
            enable_metrics_api: file.take("enable_metrics_api", "true", parse_bool)?,
            metrics_mode: file.take("metrics_mode", "log", parse_mode)?,
            metric_time_interval_s: file.take("metric_time_interval", "60", parse_seconds)?,
            use_native_io: file.take("use_native_io", "true", parse_bool)?,
            path: file.path,
        })
    }
}

impl<T> Setting<T> {
    /// Returns `path`, with the line if there is one, for a message.
    pub fn place(&self, path: &str) -> String {
        match self.line {
            Some(line) => format!("{path}:{line}"),
            None => path.to_owned(),
        }
    }
}

impl Display for MetricsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Prometheus => "prometheus",
            Self::Legacy => "legacy",
        })
    }
}

/// Each key's last value, and its line.
struct Lines {
    path: String,
    values: HashMap<String, (usize, String)>,
}

impl Lines {
    fn read(path: &str, bytes: &[u8]) -> Result<Self, UsageError> {
        // Java ignores a backslash at the end of the file; the crate drops such a line.
        let lines = PropertiesIter::new(bytes.chain(&b"\n"[..]));
        let mut values = HashMap::new();
        for line in lines {
            let line = line.map_err(|err| syntax_error(path, &err))?;
            let number = line.line_number();
            if let LineContent::KVPair(key, value) = line.consume_content() {
                values.insert(key, (number, value));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            values,
        })
    }

    /// Checks the value of `key`, or TorchServe's `default`; `check` returns what is wrong, with the remedy.
    fn take<T>(
        &mut self,
        key: &str,
        default: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Setting<T>, UsageError> {
        let Some((line, value)) = self.values.remove(key) else {
            let value = check(default).expect("TorchServe's defaults are well-formed");
            return Ok(Setting { value, line: None });
        };
        let checked = if value.contains("$$") {
            Err("contains an environment variable of TorchServe; write the value out".into())
        } else {
            check(&value)
        };
        match checked {
            Ok(value) => Ok(Setting {
                value,
                line: Some(line),
            }),
            Err(reason) => Err(UsageError::Property {
                path: self.path.clone(),
                line,
                key: key.to_owned(),
                value,
                reason,
            }),
        }
    }
}

fn syntax_error(path: &str, err: &java_properties::PropertiesError) -> UsageError {
    let text = err.to_string();
    let reason = text.split(" (line_number").next().unwrap_or_default();
    UsageError::PropertySyntax {
        path: path.to_owned(),
        line: err.line_number().unwrap_or(1),
        reason: reason.trim_end_matches(['.', ':']).to_owned(),
    }
}

fn parse_port(value: &str) -> Result<u16, String> {
    address::decimal(value)
        .filter(|port| *port != 0)
        .ok_or_else(|| "not a TCP port; give a number from 1 to 65535".into())
}

fn parse_seconds(value: &str) -> Result<u32, String> {
    address::decimal(value)
        .filter(|seconds| *seconds != 0)
        .ok_or_else(|| "not a time; give whole seconds, 1 or more".into())
}

/// Parses true or false. TorchServe treats every other word as false, also `true` with a trailing space: an error here.
fn parse_bool(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("neither true nor false; give one of the two, without a trailing space".into()),
    }
}

/// Parses the mode. TorchServe removes white space, and treats unknown modes as `log`: an error here.
fn parse_mode(value: &str) -> Result<MetricsMode, String> {
    let word: String = value.split_ascii_whitespace().collect();
    match word.to_ascii_lowercase().as_str() {
        "log" => Ok(MetricsMode::Log),
        "prometheus" => Ok(MetricsMode::Prometheus),
        "legacy" => Ok(MetricsMode::Legacy),
        _ => Err("not a mode of TorchServe; give log, prometheus or legacy".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> TorchServeFile {
        TorchServeFile::parse("c", text.as_bytes()).unwrap()
    }

    fn error(bytes: &[u8]) -> String {
        let message = TorchServeFile::parse("dir/c.properties", bytes).unwrap_err();
        let message = message.to_string();
        assert!(!message.contains('\n'), "{message:?}");
        message
    }

    #[test]
    fn an_empty_file_gives_torchserves_defaults() {
        for text in ["", "\n\n", "# nothing\n! either", "model_store=/m\n"] {
            let file = parse(text);
            assert_eq!(
                file.inference_address.value.to_string(),
                "http://127.0.0.1:8080"
            );
            assert_eq!(
                file.management_address.value.to_string(),
                "http://127.0.0.1:8081"
            );
            assert_eq!(
                file.metrics_address.value.to_string(),
                "http://127.0.0.1:8082"
            );
            assert_eq!(file.metrics_address.line, None);
            assert_eq!(file.grpc_inference_port.value, 7070);
            assert_eq!(file.metric_time_interval_s.value, 60);
            assert_eq!(file.metrics_mode.value, MetricsMode::Log);
            assert!(file.enable_metrics_api.value && file.use_native_io.value);
        }
    }

    #[test]
    fn every_way_to_write_a_line_is_read() {
        let expected = Setting {
            value: 7,
            line: Some(3),
        };
        for line in [
            "metric_time_interval=7",
            "metric_time_interval = 7",
            "  metric_time_interval\t7",
            "metric_time_interval:7",
            "metric_time_interval : 7\r",
            "metric_time_interval=\\\n   7",
            "metric_\\\r\n  time_interval 7",
            "metric_time_interval=\\u0037",
            "metric_time_interval=7\\",
        ] {
            let text = format!("# one\n! metric_time_interval=9\n{line}");
            assert_eq!(parse(&text).metric_time_interval_s, expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_keeps_its_number_behind_continued_ones() {
        let file = parse("load_models=a.mar,\\\r\n  b.mar\r\n\r\ngrpc_inference_port=9\r\n");
        assert_eq!(file.grpc_inference_port.line, Some(4));
        assert_eq!(file.grpc_inference_port.value, 9);
    }

    #[test]
    fn the_last_of_several_lines_wins_as_in_java() {
        let file = parse("metrics_mode=foo\nmetrics_mode=legacy\nmetrics_mode=prometheus\n");
        assert_eq!(file.metrics_mode.value, MetricsMode::Prometheus);
        assert_eq!(file.metrics_mode.line, Some(3));
    }

    #[test]
    fn an_address_without_a_port_has_torchserves() {
        let file = parse(
            "inference_address=http://a\nmanagement_address=https://a\nmetrics_address=http://a",
        );
        assert_eq!(file.inference_address.value.to_string(), "http://a:80");
        assert_eq!(file.management_address.value.to_string(), "https://a:8444");
        assert_eq!(file.metrics_address.value.to_string(), "http://a:8082");
    }

    #[test]
    fn words_are_read_in_any_case_as_in_torchserve() {
        let file = parse("enable_metrics_api=False\nuse_native_io=TRUE\nmetrics_mode=Pro metheus ");
        assert!(!file.enable_metrics_api.value && file.use_native_io.value);
        assert_eq!(file.metrics_mode.value, MetricsMode::Prometheus);
    }

    #[test]
    fn malformed_values_are_named_with_file_line_key_value_and_remedy() {
        let mut cases: Vec<(&str, &str, &str)> = Vec::new();
        for key in ["inference_address", "management_address", "metrics_address"] {
            cases.push((key, "127.0.0.1:8082", "give http://HOST:PORT"));
        }
        for value in ["0", "65536", "-1", "7070 ", "grpc", ""] {
            cases.push(("grpc_inference_port", value, "from 1 to 65535"));
        }
        for value in ["0", "-5", "1.5", "60s", "4294967296", ""] {
            cases.push(("metric_time_interval", value, "whole seconds, 1 or more"));
        }
        for key in ["enable_metrics_api", "use_native_io"] {
            cases.extend(["yes", "1", "true ", ""].map(|value| (key, value, "neither true nor")));
        }
        for value in ["foo", "logs", ""] {
            cases.push(("metrics_mode", value, "give log, prometheus or legacy"));
        }
        for (key, value, remedy) in cases {
            let message = error(format!("# c\n\n{key}={value}\n").as_bytes());
            let start = format!("dir/c.properties:3: {key} {value:?}: ");
            assert!(message.starts_with(&start), "{message:?}");
            assert!(message.contains(remedy), "{message:?}");
        }
    }

    #[test]
    fn a_variable_of_the_environment_is_named() {
        let message = error(b"metrics_address=http://127.0.0.1:$$PORT$$");
        assert!(message.starts_with("dir/c.properties:1: metrics_address"));
        assert!(message.ends_with("write the value out"), "{message:?}");
    }

    #[test]
    fn a_broken_escape_is_named_with_its_line() {
        for text in ["a=b\nc=\\u12", "a=b\nc=\\uxyzw\n"] {
            let message = error(text.as_bytes());
            assert!(message.starts_with("dir/c.properties:2: "), "{message:?}");
            assert!(
                message.ends_with("; write \\\\ for a backslash"),
                "{message:?}"
            );
        }
    }

    #[test]
    fn bytes_of_any_kind_are_read_and_cut_anywhere() {
        let bytes = b"caf\xe9=\xff\xfe\0\nmetrics_mode=legacy\\\r\n\ngrpc_inference_port=8";
        let file = TorchServeFile::parse("c", bytes).unwrap();
        assert_eq!(file.metrics_mode.value, MetricsMode::Legacy);
        assert_eq!(file.grpc_inference_port.value, 8);
        for cut in 0..bytes.len() {
            match TorchServeFile::parse("c", &bytes[..cut]) {
                Ok(file) => assert_ne!(file.grpc_inference_port.value, 8),
                Err(err) => {
                    let message = err.to_string();
                    assert!(
                        message.starts_with("c:2: metrics_mode ")
                            || message.starts_with("c:4: grpc_inference_port \"\""),
                        "{cut}: {message:?}"
                    );
                }
            }
        }
    }
}
