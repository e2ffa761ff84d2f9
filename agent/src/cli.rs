//! The command line: its words and their help. Checked values are `config.rs`'s.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures every inference request on this host from the kernel, and serves the TorchServe metrics.
#[derive(Debug, Parser)]
#[command(name = "inferprobe", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach the probes and serve GET /metrics (the default).
    Serve(Box<ServeArgs>),
    /// Run the example inference server: two models, and a gentle stream of requests to itself.
    DemoServer(DemoArgs),
    /// Say what this host allows to be measured, and what would bring the rest: exit code 0 all, 1 not all, 2 nothing.
    Doctor(DoctorArgs),
    /// Have TorchServe run a number of workers of a model.
    Scale(ScaleArgs),
    /// Keep a model's queue time near a target by changing its number of workers in TorchServe.
    Autoscale(Box<AutoscaleArgs>),
}

/// Options of `serve`. Each is left out to mean "as in the configuration file, else the default".
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// Address and port of the metrics endpoint [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// TorchServe's own config.properties: its metrics address and interval hold where none is given here
    #[arg(long, value_name = "PATH")]
    pub ts_config: Option<PathBuf>,
    /// Watch whoever listens on this TCP port, now or later (repeatable)
    #[arg(long, value_name = "PORT")]
    pub watch_port: Vec<String>,
    /// Watch processes whose command line matches this regular expression (repeatable)
    #[arg(long, value_name = "REGEX")]
    pub watch_exe: Vec<String>,
    /// Seconds between readings of host and GPU figures, 1 to 3600 [default: 5]
    #[arg(long, value_name = "SECONDS")]
    pub refresh_interval: Option<u64>,
    /// Mount point that the disk figures are of [default: /]
    #[arg(long, value_name = "PATH")]
    pub disk_mount: Option<PathBuf>,
    /// NVML library to load instead of the system's libnvidia-ml.so.1
    #[arg(long, value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
    /// Serve host and GPU figures alone: nothing is loaded into the kernel
    #[arg(long)]
    pub no_probes: bool,
    /// Read no byte of what servers read and write: requests are timed and counted, without model, path and status
    #[arg(long)]
    pub no_payload: bool,
    /// Measure how long connections wait until their server accepts them: every system call of the host takes longer
    #[arg(long)]
    pub accept_wait: bool,
    /// Use only this attach mode: tracepoint, fentry, kprobe or syscall [default: best per hook]
    #[arg(long, value_name = "MODE", alias = "rung")]
    pub attach_mode: Option<String>,
    /// Append one JSON line for each finished request to this file (times in ns; never payload)
    #[arg(long, value_name = "PATH")]
    pub request_log: Option<PathBuf>,
    /// Start the example server when no inference server is found on this host
    #[arg(long)]
    pub demo: bool,
}

/// Options of `demo-server`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// TCP port on 127.0.0.1 to listen on; 0 takes a free one. The port is printed as one line
    #[arg(long, default_value_t = 0)]
    pub port: u16,
}

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// NVML library to load instead of the system's libnvidia-ml.so.1
    #[arg(long, value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
    /// Use only this attach mode, as serve would: tracepoint, fentry, kprobe or syscall
    #[arg(long, value_name = "MODE", alias = "rung")]
    pub attach_mode: Option<String>,
}

/// Options of `scale`.
#[derive(Debug, Clone, Args)]
pub struct ScaleArgs {
    /// Name of the model in TorchServe
    pub model: String,
    /// Fewest workers: TorchServe starts what is missing. With 0 it may answer the model's requests 503
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min_worker: String,
    /// Most workers: TorchServe ends those above, and keeps those between [default: as --min-worker]
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub max_worker: Option<String>,
    /// Wait until the workers are there
    #[arg(long)]
    pub synchronous: bool,
    /// Longest wait for TorchServe's answer, 1 to 3600 [default: 10, with --synchronous 150]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Where TorchServe is, and which version of the model is meant.
    #[command(flatten)]
    pub torchserve: ModelArgs,
}

/// Options of `autoscale`.
#[derive(Debug, Clone, Args)]
pub struct AutoscaleArgs {
    /// Name of the model in TorchServe, which is also its label in the agent's metrics
    #[arg(long, value_name = "MODEL")]
    pub model: String,
    /// Fewest workers. With 0 the last one goes when no request comes, and the next request is answered 503 before one is back
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min: String,
    /// Most workers
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    pub max: String,
    /// Mean queue time above which workers are added; below a quarter of it they are taken away
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    pub target_queue_ms: f64,
    /// Seconds between decisions, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub interval: u64,
    /// Least seconds between two changes of the number of workers, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub cool_down: u64,
    /// Intervals in a row with a low queue before a worker is taken away
    #[arg(long, value_name = "INTERVALS", default_value_t = 3)]
    pub down_after: u32,
    /// Print the decisions and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Metrics endpoint of the running agent
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8082/metrics"
    )]
    pub metrics: String,
    /// Address and port of this command's own metrics endpoint
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8083")]
    pub listen: String,
    /// Where TorchServe is, and which version of the model is meant.
    #[command(flatten)]
    pub torchserve: ModelArgs,
}

/// A model of a TorchServe, as `scale` and `autoscale` both name it.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Version of the model [default: TorchServe's default version; autoscale counts the requests of all]
    #[arg(long, value_name = "VERSION")]
    pub model_version: Option<String>,
    /// TorchServe's management address; plain HTTP
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub management: String,
    /// TorchServe's key_file.json, where it asks for a key
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
}
