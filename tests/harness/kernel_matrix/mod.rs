//! Tests the agent on the running kernel in each attach mode: `cargo xtask kernel-test` runs this in virtual machines,
//! and on the host.
//!
//! It needs only the agent and the reference server beside it.

mod accuracy;
mod instructions;
mod load;
mod plain;
mod preemption;
mod records;
mod rows;
mod stage;
mod tls;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use clap::Parser;

use crate::{
    agent::{ATTACH_MODE, Agent},
    exposition::Sample,
    kernel_matrix::{
        accuracy::Accuracy,
        instructions::{Cost, Instructions},
        rows::{Judged, Row},
        stage::Stage,
    },
    loss_counters::{LOST, LossCounters, UNFINISHED},
    require_kernel::require_kernel,
};

/// Start of the agent's last line.
const SAID: &str = "inferprobe: ";
/// Family of hooks.
const HOOKS: &str = "inferprobe_hook_info";
/// Family of program runs that the kernel's recursion guard skipped.
const SKIPPED: &str = "inferprobe_bpf_recursion_misses_total";

/// Runs the agent on the running kernel in each attach mode, and checks what it measures.
///
/// Lines that begin with `row: ` are rows of the table. The exit code is 0 if every attach mode passed.
#[derive(Debug, Parser)]
#[command(name = "kernel-guest")]
pub struct Options {
    /// Test only this attach mode; may be repeated [default: auto, then each by itself]
    #[arg(long, alias = "rung", value_name = "MODE")]
    attach_mode: Vec<AttachMode>,
    /// Fail unless this kernel has the attach mode; may be repeated
    #[arg(long, value_name = "MODE")]
    must: Vec<AttachMode>,
    /// Fail unless this kernel has TLS
    #[arg(long)]
    must_encrypt: bool,
    /// Time this many requests in each attach mode
    #[arg(long, default_value_t = 400)]
    requests: usize,
    /// Send this many requests under load in each attach mode, in place of all else
    #[arg(long, value_name = "REQUESTS")]
    load: Option<usize>,
    /// With --load: change the preemption model again and again meanwhile
    #[arg(long, requires = "load")]
    change_preemption: bool,
    /// Do this so often in each attach mode, with one agent; 0: only count instructions
    #[arg(long, default_value_t = 1, conflicts_with = "load")]
    repeat: usize,
    /// Count instructions too: the clock advances by this with each
    #[arg(long, value_name = "NS")]
    instruction_ns: Option<u64>,
}

/// Attach modes of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum AttachMode {
    /// The agent's own choice: the best that works for each hook.
    Auto,
    Tracepoint,
    Fentry,
    Kprobe,
    Syscall,
}

impl AttachMode {
    const ALL: [Self; 5] = [
        Self::Auto,
        Self::Tracepoint,
        Self::Fentry,
        Self::Kprobe,
        Self::Syscall,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Syscall => "syscall",
        }
    }

    /// Returns the options of the agent.
    fn args(self) -> Vec<String> {
        match self {
            Self::Auto => Vec::new(),
            mode => vec![ATTACH_MODE.to_owned(), mode.name().to_owned()],
        }
    }

    /// Returns whether arrivals are measured.
    fn knows_arrival(self) -> bool {
        self != Self::Syscall
    }
}

/// Runs what the options say. Returns whether every attach mode passed.
pub fn run(options: &Options) -> bool {
    let Some(_kernel) = require_kernel() else {
        return true;
    };
    if options.must_encrypt && !tls::is_in_kernel() {
        println!("row: {}", Row::failed("all", "this kernel has no TLS"));
        return false;
    }
    let modes = match options.attach_mode.as_slice() {
        [] => &AttachMode::ALL[..],
        named => named,
    };
    let mut all_well = true;
    for &mode in modes {
        let start = Instant::now();
        let tried = catch_unwind(AssertUnwindSafe(|| try_mode(mode, options)));
        let row = tried.unwrap_or_else(|_| Row::failed(mode.name(), "see the panic above"));
        all_well &= row.is_well();
        println!("row: {row}");
        println!("{}: {:.1} s", mode.name(), start.elapsed().as_secs_f64());
    }
    all_well
}

fn try_mode(mode: AttachMode, options: &Options) -> Row {
    let row = match options.load {
        Some(requests) => load(mode, options, requests),
        None => judge(mode, options).map(|runs| match runs.as_slice() {
            [] => Row::counted(mode.name()),
            runs => Row::judged(mode.name(), runs),
        }),
    };
    row.unwrap_or_else(|said| refused(mode, &said, &options.must))
}

/// Starts the agent; returns what it reported if it does not start.
fn attach(mode: AttachMode, stage: &Stage) -> Result<Agent, String> {
    let start = Instant::now();
    let agent = stage.watch(&mode.args())?;
    println!("attached after {:.1} s", start.elapsed().as_secs_f64());
    println!("hooks: {}", hooks(&agent));
    Ok(agent)
}

/// Returns the program type of each hook.
fn hooks(agent: &Agent) -> String {
    let metrics = agent.metrics();
    let of = |sample: &Sample| {
        let label = |name| sample.label(name).unwrap_or_default();
        format!("{} {}", label("hook"), label("kind"))
    };
    let hooks: Vec<_> = metrics.samples(HOOKS, &[]).map(of).collect();
    hooks.join(", ")
}

/// Returns the row of an attach mode in which the agent did not start.
fn refused(mode: AttachMode, said: &str, must: &[AttachMode]) -> Row {
    let mut lines = said.lines();
    let line = lines.clone().find(|line| line.contains(SAID));
    let line = line.or(lines.next_back()).unwrap_or_default();
    let reason = line.split_once(ATTACH_MODE).and_then(|(_, rest)| {
        let (_, reason) = rest.split_once(": ")?;
        Some(reason.split("; leave").next().unwrap_or(reason))
    });
    match reason {
        Some(reason) if must.contains(&mode) => Row::failed(
            mode.name(),
            &format!("this kernel has it, but the agent reports: {reason}"),
        ),
        Some(reason) => Row::absent(mode.name(), reason),
        None => {
            eprintln!("{said}");
            Row::failed(mode.name(), line)
        }
    }
}

fn load(mode: AttachMode, options: &Options, requests: usize) -> Result<Row, String> {
    let stage = Stage::set();
    let agent = attach(mode, &stage)?;
    let changes = options.change_preemption;
    let row = load::hold(mode.name(), &agent, &stage.timed, requests, changes);
    if !row.is_well() {
        agent.keep_artifacts();
    }
    Ok(row)
}

/// Measures in one attach mode, as often as the options say, all with one agent.
fn judge(mode: AttachMode, options: &Options) -> Result<Vec<Judged>, String> {
    let mut stage = Stage::set();
    let place = stage.timed.place.clone();
    let instructions = |agent| {
        let ns = options.instruction_ns?;
        Some(Instructions::of_request(&place, ns, agent))
    };
    let without = instructions(None);
    let agent = attach(mode, &stage)?;
    let with = instructions(Some(agent.pid()));
    if let Some((without, with)) = without.zip(with) {
        let mode = mode.name();
        println!(
            "cost: {}",
            Cost {
                mode,
                without,
                with
            }
        );
    }
    let before = LossCounters::of(&agent);
    let mut runs = Vec::new();
    for number in 1..=options.repeat {
        agent.clear_log();
        runs.push(judge_once(mode, &mut stage, &agent, options.requests));
        if options.repeat > 1 {
            println!(
                "run {number}: {}",
                Row::judged(mode.name(), &runs[number - 1..])
            );
        }
    }
    for sample in agent.metrics().samples(SKIPPED, &[]) {
        if sample.value > 0.0 {
            let program = sample.label("program").unwrap_or_default();
            println!("{program}: {} recursion misses", sample.value);
        }
    }
    if !runs.iter().all(Judged::is_well) {
        let after = LossCounters::of(&agent);
        for family in [LOST, UNFINISHED] {
            println!("{family}: {:?}", after.grown(&before, family));
        }
        agent.keep_artifacts();
    }
    Ok(runs)
}

fn judge_once(mode: AttachMode, stage: &mut Stage, agent: &Agent, requests: usize) -> Judged {
    let start = Instant::now();
    let knows_arrival = mode.knows_arrival();
    let accuracy = Accuracy::hold(agent, &mut stage.timed, knows_arrival, requests);
    println!("timed after {:.1} s", start.elapsed().as_secs_f64());
    let compared = records::compare(stage, agent);
    println!("compared after {:.1} s", start.elapsed().as_secs_f64());
    for line in accuracy.faults.iter().chain(&compared.differences) {
        println!("{line}");
    }
    Judged { accuracy, compared }
}
