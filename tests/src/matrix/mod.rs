//! What is asked of the agent on each kernel and each rung of its ladder of hooks: the program that
//! `cargo xtask kernel-test` runs in virtual machines, and on the host.
//!
//! It needs nothing but the agent and the reference server beside it.

mod accuracy;
mod plain;
mod records;
mod rows;
mod stage;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use clap::Parser;

use crate::{
    agent::Agent,
    gate,
    matrix::{accuracy::Accuracy, rows::Row, stage::Stage},
};

/// What an agent's last words begin with, and what is in them if the kernel has not got the rung that it is held to.
const SAID: &str = "inferprobe: ";
const NO_RUNG: &str = "--rung ";
/// How often the kernel did not run a program, because it was running on that CPU already.
const SKIPPED: &str = "inferprobe_bpf_recursion_misses_total";

/// Runs the real agent on the running kernel, on each rung of its ladder of hooks, and judges what it measures.
///
/// A line that begins with `row: ` is one of the table. The exit code is 0 if all is as it must be.
#[derive(Debug, Parser)]
#[command(name = "kernel-guest")]
pub struct Options {
    /// Only this rung; may be repeated. If left out: the best one for each hook, then each rung alone
    #[arg(long, value_name = "RUNG")]
    rung: Vec<Rung>,
    /// A rung that this kernel must have; may be repeated
    #[arg(long, value_name = "RUNG")]
    must: Vec<Rung>,
    /// Requests that are timed on each rung
    #[arg(long, default_value_t = 400)]
    requests: usize,
}

/// What the agent's hooks are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rung {
    /// The best that works, each: the agent's own choice.
    Auto,
    Tracepoint,
    Fentry,
    Kprobe,
    Syscall,
}

impl Rung {
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

    /// Options of the agent.
    fn args(self) -> Vec<String> {
        match self {
            Self::Auto => Vec::new(),
            rung => vec!["--rung".to_owned(), rung.name().to_owned()],
        }
    }

    /// Whether it is told when bytes arrive.
    fn knows_arrival(self) -> bool {
        self != Self::Syscall
    }
}

/// Runs what the options say; whether all is as it must be.
pub fn run(options: &Options) -> bool {
    let Some(_turn) = gate::kernel() else {
        return true;
    };
    let rungs = match options.rung.as_slice() {
        [] => &Rung::ALL[..],
        named => named,
    };
    let mut all_well = true;
    for &rung in rungs {
        let start = Instant::now();
        let tried = catch_unwind(AssertUnwindSafe(|| try_rung(rung, options)));
        let row = tried.unwrap_or_else(|_| Row::failed(rung.name(), "see the panic above"));
        all_well &= row.is_well();
        println!("row: {row}");
        println!("{}: {:.1} s", rung.name(), start.elapsed().as_secs_f64());
    }
    all_well
}

fn try_rung(rung: Rung, options: &Options) -> Row {
    let mut stage = Stage::set();
    let start = Instant::now();
    match stage.watch(&rung.args()) {
        Err(said) => refused(rung, &said, &options.must),
        Ok(agent) => {
            println!("attached after {:.1} s", start.elapsed().as_secs_f64());
            judge(rung, &mut stage, &agent, options)
        }
    }
}

/// The row of a rung that the agent did not start on.
fn refused(rung: Rung, said: &str, must: &[Rung]) -> Row {
    let mut lines = said.lines();
    let line = lines.clone().find(|line| line.contains(SAID));
    let line = line.or(lines.next_back()).unwrap_or_default();
    let reason = line.split_once(NO_RUNG).and_then(|(_, rest)| {
        let (_, reason) = rest.split_once(": ")?;
        Some(reason.split("; leave").next().unwrap_or(reason))
    });
    match reason {
        Some(reason) if must.contains(&rung) => Row::failed(
            rung.name(),
            &format!("this kernel has it, but the agent says: {reason}"),
        ),
        Some(reason) => Row::absent(rung.name(), reason),
        None => {
            eprintln!("{said}");
            Row::failed(rung.name(), line)
        }
    }
}

fn judge(rung: Rung, stage: &mut Stage, agent: &Agent, options: &Options) -> Row {
    let start = Instant::now();
    let accuracy = Accuracy::hold(
        agent,
        &mut stage.timed,
        rung.knows_arrival(),
        options.requests,
    );
    println!("timed after {:.1} s", start.elapsed().as_secs_f64());
    let compared = records::compare(stage, agent);
    println!("compared after {:.1} s", start.elapsed().as_secs_f64());
    for line in accuracy.faults.iter().chain(&compared.differences) {
        println!("{line}");
    }
    for sample in agent.metrics().samples(SKIPPED, &[]) {
        if sample.value > 0.0 {
            let program = sample.label("program").unwrap_or_default();
            println!("{program} passed over: {}", sample.value);
        }
    }
    Row::judged(rung.name(), &accuracy, &compared)
}
