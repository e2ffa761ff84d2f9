//! Knows the programs that only start another one, such as `numactl`, `uv run` or `debugpy`, and what they start.
//!
//! `command` removes them, so that the catalogue's patterns match the program itself.
//! Does not depend on: servers.

/// A program that starts the one in its arguments.
#[derive(Debug)]
struct Wrapper {
    /// Names of the program, or of the Python script or module.
    names: &'static [&'static str],
    /// Words of which one must follow the name; empty: none.
    subcommands: &'static [&'static str],
    /// Options whose value is the next argument.
    valued: &'static [&'static str],
    /// Arguments before the command that are no options.
    positionals: usize,
    starts: Starts,
}

/// What a wrapper starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starts {
    /// Any program.
    Program,
    /// A Python script, or a module after `-m`.
    Python,
}

/// What remains of a command line without its wrapper.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unwrapped<'a> {
    /// The arguments of the command that is started.
    pub(super) arguments: Vec<&'a str>,
    pub(super) starts: Starts,
}

const fn program(
    names: &'static [&'static str],
    subcommands: &'static [&'static str],
    valued: &'static [&'static str],
    positionals: usize,
) -> Wrapper {
    Wrapper {
        names,
        subcommands,
        valued,
        positionals,
        starts: Starts::Program,
    }
}

const fn python(
    names: &'static [&'static str],
    subcommands: &'static [&'static str],
    valued: &'static [&'static str],
) -> Wrapper {
    Wrapper {
        names,
        subcommands,
        valued,
        positionals: 0,
        starts: Starts::Python,
    }
}

/// The wrappers. An option that is not listed with its wrapper has no value, or has it behind `=`.
static WRAPPERS: [Wrapper; 40] = [
    program(
        &["tini", "tini-static", "docker-init"],
        &[],
        &["-p", "-e"],
        0,
    ),
    program(&["dumb-init", "catatonit"], &[], &["-r", "--rewrite"], 0),
    program(
        &["nohup", "setsid", "catchsegv", "xvfb-run"],
        &[],
        &["-s", "-n"],
        0,
    ),
    program(&["env"], &[], &["-u", "--unset", "-C", "--chdir"], 0),
    program(&["nice"], &[], &["-n", "--adjustment"], 0),
    program(&["ionice"], &[], &["-c", "--class", "-n", "--classdata"], 0),
    program(&["chrt", "taskset"], &[], &[], 1),
    program(
        &["numactl"],
        &[],
        &[
            "-N",
            "--cpunodebind",
            "-m",
            "--membind",
            "-C",
            "--physcpubind",
            "-i",
            "--interleave",
            "-p",
            "--preferred",
        ],
        0,
    ),
    program(
        &["stdbuf"],
        &[],
        &["-i", "--input", "-o", "--output", "-e", "--error"],
        0,
    ),
    program(
        &["timeout"],
        &[],
        &["-s", "--signal", "-k", "--kill-after"],
        1,
    ),
    program(&["gosu", "su-exec"], &[], &[], 1),
    program(
        &["sudo", "doas"],
        &[],
        &["-u", "--user", "-g", "--group", "-D", "--chdir", "-C"],
        0,
    ),
    program(
        &["setpriv"],
        &[],
        &[
            "--reuid",
            "--regid",
            "--groups",
            "--inh-caps",
            "--ambient-caps",
            "--bounding-set",
        ],
        0,
    ),
    program(
        &["strace", "ltrace"],
        &[],
        &["-e", "-o", "-s", "-P", "-E", "-a", "-u"],
        0,
    ),
    program(
        &["perf"],
        &["record", "stat", "trace"],
        &["-o", "-e", "-F", "-c", "-C"],
        0,
    ),
    program(
        &["nsys"],
        &["profile", "launch"],
        &[
            "-o",
            "--output",
            "-t",
            "--trace",
            "-w",
            "-s",
            "--sample",
            "-y",
            "--delay",
            "-d",
            "--duration",
            "-c",
        ],
        0,
    ),
    program(
        &["ncu"],
        &[],
        &["-o", "--export", "-k", "-s", "-c", "--set"],
        0,
    ),
    program(&["rocprof", "rocprofv3"], &[], &["-o", "-i", "-d"], 0),
    program(
        &["mpirun", "mpiexec", "orterun"],
        &[],
        &[
            "-n",
            "-np",
            "-c",
            "-N",
            "-H",
            "-host",
            "--host",
            "-hostfile",
            "--hostfile",
            "-x",
            "--bind-to",
            "--map-by",
        ],
        0,
    ),
    program(
        &["trtllm-llmapi-launch", "ddtrace-run", "fil-profile"],
        &[],
        &[],
        0,
    ),
    program(
        &["uv"],
        &["run"],
        &[
            "--with",
            "--with-requirements",
            "--with-editable",
            "--extra",
            "--group",
            "--only-group",
            "-p",
            "--python",
            "--project",
            "--directory",
            "--package",
            "--env-file",
            "--index",
            "--index-url",
            "--config-file",
        ],
        0,
    ),
    program(
        &["uvx"],
        &[],
        &["--from", "--with", "-p", "--python", "--index"],
        0,
    ),
    program(
        &["conda", "mamba", "micromamba"],
        &["run"],
        &["-n", "--name", "-p", "--prefix", "--cwd", "-a", "--attach"],
        0,
    ),
    program(
        &["poetry"],
        &["run"],
        &["-C", "--directory", "-P", "--project"],
        0,
    ),
    program(&["pipenv", "rye", "hatch"], &["run"], &["-e", "--env"], 0),
    program(&["pdm"], &["run"], &["-p", "--project", "--venv"], 0),
    program(
        &["pixi"],
        &["run"],
        &["-e", "--environment", "--manifest-path"],
        0,
    ),
    program(&["dotenv"], &["run"], &["-f", "--file"], 0),
    program(
        &["opentelemetry-instrument"],
        &[],
        &[
            "--traces_exporter",
            "--metrics_exporter",
            "--logs_exporter",
            "--service_name",
            "--exporter_otlp_endpoint",
            "--exporter_otlp_traces_endpoint",
            "--resource_attributes",
        ],
        0,
    ),
    program(&["newrelic-admin"], &["run-program"], &[], 0),
    program(
        &["py-spy"],
        &["record", "top"],
        &[
            "-o",
            "--output",
            "-f",
            "--format",
            "-r",
            "--rate",
            "-d",
            "--duration",
        ],
        0,
    ),
    python(
        &["debugpy"],
        &[],
        &[
            "--listen",
            "--connect",
            "--log-to",
            "--parent-session-pid",
            "--adapter-access-token",
        ],
    ),
    python(
        &["pydevd.py", "pydevd"],
        &[],
        &["--client", "--port", "--vm_type", "--ppid"],
    ),
    python(
        &["memray"],
        &["run"],
        &["-o", "--output", "--live-port", "-p"],
    ),
    python(
        &["coverage"],
        &["run"],
        &[
            "--source",
            "--omit",
            "--include",
            "--rcfile",
            "--context",
            "--data-file",
            "--concurrency",
        ],
    ),
    python(
        &[
            "cProfile",
            "profile",
            "pdb",
            "ipdb",
            "trace",
            "kernprof",
            "viztracer",
            "pyinstrument",
            "scalene",
        ],
        &[],
        &["-o", "--outfile", "-s", "--output_file", "-r"],
    ),
    python(
        &[
            "torchrun",
            "torch.distributed.run",
            "torch.distributed.launch",
        ],
        &[],
        &[
            "--nnodes",
            "--nproc-per-node",
            "--nproc_per_node",
            "--rdzv-backend",
            "--rdzv_backend",
            "--rdzv-endpoint",
            "--rdzv_endpoint",
            "--rdzv-id",
            "--rdzv_id",
            "--rdzv-conf",
            "--rdzv_conf",
            "--max-restarts",
            "--max_restarts",
            "--monitor-interval",
            "--monitor_interval",
            "--start-method",
            "--start_method",
            "--role",
            "--log-dir",
            "--log_dir",
            "-r",
            "--redirects",
            "-t",
            "--tee",
            "--local-ranks-filter",
            "--local_ranks_filter",
            "--node-rank",
            "--node_rank",
            "--master-addr",
            "--master_addr",
            "--master-port",
            "--master_port",
            "--local-addr",
            "--local_addr",
        ],
    ),
    python(
        &["accelerate", "accelerate.commands.accelerate_cli"],
        &["launch"],
        ACCELERATE,
    ),
    python(
        &["accelerate-launch", "accelerate.commands.launch"],
        &[],
        ACCELERATE,
    ),
    python(
        &["deepspeed"],
        &[],
        &[
            "-H",
            "--hostfile",
            "-i",
            "--include",
            "-e",
            "--exclude",
            "--num_nodes",
            "--num_gpus",
            "--master_port",
            "--master_addr",
            "--launcher",
        ],
    ),
];

const ACCELERATE: &[&str] = &[
    "--config_file",
    "--num_processes",
    "--num_machines",
    "--num_cpu_threads_per_process",
    "--machine_rank",
    "--main_process_ip",
    "--main_process_port",
    "--mixed_precision",
    "--dynamo_backend",
    "--gpu_ids",
    "--rdzv_backend",
    "--rdzv_conf",
    "--same_network",
    "--role",
    "--tee",
    "--log_dir",
    "--deepspeed_config_file",
    "--zero_stage",
];

/// Removes the wrapper `name` from its `arguments`; `None` if it is no wrapper, or starts nothing.
pub(super) fn unwrap<'a>(name: &str, arguments: &[&'a str]) -> Option<Unwrapped<'a>> {
    if is_loader(name) {
        let options = [
            "--library-path",
            "--preload",
            "--audit",
            "--argv0",
            "--inhibit-rpath",
        ];
        return started(arguments, &options, 0, Starts::Program);
    }
    let wrapper = WRAPPERS
        .iter()
        .find(|wrapper| wrapper.names.contains(&name))?;
    let arguments = match wrapper.subcommands {
        [] => arguments,
        subcommands => {
            let (first, rest) = arguments.split_first()?;
            subcommands.contains(first).then_some(rest)?
        }
    };
    started(
        arguments,
        wrapper.valued,
        wrapper.positionals,
        wrapper.starts,
    )
}

/// Whether it is the dynamic loader, which may be started with a program to load.
fn is_loader(name: &str) -> bool {
    ["ld-linux", "ld-musl-", "ld.so", "ld64.so"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Returns the command behind a wrapper's own arguments.
fn started<'a>(
    arguments: &[&'a str],
    valued: &[&str],
    mut positionals: usize,
    starts: Starts,
) -> Option<Unwrapped<'a>> {
    let mut at = 0;
    loop {
        let argument = *arguments.get(at)?;
        let is_python = starts == Starts::Python;
        at += 1;
        match argument {
            "--" => break,
            // What Python itself would get, from here on.
            "-m" | "-c" if is_python => {
                at -= 1;
                break;
            }
            "--module" if is_python => {
                let rest = arguments.get(at..).filter(|rest| !rest.is_empty())?;
                return Some(Unwrapped {
                    arguments: [&["-m"], rest].concat(),
                    starts,
                });
            }
            "--file" if is_python => break,
            // `uv run -m module`
            "-m" | "--module" if !valued.contains(&argument) => {
                at -= 1;
                let rest = [&["-m"], &arguments[at + 1..]].concat();
                return Some(Unwrapped {
                    arguments: rest,
                    starts: Starts::Python,
                });
            }
            _ if argument.starts_with('-') => at += usize::from(valued.contains(&argument)),
            // `env NAME=VALUE`
            _ if !is_python && is_assignment(argument) => {}
            _ if positionals > 0 => positionals -= 1,
            _ => {
                at -= 1;
                break;
            }
        }
    }
    let rest = arguments.get(at..).filter(|rest| !rest.is_empty())?;
    Some(Unwrapped {
        arguments: rest.to_vec(),
        starts,
    })
}

fn is_assignment(argument: &str) -> bool {
    let name = argument.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapper_that_starts_nothing_is_none() {
        for (name, arguments) in [
            ("tini", &[][..]),
            ("uv", &["sync"]),
            ("uv", &["run"]),
            ("conda", &["activate", "x"]),
            ("numactl", &["--hardware"]),
            ("timeout", &["30"]),
            ("torchrun", &["--module"]),
            ("vllm", &["serve"]),
        ] {
            assert_eq!(unwrap(name, arguments), None, "{name} {arguments:?}");
        }
    }
}
