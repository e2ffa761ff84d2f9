//! Declares the command line: subcommands, options and their help.
//!
//! `config` and `commands` check the values.
//! Does not depend on: any other module.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

/// Measure every inference request on this host from the kernel, and serve TorchServe-style metrics
#[derive(Debug, Parser)]
#[command(name = "inferprobe", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Subcommand; `None` means `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `serve`, if there is no subcommand.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach the probes and serve metrics [default]
    Serve(Box<ServeArgs>),
    /// Run the example inference server: two models, and a few requests per second to itself
    DemoServer(DemoArgs),
    /// Report what this host lets the agent measure, and how to fix the rest [exit code: 0 all, 1 not all, 2 nothing]
    Doctor(DoctorArgs),
    /// List every listener of this host: what it is watched as and why, or the option that would watch it
    Servers(ServersArgs),
    /// Show in this terminal where requests wait, live: of this host, or of any other by its address or ssh
    Top(TopArgs),
    /// Say why the requests of a model are slow, and how sure that is
    Why(WhyArgs),
    /// Record what top shows, as lines of JSON on standard output
    Record(RecordArgs),
    /// Show a recording: as top, and as the page in a browser
    View(ViewArgs),
    /// Print a file that comes with this version: unit, scrape configurations and others
    Assets(AssetsArgs),
    /// Set the number of TorchServe workers of a model
    Scale(ScaleArgs),
    /// Keep a model's queue time near a target by changing its number of TorchServe workers
    Autoscale(Box<AutoscaleArgs>),
}

/// Options of `serve`. For one that is left out, the configuration file decides, else the default.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Serve metrics on this address and port [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Also serve page and API to browsers that open them under this name [repeatable]
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// Name this host so in the labels Hostname and hostname [default: NODE_NAME of the environment, else the kernel's]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Leave this label out: port, namespace, pod or container [repeatable]
    #[arg(long, value_name = "LABEL")]
    pub no_label: Vec<String>,
    /// Find the host's files, which name pods and containers, below this folder [default: /]
    #[arg(long, value_name = "PATH")]
    pub host_root: Option<PathBuf>,
    /// Read options from this TOML file
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Read metrics address and interval from TorchServe's config.properties
    #[arg(long, value_name = "PATH")]
    pub ts_config: Option<PathBuf>,
    /// Watch the server on this TCP port, now or later [repeatable]
    #[arg(long, value_name = "PORT")]
    pub watch_port: Vec<String>,
    /// Watch processes whose command line matches, and their children [repeatable]
    #[arg(long, value_name = "REGEX")]
    pub watch_exe: Vec<String>,
    /// Watch only what is named or recognised by its command line: find no server by its modules or its first requests
    #[arg(long)]
    pub no_discover: bool,
    /// Set the time between readings of host and GPU metrics [1 to 3600 s; default: 5]
    #[arg(long, value_name = "SECONDS")]
    pub refresh_interval: Option<u64>,
    /// Report the disk usage of this mount point [default: /]
    #[arg(long, value_name = "PATH")]
    pub disk_mount: Option<PathBuf>,
    /// Load this NVML library [default: libnvidia-ml.so.1]
    #[arg(long, value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
    /// Read GPM values of GPUs that have them; another tool that reads them, such as DCGM, may get wrong ones
    #[arg(long)]
    pub gpm: bool,
    /// Ask vLLM, SGLang, TGI, Triton, llama.cpp and Ray Serve for their own metrics; sends them a request every few seconds
    #[arg(long)]
    pub ask_servers: bool,
    /// Load nothing into the kernel and report only host and GPU metrics
    #[arg(long)]
    pub no_probes: bool,
    /// Copy no payload: count and time requests without model, path and status
    #[arg(long)]
    pub no_payload: bool,
    /// Search the first so many KiB of a request's body for its model [0 to 16384; default: 1024]
    #[arg(long, value_name = "KIB")]
    pub body_limit: Option<u32>,
    /// Measure the time until a connection is accepted; adds about 13 ns to every system call
    #[arg(long)]
    pub accept_wait: bool,
    /// Read what OpenSSL encrypts and decrypts in watched servers, by probes in it: timed or openssl [default: timed]
    #[arg(long, value_name = "LIBRARY")]
    pub tls: Option<String>,
    /// Use only this attach mode: tracepoint, fentry, kprobe or syscall [default: best per hook]
    #[arg(long, value_name = "MODE", alias = "rung")]
    pub attach_mode: Option<String>,
    /// Append one JSON line per finished request to this file [times in ns, no payload]
    #[arg(long, value_name = "PATH")]
    pub request_log: Option<PathBuf>,
    /// Start the example server if no inference server is found
    #[arg(long)]
    pub demo: bool,
}

/// Options of `demo-server`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Listen on this TCP port of 127.0.0.1 and print it as one line; 0 takes a free port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
}

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Load this NVML library [default: libnvidia-ml.so.1]
    #[arg(long, value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
    /// Find the host's files, which name pods and containers, below this folder [default: /]
    #[arg(long, value_name = "PATH")]
    pub host_root: Option<PathBuf>,
    /// Use only this attach mode, as serve would: tracepoint, fentry, kprobe or syscall
    #[arg(long, value_name = "MODE", alias = "rung")]
    pub attach_mode: Option<String>,
}

/// Options of `servers`.
#[derive(Debug, Clone, Args)]
pub struct ServersArgs {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Read options from this TOML file, as serve does
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// List what serve would watch with this option [repeatable]
    #[arg(long, value_name = "PORT")]
    pub watch_port: Vec<String>,
    /// List what serve would watch with this option [repeatable]
    #[arg(long, value_name = "REGEX")]
    pub watch_exe: Vec<String>,
    /// List what serve would watch with this option
    #[arg(long)]
    pub no_discover: bool,
}

/// Options of `top`.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// Read the agent at this address: http://HOST:PORT, HOST, or ssh://USER@HOST [default: http://127.0.0.1:8082]
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub url: Option<String>,
    /// Read the agent at this address of the ssh host [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDR:PORT")]
    pub remote: Option<String>,
    /// Show a recording that comes with this version: needs no agent
    #[arg(long, conflicts_with_all = ["url", "remote"])]
    pub demo: bool,
    /// What is shown, and how.
    #[command(flatten)]
    pub screen: ScreenArgs,
}

/// What `top` shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Where the requests of each model waited
    #[default]
    Waterfall,
    /// The latest requests
    Requests,
    /// How long requests took, over the last minutes
    Heat,
    /// The GPUs, and who uses them
    Gpu,
}

/// What `top` sorts models by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Most requests first
    #[default]
    Rate,
    /// Most errors first
    Errors,
    /// Longest median first
    P50,
    /// Longest 99th percentile first
    P99,
    /// By name
    Name,
}

/// Options that `top` and `view` share.
#[derive(Debug, Clone, Default, Args)]
pub struct ScreenArgs {
    /// Print once and end, as without a terminal
    #[arg(long)]
    pub once: bool,
    /// Print once, as one JSON object, the API's own
    #[arg(long)]
    pub json: bool,
    /// Begin with this view
    #[arg(long, value_enum, default_value_t = View::Waterfall)]
    pub view: View,
    /// Sort models by this
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    pub sort: Sort,
    /// Show only models and requests whose model, server, status or reason contains this
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Use no colours, as with the environment variable NO_COLOR
    #[arg(long)]
    pub no_color: bool,
}

/// Options that `why` and `record` share.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// Read the agent at this address: http://HOST:PORT, HOST, or ssh://USER@HOST [default: http://127.0.0.1:8082]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub url: Option<String>,
    /// Read the agent at this address of the ssh host [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDR:PORT")]
    pub remote: Option<String>,
}

/// Options of `why`.
#[derive(Debug, Clone, Args)]
pub struct WhyArgs {
    /// Explain this model [default: each model that is slow]
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,
    /// Draw the slowest of the latest requests instead [1 to 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub slowest: Option<u16>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Use no colours, as with the environment variable NO_COLOR
    #[arg(long)]
    pub no_color: bool,
    /// Where the agent is.
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// Options of `record`.
#[derive(Debug, Clone, Args)]
pub struct RecordArgs {
    /// Record for so long, such as 30s, 10m or 2h; Ctrl-C ends it earlier
    #[arg(value_name = "TIME")]
    pub time: String,
    /// Where the agent is.
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// Options of `view`.
#[derive(Debug, Clone, Args)]
pub struct ViewArgs {
    /// Show this recording, compressed by gzip or not; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Serve the page for browsers on this address and port; without a terminal until a signal
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// What is shown, and how.
    #[command(flatten)]
    pub screen: ScreenArgs,
}

/// Options of `assets`.
#[derive(Debug, Clone, Args)]
pub struct AssetsArgs {
    /// Print this file [default: the list of names]
    pub name: Option<String>,
}

/// Options of `scale`.
#[derive(Debug, Clone, Args)]
pub struct ScaleArgs {
    /// Scale this model
    pub model: String,
    /// Start workers until there are this many; with 0 TorchServe may answer 503
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min_worker: String,
    /// End workers above this number [default: as --min-worker]
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub max_worker: Option<String>,
    /// Wait until the workers are ready
    #[arg(long)]
    pub synchronous: bool,
    /// Wait this long for TorchServe's response [1 to 3600 s; default: 10, with --synchronous 150]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// TorchServe's address, and the version of the model.
    #[command(flatten)]
    pub torchserve: ModelArgs,
}

/// Options of `autoscale`.
#[derive(Debug, Clone, Args)]
pub struct AutoscaleArgs {
    /// Scale this model [its name in TorchServe and in the label `model` of the agent's metrics]
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// Keep at least this many workers; with 0 the next request is answered 503 before a worker is back
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min: String,
    /// Keep at most this many workers
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub max: String,
    /// Add workers above this mean queue time; remove one below a quarter of it
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    pub target_queue_ms: f64,
    /// Decide this often [1 to 3600 s]
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub interval: u64,
    /// Wait at least this long between two changes [1 to 3600 s]
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub cool_down: u64,
    /// Remove a worker after this many intervals in a row with a low queue
    #[arg(long, value_name = "INTERVALS", default_value_t = 3)]
    pub down_after: u32,
    /// Print the decisions and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Read the agent's metrics at this address
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8082/metrics"
    )]
    pub metrics: String,
    /// Serve the command's own metrics on this address and port
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8083")]
    pub listen: String,
    /// TorchServe's address, and the version of the model.
    #[command(flatten)]
    pub torchserve: ModelArgs,
}

/// Options that `scale` and `autoscale` share.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Scale this version [default: TorchServe's default version]
    #[arg(long, value_name = "VERSION")]
    pub model_version: Option<String>,
    /// Call TorchServe's management API at this address, plain HTTP only
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub management: String,
    /// Read the key from TorchServe's key_file.json, anew for each call
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
}
