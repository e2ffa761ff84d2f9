//! Checks the command line and the configuration file, and joins them into one [`Config`].
//!
//! An option wins over the file, the file over TorchServe's own file, that over the default; watch lists add up.
//! Does not depend on: sockets, the kernel.

pub mod body_limit;
pub mod keys;
mod labels;
pub(crate) mod listen;
mod log_level;
mod management;
mod refresh;

use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    bpf::attach_mode::{AttachMode, UnknownAttachMode},
    catalogue::{Catalogue, file::FileServer},
    cli::ServeArgs,
    config::body_limit::BodyLimit,
    discovery::watch::{Target, Watch},
    http::url::HttpUrl,
    identity::ShownLabels,
    torchserve::properties::TorchServeFile,
    usage::{UsageError, invalid, parse_regex},
};

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the endpoint listens.
    pub listen: SocketAddr,
    /// Names under which browsers may open page and API.
    pub allowed_hosts: Vec<String>,
    /// Level of the agent's own log; `None`: `info`.
    pub log_level: Option<String>,
    /// Value of the labels `Hostname` and `hostname`.
    pub hostname: String,
    /// Labels of replicas that are used.
    pub shown_labels: ShownLabels,
    /// Where the root of the host is, with the names of containers.
    pub host_root: PathBuf,
    /// What to watch in addition to the servers of the catalogue.
    pub watches: Vec<Watch>,
    /// The servers that are recognised.
    pub catalogue: Arc<Catalogue>,
    /// Whether to find servers by their modules and their first requests.
    pub discover: bool,
    /// Time between readings of host and GPU metrics.
    pub refresh: Duration,
    /// Mount point whose disk usage is reported.
    pub disk_mount: PathBuf,
    /// NVML library to load; `None`: the system's.
    pub nvml_library: Option<PathBuf>,
    /// Whether to read GPM values of GPUs.
    pub gpm: bool,
    /// Whether to ask servers for their own metrics.
    pub ask_servers: bool,
    /// Whether to attach the probes.
    pub probes: bool,
    /// Whether to copy the beginnings of requests and responses.
    pub payload: bool,
    /// How much of a request's body is searched for its model.
    pub body_limit: BodyLimit,
    /// Whether to measure the time until a connection is accepted.
    pub accept_wait: bool,
    /// Whether to read what OpenSSL encrypts and decrypts.
    pub plaintext: bool,
    /// The only attach mode to use; `None` for the best of each hook.
    pub attach_mode: Option<AttachMode>,
    /// File that receives one JSON line per finished request.
    pub request_log: Option<PathBuf>,
    /// Whether to start the example server if no inference server is found.
    pub demo: bool,
    /// TorchServe's own file, if it is given.
    pub torchserve: Option<TorchServeFile>,
    /// Address of TorchServe's management API.
    pub management: HttpUrl,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    listen: Option<String>,
    #[serde(default)]
    allowed_hosts: Vec<String>,
    log_level: Option<String>,
    hostname: Option<String>,
    #[serde(default)]
    no_labels: Vec<String>,
    host_root: Option<PathBuf>,
    discover: Option<bool>,
    refresh_interval_s: Option<u64>,
    disk_mount: Option<PathBuf>,
    nvml_library: Option<PathBuf>,
    gpm: Option<bool>,
    ask_servers: Option<bool>,
    probes: Option<bool>,
    payload: Option<bool>,
    body_limit_kib: Option<u32>,
    accept_wait: Option<bool>,
    tls: Option<String>,
    request_log: Option<PathBuf>,
    ts_config: Option<PathBuf>,
    #[serde(default)]
    watch: Vec<FileWatch>,
    #[serde(default)]
    server: Vec<FileServer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileWatch {
    port: Option<u16>,
    exe: Option<String>,
    model: Option<String>,
    version: Option<String>,
    server: Option<String>,
}

impl Config {
    /// Reads the files that the command line names, checks everything, and joins it.
    pub fn load(args: &ServeArgs) -> Result<Self, UsageError> {
        let file = match &args.config {
            None => FileConfig::default(),
            Some(path) => {
                let text =
                    fs::read_to_string(path).map_err(unreadable("--config", "TOML", path))?;
                parse_file(&path.display().to_string(), &text)?
            }
        };
        let torchserve = match (&args.ts_config, &file.ts_config) {
            (Some(flag), _) => Some(read_torchserve("--ts-config", flag)?),
            (None, Some(key)) => Some(read_torchserve("ts_config", key)?),
            (None, None) => None,
        };
        join(args, file, torchserve)
    }

    /// Returns the keys with other values in `new` that take effect after a restart only.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let changed = [
            ("listen", self.listen != new.listen),
            ("allowed_hosts", self.allowed_hosts != new.allowed_hosts),
            ("hostname", self.hostname != new.hostname),
            ("host_root", self.host_root != new.host_root),
            ("discover", self.discover != new.discover),
            ("refresh_interval_s", self.refresh != new.refresh),
            ("disk_mount", self.disk_mount != new.disk_mount),
            ("nvml_library", self.nvml_library != new.nvml_library),
            ("gpm", self.gpm != new.gpm),
            ("ask_servers", self.ask_servers != new.ask_servers),
            ("probes", self.probes != new.probes),
            ("payload", self.payload != new.payload),
            ("body_limit_kib", self.body_limit != new.body_limit),
            ("accept_wait", self.accept_wait != new.accept_wait),
            ("tls", self.plaintext != new.plaintext),
            ("ts_config", self.torchserve != new.torchserve),
        ];
        let changed = changed.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(key, _)| key).collect()
    }
}

fn read_torchserve(name: &'static str, path: &Path) -> Result<TorchServeFile, UsageError> {
    let bytes = fs::read(path).map_err(unreadable(name, "config.properties", path))?;
    TorchServeFile::parse(&path.display().to_string(), &bytes)
}

fn unreadable(
    name: &'static str,
    kind: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> UsageError {
    let path = path.display().to_string();
    move |source| UsageError::Unreadable {
        name,
        kind,
        path,
        source,
    }
}

fn parse_file(path: &str, text: &str) -> Result<FileConfig, UsageError> {
    toml::from_str(text).map_err(|err: toml::de::Error| {
        let line = err
            .span()
            .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        UsageError::Malformed {
            path: path.to_owned(),
            line,
            message: err.message().replace('\n', " "),
        }
    })
}

fn join(
    args: &ServeArgs,
    file: FileConfig,
    torchserve: Option<TorchServeFile>,
) -> Result<Config, UsageError> {
    let listen = match (&args.listen, &file.listen) {
        (Some(flag), _) => Some(("--listen", flag.as_str())),
        (None, Some(key)) => Some(("listen", key.as_str())),
        (None, None) => None,
    };
    let listen = listen::choose(listen, torchserve.as_ref())?;
    let refresh_s = match (args.refresh_interval, file.refresh_interval_s) {
        (Some(flag), _) => Some(("--refresh-interval", flag)),
        (None, Some(key)) => Some(("refresh_interval_s", key)),
        (None, None) => None,
    };
    let refresh = refresh::choose(refresh_s, torchserve.as_ref())?;
    let body_limit = match (args.body_limit, file.body_limit_kib) {
        (Some(flag), _) => BodyLimit::of("--body-limit", flag)?,
        (None, Some(key)) => BodyLimit::of("body_limit_kib", key)?,
        (None, None) => BodyLimit::default(),
    };
    let hostname = match (&args.hostname, &file.hostname) {
        (Some(flag), _) => Some(("--hostname", flag.as_str())),
        (None, Some(key)) => Some(("hostname", key.as_str())),
        (None, None) => None,
    };
    let flags = args.no_label.iter().map(|label| ("--no-label", label));
    let keys = file.no_labels.iter().map(|label| ("no_labels", label));
    let shown_labels = labels::shown(flags.chain(keys))?;
    let mut watches = Vec::new();
    for port in &args.watch_port {
        watches.push(Watch::unnamed(Target::Port(parse_port(
            "--watch-port",
            port,
        )?)));
    }
    for exe in &args.watch_exe {
        watches.push(Watch::unnamed(Target::Exe(parse_regex(
            "--watch-exe",
            exe,
        )?)));
    }
    for (index, entry) in file.watch.into_iter().enumerate() {
        watches.push(check_watch(index + 1, entry)?);
    }
    let payload = !args.no_payload && file.payload.unwrap_or(true);
    let reads_tls = reads_tls(args.tls.as_deref(), file.tls.as_deref())?;
    Ok(Config {
        listen,
        allowed_hosts: [&*args.allowed_host, &file.allowed_hosts].concat(),
        log_level: file.log_level.map(log_level::check).transpose()?,
        hostname: labels::hostname(hostname, env::var(labels::NODE_NAME).ok())?,
        shown_labels,
        host_root: args
            .host_root
            .clone()
            .or(file.host_root)
            .unwrap_or_else(|| "/".into()),
        watches,
        catalogue: Arc::new(Catalogue::new(file.server)?),
        discover: !args.no_discover && file.discover.unwrap_or(true),
        refresh,
        disk_mount: args
            .disk_mount
            .clone()
            .or(file.disk_mount)
            .unwrap_or_else(|| "/".into()),
        nvml_library: args.nvml_library.clone().or(file.nvml_library),
        gpm: args.gpm || file.gpm.unwrap_or(false),
        ask_servers: args.ask_servers || file.ask_servers.unwrap_or(false),
        probes: !args.no_probes && file.probes.unwrap_or(true),
        payload,
        body_limit,
        accept_wait: args.accept_wait || file.accept_wait.unwrap_or(false),
        plaintext: payload && reads_tls,
        attach_mode: args
            .attach_mode
            .as_deref()
            .map(parse_attach_mode)
            .transpose()?,
        request_log: args.request_log.clone().or(file.request_log),
        demo: args.demo,
        management: management::choose(torchserve.as_ref())?,
        torchserve,
    })
}

/// Checks the values of `--tls` and of the file's `tls`; returns whether plaintext is to be read.
fn reads_tls(option: Option<&str>, key: Option<&str>) -> Result<bool, UsageError> {
    let (name, value) = match (option, key) {
        (Some(value), _) => ("--tls", value),
        (None, Some(value)) => ("tls", value),
        (None, None) => return Ok(false),
    };
    match value {
        "openssl" => Ok(true),
        "timed" => Ok(false),
        _ => Err(UsageError::Invalid {
            name: name.into(),
            value: value.into(),
            reason: "it must be timed or openssl".into(),
        }),
    }
}

/// Checks the value of `--attach-mode`.
pub(crate) fn parse_attach_mode(value: &str) -> Result<AttachMode, UsageError> {
    value
        .parse()
        .map_err(|err: UnknownAttachMode| UsageError::Invalid {
            name: "--attach-mode".into(),
            value: value.into(),
            reason: err.to_string(),
        })
}

fn check_watch(number: usize, entry: FileWatch) -> Result<Watch, UsageError> {
    let target = match (entry.port, entry.exe) {
        (Some(port), None) => Target::Port(parse_port("watch.port", &port.to_string())?),
        (None, Some(exe)) => Target::Exe(parse_regex("watch.exe", &exe)?),
        (port, exe) => {
            let reason = match (port, exe) {
                (Some(_), Some(_)) => "has both port and exe; keep one of them",
                _ => "has neither port nor exe; give one of them",
            };
            return Err(UsageError::Invalid {
                name: "[[watch]]".into(),
                value: format!("entry {number}"),
                reason: reason.into(),
            });
        }
    };
    Ok(Watch {
        target,
        model: entry.model,
        version: entry.version,
        server: entry.server,
    })
}

fn parse_port(name: &str, value: &str) -> Result<u16, UsageError> {
    match value.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(invalid(
            name,
            value,
            "not a TCP port; give a number from 1 to 65535".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ServeArgs {
        ServeArgs::default()
    }

    fn join_text(args: &ServeArgs, text: &str) -> Result<Config, UsageError> {
        join(args, parse_file("f.toml", text)?, None)
    }

    fn join_all(args: &ServeArgs, text: &str, properties: &str) -> Result<Config, UsageError> {
        let torchserve = TorchServeFile::parse("ts.properties", properties.as_bytes())?;
        join(args, parse_file("f.toml", text)?, Some(torchserve))
    }

    #[test]
    fn defaults_hold_when_nothing_is_given() {
        let config = join_text(&args(), "").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8082");
        assert_eq!(config.refresh, Duration::from_secs(5));
        assert_eq!(config.disk_mount, PathBuf::from("/"));
        assert!(config.probes && config.payload && !config.accept_wait);
        assert!(config.watches.is_empty());
        assert_eq!(config.shown_labels, ShownLabels::ALL);
        assert_eq!(config.host_root, PathBuf::from("/"));
    }

    #[test]
    fn labels_that_are_left_out_add_up() {
        let args = ServeArgs {
            no_label: vec!["pod".into()],
            ..args()
        };
        let text = "no_labels = [\"port\"]\nhostname = \"h\"";
        let config = join_text(&args, text).unwrap();
        let shown = ["port", "namespace", "pod", "container"];
        let shown = shown.map(|label| config.shown_labels.shows(label));
        assert_eq!(shown, [false, true, false, true]);
        assert_eq!(config.hostname, "h");
    }

    #[test]
    fn flags_win_over_the_file_and_watch_lists_add_up() {
        let args = ServeArgs {
            listen: Some("127.0.0.1:9".into()),
            watch_port: vec!["8000".into()],
            ..args()
        };
        let text = "listen = \"127.0.0.1:7\"\n[[watch]]\nexe = \"uvicorn\"\nmodel = \"m\"\n";
        let config = join_text(&args, text).unwrap();
        assert_eq!(config.listen.port(), 9);
        assert!(matches!(config.watches[0].target, Target::Port(8000)));
        assert!(matches!(&config.watches[1].target, Target::Exe(re) if re.as_str() == "uvicorn"));
        assert_eq!(config.watches[1].model.as_deref(), Some("m"));
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_torchserves_own() {
        let properties = "enable_metrics_api=false\nmetrics_address=http://127.0.0.1:9\n\
                          metric_time_interval=30";
        let flags = ServeArgs {
            listen: Some("127.0.0.1:7".into()),
            refresh_interval: Some(10),
            ..args()
        };
        let file = "listen = \"127.0.0.1:8\"\nrefresh_interval_s = 20";
        for (args, file, properties, port, refresh_s) in [
            (&flags, file, properties, 7, 10),
            (&args(), file, properties, 8, 20),
            (&args(), "", properties, 9, 30),
            (&args(), "", "enable_metrics_api=false", 8082, 5),
        ] {
            let config = join_all(args, file, properties).unwrap();
            assert_eq!(config.listen.port(), port);
            assert_eq!(config.refresh, Duration::from_secs(refresh_s));
            assert!(config.torchserve.is_some() && config.watches.is_empty());
        }
    }

    #[test]
    fn files_that_cannot_be_read_are_named_by_flag_or_key() {
        let folder = tempfile::tempdir().unwrap();
        let toml = folder.path().join("f.toml");
        fs::write(&toml, "ts_config = \"/no/such/file\"").unwrap();
        for (args, start) in [
            (
                ServeArgs {
                    config: Some("/no/such/file".into()),
                    ..args()
                },
                "--config /no/such/file: ",
            ),
            (
                ServeArgs {
                    ts_config: Some("/no/such/file".into()),
                    ..args()
                },
                "--ts-config /no/such/file: ",
            ),
            (
                ServeArgs {
                    config: Some(toml),
                    ..args()
                },
                "ts_config /no/such/file: ",
            ),
        ] {
            let message = Config::load(&args).unwrap_err().to_string();
            assert!(message.starts_with(start), "{message:?}");
        }
    }

    #[test]
    fn errors_name_the_input_and_the_remedy() {
        let cases: [(&str, &str); 8] = [
            ("lisen = \"x\"", "f.toml:1: unknown field `lisen`"),
            ("\nlisten = 3", "f.toml:2: invalid type: integer `3`"),
            (
                "[[watch]]\nmodel = \"m\"",
                "[[watch]] \"entry 1\": has neither port nor exe",
            ),
            (
                "[[watch]]\nport = 1\nexe = \"a\"",
                "[[watch]] \"entry 1\": has both port and exe",
            ),
            (
                "[[watch]]\nexe = \"(\"",
                "watch.exe \"(\": not a regular expression: found open group without closing ')'",
            ),
            (
                "[[server]]\nname = \"s\"\nproces = [\"a\"]",
                "f.toml:3: unknown field `proces`",
            ),
            (
                "[[server]]\nname = \"s\"\nprocess = [\"(\"]",
                "server.process \"(\": not a regular expression: found open group without closing ')'",
            ),
            (
                "refresh_interval_s = 0",
                "refresh_interval_s \"0\": out of range",
            ),
        ];
        for (text, expected) in cases {
            let message = join_text(&args(), text).unwrap_err().to_string();
            assert!(
                message.starts_with(expected),
                "{message:?} does not start with {expected:?}"
            );
            assert!(!message.contains('\n'), "{message:?}");
        }
    }

    #[test]
    fn bad_flags_are_named() {
        for (args, expected) in [
            (
                ServeArgs {
                    listen: Some("localhost".into()),
                    ..args()
                },
                "--listen \"localhost\"",
            ),
            (
                ServeArgs {
                    watch_port: vec!["70000".into()],
                    ..args()
                },
                "--watch-port \"70000\"",
            ),
            (
                ServeArgs {
                    watch_exe: vec!["[a".into()],
                    ..args()
                },
                "--watch-exe \"[a\"",
            ),
        ] {
            let message = join_text(&args, "").unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message:?}");
        }
    }
}
