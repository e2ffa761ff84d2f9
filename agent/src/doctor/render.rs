//! Formats the report as text: sections of aligned rows, at most 100 columns wide.
//!
//! `inferprobe doctor` prints it, unless `--json` is given.
//! Does not depend on: how findings are concluded.

use std::fmt::Write as _;

use crate::{
    bpf::{
        attach_mode::ProgramType,
        capabilities::{Capabilities, Capability},
        preemption::Preemption,
    },
    doctor::{
        facts::{
            gpus::Nvml,
            host::{Host, RingBuffer},
            pods::{LogFolder, Pods},
            probing::SelfTest,
            tls::{LibraryTls, PlaceTls, ServerTls},
        },
        finding::Severity,
        report::Report,
    },
};

const WIDTH: usize = 100;
const INDENT: usize = 2;
/// Column in which the values of host rows start.
const VALUE: usize = 20;
/// Column in which the reasons of hooks start.
const REASON: usize = 34;
/// Column in which the texts of findings start.
const FINDING: usize = 13;

/// Capabilities that affect what the agent can measure.
const RELEVANT: [Capability; 6] = [
    Capability::DAC_OVERRIDE,
    Capability::DAC_READ_SEARCH,
    Capability::SYS_PTRACE,
    Capability::SYS_ADMIN,
    Capability::PERFMON,
    Capability::BPF,
];

/// Returns the whole report.
pub(crate) fn table(report: &Report) -> String {
    let facts = &report.facts;
    let mut text = format!("inferprobe {}\n", report.version);
    text.push_str("\nHost\n");
    for (name, value) in host_rows(&facts.host) {
        row(&mut text, name, VALUE, &value);
    }
    for (name, value) in [
        ("pod names", pods(&facts.pods)),
        ("NVIDIA GPU", yes_or_no(facts.gpus.present).to_owned()),
        ("NVML", nvml(&facts.gpus.nvml)),
    ] {
        row(&mut text, name, VALUE, &value);
    }
    text.push_str("\nHooks\n");
    for report in &facts.probing.hooks {
        let label = format!(
            "{:width$}{}",
            report.hook.name(),
            report.kind_label(),
            width = VALUE - INDENT
        );
        row(&mut text, &label, REASON, &report.reasons().join("; "));
    }
    if let Some(refusal) = &facts.probing.refusal {
        // The finding below has the remedy, which follows the semicolon.
        let why = refusal.split_once("; ").map_or(&**refusal, |(why, _)| why);
        row(&mut text, "not attached", VALUE, why);
    }
    let self_test = match &facts.probing.self_test {
        SelfTest::Passed => "passed",
        SelfTest::Failed { reason } => &format!("failed: {reason}"),
        SelfTest::NotRun => "not run",
    };
    row(&mut text, "self-test", VALUE, self_test);
    if !facts.tls.is_empty() {
        text.push_str("\nTLS of servers that run\n");
    }
    for server in &facts.tls {
        let label = format!("{} {}", server.server, server.pid);
        row(
            &mut text,
            &label,
            VALUE,
            &tls(server, facts.host.capabilities),
        );
    }
    text.push_str("\nWhat will be missing\n");
    if report.missing.is_empty() {
        row(&mut text, "nothing", VALUE, "");
    }
    for finding in &report.missing {
        let label = match finding.severity {
            Severity::Everything => "all",
            Severity::Some => "some",
            Severity::Option => "option",
        };
        row(&mut text, label, FINDING, &finding.what);
        row(&mut text, "  why", FINDING, &finding.why);
        row(&mut text, "  remedy", FINDING, &finding.remedy);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{}", report.outcome);
    text
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "none" }
}

fn host_rows(host: &Host) -> [(&'static str, String); 16] {
    let unknown = || "unknown".to_owned();
    let or_unknown = |value: Option<String>| value.unwrap_or_else(unknown);
    let unmounted = || "unknown: securityfs is not mounted on /sys/kernel/security".to_owned();
    let list = |items: Vec<String>| match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(" "),
    };
    [
        ("kernel", host.kernel.clone()),
        ("architecture", host.architecture.clone()),
        (
            "BTF",
            host.btf_bytes.map_or_else(
                || "none".into(),
                |bytes| format!("{:.1} MB", bytes as f64 / 1e6),
            ),
        ),
        ("JIT", or_unknown(host.jit.map(|jit| jit.to_string()))),
        (
            "ring buffer",
            match &host.ring_buffer {
                RingBuffer::Usable => "can be created".into(),
                RingBuffer::Unknown => "not supported by this kernel".into(),
                RingBuffer::Refused { reason } => format!("cannot be created: {reason}"),
            },
        ),
        (
            "lockdown",
            host.lockdown
                .map_or_else(unmounted, |mode| mode.to_string()),
        ),
        (
            "security modules",
            host.security_modules.clone().map_or_else(unmounted, list),
        ),
        (
            "unprivileged BPF",
            or_unknown(host.unprivileged_bpf.map(|setting| setting.to_string())),
        ),
        ("user id", host.user_id.to_string()),
        ("capabilities", capabilities(host.capabilities)),
        ("user namespace", host.user_namespace.to_string()),
        ("pid namespace", host.pid_namespace.to_string()),
        (
            "hidepid",
            host.hidepid.clone().unwrap_or_else(|| "off".into()),
        ),
        ("cgroups", host.cgroups.to_string()),
        ("tracefs", host.tracefs.to_string()),
        ("preemption", preemption(host.preemption)),
    ]
}

/// Says how many containers of pods have names, and which folder has none.
fn pods(pods: &Pods) -> String {
    let named = match pods.containers {
        0 => "no process runs in a pod".to_owned(),
        all => format!(
            "known of {} of {all} containers in pods",
            all - pods.unnamed
        ),
    };
    let is_refused = |folder: &&LogFolder| folder.refusal.is_some();
    let refused = pods.folders.iter().filter(is_refused);
    let paths: Vec<String> = refused
        .map(|folder| folder.path.display().to_string())
        .collect();
    match paths.is_empty() {
        true => named,
        false => format!("{named}; not readable: {}", paths.join(", ")),
    }
}

/// Says what the preemption model means for the programs.
fn preemption(preemption: Preemption) -> String {
    let in_tracepoints = preemption.reaches(ProgramType::TpBtf);
    let meaning = match preemption.reaches(ProgramType::Fentry) {
        true if in_tracepoints => {
            "; a task may lose its CPU in programs on tracepoints and functions"
        }
        true => "; a task may lose its CPU in programs on functions, so these are attached twice",
        false => "",
    };
    format!("{preemption}{meaning}")
}

/// Names the relevant capabilities, and counts the others.
fn capabilities(held: Capabilities) -> String {
    let (named, others): (Vec<_>, Vec<_>) = held
        .iter()
        .partition(|capability| RELEVANT.contains(capability));
    let names = named.iter().map(Capability::to_string);
    let others = (!others.is_empty()).then(|| format!("and {} others", others.len()));
    let words: Vec<String> = names.chain(others).collect();
    match words.is_empty() {
        true => "none".into(),
        false => words.join(" "),
    }
}

fn nvml(nvml: &Nvml) -> String {
    match nvml {
        Nvml::Loaded { read, refused } if refused.is_empty() => format!("reads GPUs: {read}"),
        Nvml::Loaded { read, refused } => {
            format!("reads GPUs: {read}; errors: {}", refused.join(", "))
        }
        Nvml::Unusable { reason } => format!("not usable: {reason}"),
    }
}

/// Says what TLS leaves to see of a server, if it speaks TLS itself.
fn tls(server: &ServerTls, held: Capabilities) -> String {
    if let Some(refusal) = &server.refusal {
        return format!("timed; its mapped files cannot be read: {refusal}");
    }
    let libraries: Vec<String> = server.libraries.iter().map(library).collect();
    match libraries.is_empty() {
        true => "timed; no mapped file exports OpenSSL's functions".into(),
        false => {
            let needs = match held.holds(Capability::SYS_ADMIN) {
                true => "",
                false => " (CAP_SYS_ADMIN is missing)",
            };
            let libraries = libraries.join("; ");
            format!("timed, or read with --tls openssl{needs}, in {libraries}")
        }
    }
}

fn library(library: &LibraryTls) -> String {
    let places: Vec<String> = library.places.iter().map(place).collect();
    format!("{}: {}", library.path, places.join(", "))
}

fn place(place: &PlaceTls) -> String {
    let cost = match place.cost {
        "emulated" => "emulated, less than 1 µs",
        _ => "single-stepped, 1 to 13 µs",
    };
    let functions = place.functions.join(" and ");
    format!("{functions} at {:#x} ({cost})", place.offset)
}

/// Adds a row whose value starts in `column`, and continues there on the next line if it is too long.
fn row(text: &mut String, label: &str, column: usize, value: &str) {
    let mut line = format!("{:INDENT$}{label}", "");
    for word in value.split_whitespace() {
        let at = line.chars().count();
        let is_first = at < column;
        let pad = if is_first { column - at } else { 1 };
        if !is_first && at > column && at + pad + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(column);
        } else {
            line.push_str(&" ".repeat(pad));
        }
        line.push_str(word);
    }
    text.push_str(line.trim_end());
    text.push('\n');
}
