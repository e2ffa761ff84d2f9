//! Which kernels are tested, in which attach modes, and what the program on each of them is started with.

use clap::Args;

use crate::arch::Arch;
use crate::cargo_test::REQUIRE_KERNEL_ENV;
use crate::vm::INSTRUCTION_NS;
use crate::vm::kernels::NEWEST;

/// The running kernel, as a series.
pub(crate) const HOST: &str = "host";
/// What is tested by default: in which attach modes (all if none is given, the agent's own choice among them), with which
/// preemption model, and on how many processors; one is quicker to emulate.
const DEFAULT: [(&str, &[&str], Option<&str>, u32); 5] = [
    (HOST, &[], None, 1),
    ("6.1", &["fentry", "kprobe", "syscall"], None, 1),
    ("6.12", &["auto", "fentry"], Some("full"), 2),
    (NEWEST, &["auto"], Some("full"), 1),
    (NEWEST, &["auto"], None, 2),
];
/// Of which only instructions are counted by default, on one processor: BTF-typed tracepoints, which no other has.
const COUNTED: (&str, &str) = ("6.12", AUTO);
/// What is tested with `--all`.
const ALL: [&str; 6] = [HOST, "5.10", "6.1", "6.12", "6.18", "7.3"];
/// The attach modes that stock kernels of a series have; a missing one is a failure.
const MODES: [(&str, &[&str]); 5] = [
    ("5.10", &["kprobe", "syscall"]),
    ("6.1", &["fentry", "kprobe", "syscall"]),
    ("6.12", &["tracepoint", "fentry", "kprobe", "syscall"]),
    ("6.18", &["tracepoint", "fentry", "kprobe", "syscall"]),
    ("7.3", &["tracepoint", "fentry", "kprobe", "syscall"]),
];
/// The same for arm64.
const MODES_ARM64: [(&str, &[&str]); 1] =
    [("6.12", &["tracepoint", "fentry", "kprobe", "syscall"])];
/// What is tested of arm64 by default, and with `--all`.
const DEFAULT_ARM64: [&str; 1] = ["6.12"];
/// The series that has two processors by default, for what only happens on several; one is quicker to emulate.
const PAIRED: &str = "6.12";
/// The agent's own choice of attach modes.
const AUTO: &str = "auto";
/// Names the attach mode that the agents of a suite must use.
const MODE_ENV: &str = "INFERPROBE_TEST_ATTACH_MODE";
/// Option of the guest's program for an attach mode.
const MODE_OPTION: &str = "--attach-mode";

/// What to test; by default, what a change must pass.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Series of Debian's kernels, such as 6.1, `newest` for the newest of all, or `host` for the running kernel
    /// [default: host, 6.1, 6.12 and newest]
    series: Vec<String>,
    /// Test every known series: host, 5.10, 6.1, 6.12, 6.18, 7.3
    #[arg(long, conflicts_with = "series")]
    all: bool,
    /// Architecture of the virtual machines
    #[arg(long, value_enum, default_value_t = Arch::Amd64)]
    pub(crate) arch: Arch,
    /// Use only this attach mode; may be repeated
    #[arg(long, alias = "rung", value_name = "MODE")]
    attach_mode: Vec<String>,
    /// Run this module of the test target `kernel`, or this test target, in place of the matrix
    #[arg(long, value_name = "NAME")]
    pub(crate) suite: Option<String>,
    /// Send this many requests under load in each attach mode, in place of the matrix
    #[arg(long, value_name = "REQUESTS", conflicts_with = "suite")]
    load: Option<usize>,
    /// Change the kernel's preemption model again and again during the load
    #[arg(long, requires = "load")]
    change_preemption: bool,
    /// Count only instructions, on one processor, in place of the matrix
    #[arg(long, conflicts_with_all = ["suite", "load", "repeat", "smp"])]
    instructions: bool,
    /// Do this so often in each attach mode, with one agent
    #[arg(long, value_name = "TIMES", conflicts_with_all = ["suite", "load"])]
    pub(crate) repeat: Option<u32>,
    /// Processors of the virtual machines [default: 1, and 2 for 6.12; newest with 1 and with 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    smp: Option<u32>,
    /// Preemption model of the virtual machines' kernels
    #[arg(long, value_name = "MODEL", value_parser = ["none", "voluntary", "full", "lazy"])]
    preempt: Option<String>,
}

/// A kernel, and what is tested on it.
pub(crate) struct Case {
    pub(crate) series: String,
    /// The attach modes; all if empty.
    pub(crate) modes: Vec<String>,
    pub(crate) preempt: Option<String>,
    /// Processors of its virtual machine.
    pub(crate) cpus: u32,
    /// Whether nothing but instructions is tested.
    only_counts: bool,
}

impl Case {
    /// Returns whether it is the running kernel.
    pub(crate) fn is_host(&self) -> bool {
        self.series == HOST
    }

    /// Returns whether instructions are counted: the clock of a machine with several processors is not their number.
    pub(crate) fn counts_instructions(&self) -> bool {
        !self.is_host() && self.cpus == 1
    }
}

/// What a program is started with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) args: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Options {
    pub(crate) fn cases(&self) -> Vec<Case> {
        let of = |series: &[&str]| {
            let all = series.iter().map(|&series| {
                let cpus = if series == PAIRED { 2 } else { 1 };
                self.case(series, &[], None, cpus)
            });
            all.collect()
        };
        let mut cases: Vec<Case> = match (self.arch, self.series.as_slice()) {
            (Arch::Arm64, []) => of(&DEFAULT_ARM64),
            (Arch::Amd64, []) if self.all => of(&ALL),
            (Arch::Amd64, []) => {
                let default = DEFAULT
                    .into_iter()
                    .map(|(series, modes, preempt, cpus)| self.case(series, modes, preempt, cpus));
                let (series, mode) = COUNTED;
                let counted = Case {
                    only_counts: true,
                    ..self.case(series, &[mode], None, 1)
                };
                default.chain([counted]).collect()
            }
            (_, named) => of(&named.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        if self.suite.is_some() || self.load.is_some() || self.repeat.is_some() {
            cases.retain(|case| !case.only_counts);
        }
        if self.instructions {
            cases.retain(|case| !case.is_host() && (case.cpus == 1 || !self.series.is_empty()));
            for case in &mut cases {
                (case.only_counts, case.cpus) = (true, 1);
            }
        }
        cases
    }

    /// Returns a case; what the options choose comes before what is given.
    fn case(&self, series: &str, modes: &[&str], preempt: Option<&str>, cpus: u32) -> Case {
        Case {
            series: series.to_owned(),
            modes: match self.attach_mode.as_slice() {
                [] => modes.iter().map(|&mode| mode.to_owned()).collect(),
                named => named.to_vec(),
            },
            preempt: self.preempt.clone().or(preempt.map(str::to_owned)),
            cpus: self.smp.unwrap_or(cpus),
            only_counts: false,
        }
    }

    /// The attach mode that the agents of a suite use.
    pub(crate) fn suite_mode(&self) -> &str {
        self.attach_mode.first().map_or(AUTO, String::as_str)
    }

    /// Returns what the program is started with; `filter` selects tests of a suite.
    pub(crate) fn invocation(&self, case: &Case, filter: Option<&str>) -> Invocation {
        if self.suite.is_some() {
            return self.suite_invocation(filter);
        }
        let mut args = Vec::new();
        for mode in &case.modes {
            args.extend([MODE_OPTION.to_owned(), mode.clone()]);
        }
        if let Some(requests) = self.load {
            args.extend(["--load".to_owned(), requests.to_string()]);
            if self.change_preemption {
                args.push("--change-preemption".to_owned());
            }
        } else if case.counts_instructions() && self.arch == Arch::Amd64 {
            args.extend(["--instruction-ns".to_owned(), INSTRUCTION_NS.to_string()]);
        }
        if case.only_counts {
            args.extend(["--repeat".to_owned(), "0".to_owned()]);
        } else if let Some(times) = self.repeat {
            args.extend(["--repeat".to_owned(), times.to_string()]);
        }
        let modes = match self.arch {
            Arch::Amd64 => &MODES[..],
            Arch::Arm64 => &MODES_ARM64,
        };
        let known = modes.iter().find(|(name, _)| *name == case.series);
        for mode in known.map_or(&[][..], |(_, modes)| modes) {
            args.extend(["--must".to_owned(), (*mode).to_owned()]);
        }
        Invocation {
            args,
            variables: Vec::new(),
        }
    }

    fn suite_invocation(&self, filter: Option<&str>) -> Invocation {
        let threads = "--test-threads=1".to_owned();
        let mut variables = vec![(REQUIRE_KERNEL_ENV, "1".to_owned())];
        if self.suite_mode() != AUTO {
            variables.push((MODE_ENV, self.suite_mode().to_owned()));
        }
        Invocation {
            args: [threads]
                .into_iter()
                .chain(filter.map(str::to_owned))
                .collect(),
            variables,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(suite: Option<&str>, modes: &[&str]) -> Options {
        Options {
            suite: suite.map(str::to_owned),
            attach_mode: modes.iter().map(|&mode| mode.to_owned()).collect(),
            ..Options::default()
        }
    }

    #[test]
    fn a_series_must_have_its_attach_modes() {
        let options = options(None, &["kprobe"]);
        let cases = options.cases();
        let case = cases.iter().find(|case| case.series == "6.1").unwrap();
        let invocation = options.invocation(case, None);
        let expected =
            "--attach-mode kprobe --instruction-ns 2 --must fentry --must kprobe --must syscall";
        assert_eq!(invocation.args.join(" "), expected);
    }

    #[test]
    fn only_instructions_are_counted_where_the_clock_counts_them() {
        let options = Options {
            instructions: true,
            ..Options::default()
        };
        let cases = options.cases();
        let names: Vec<_> = cases.iter().map(|case| case.series.as_str()).collect();
        assert_eq!(names, ["6.1", NEWEST, "6.12"]);
        for case in &cases {
            let invocation = options.invocation(case, None).args.join(" ");
            assert!(
                invocation.contains("--instruction-ns 2 --repeat 0"),
                "{invocation}"
            );
        }
    }

    #[test]
    fn a_suite_is_filtered_and_fails_on_skips() {
        let options = options(Some("unix"), &["kprobe"]);
        let invocation = options.invocation(&options.cases()[0], Some("unix::"));
        assert_eq!(invocation.args, ["--test-threads=1", "unix::"]);
        let variables = [
            (REQUIRE_KERNEL_ENV, "1".to_owned()),
            (MODE_ENV, "kprobe".to_owned()),
        ];
        assert_eq!(invocation.variables, variables);
    }
}
