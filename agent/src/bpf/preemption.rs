//! Detects in which eBPF programs a task can lose its CPU: by the kernel's preemption model, and by what the kernel has.
//!
//! The kernel skips such a program for the next task on the CPU. So the loader attaches backup copies, or programs of
//! another type.
//! Does not depend on: the programs.

use std::{fmt, fs, io::Read as _};

use flate2::read::GzDecoder;

use crate::bpf::{attach_mode::ProgramType, btf::Types};

/// The models of the running kernel, the current one in parentheses.
const MODES: &str = "/sys/kernel/debug/sched/preempt";
/// A type that the kernel uses since a task can lose its CPU in the callbacks of a tracepoint: the guard that replaced
/// disabled preemption (include/linux/tracepoint.h, 7.0).
const TRACEPOINT_GUARD: &str = "class_srcu_fast_notrace_t";

/// Where a task can lose its CPU inside a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preemption {
    /// The present model.
    pub model: Model,
    /// Whether the model can be changed while the kernel runs.
    pub is_dynamic: bool,
    /// Whether the callbacks of tracepoints can be preempted, with a model that reaches programs: 7.0 and later.
    pub in_tracepoints: bool,
}

/// Preemption model, under the kernel's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Never inside the kernel.
    None,
    /// Inside the kernel at explicit points.
    Voluntary,
    /// Anywhere.
    Full,
    /// Anywhere, mostly at a timer tick (6.13).
    Lazy,
    /// Anywhere, also inside most interrupt handlers.
    RealTime,
    /// No source names the model.
    Unknown,
}

impl Preemption {
    /// Detects where a task can lose its CPU on the running kernel, whose types are `types`.
    pub fn detect(types: Option<&Types<'_>>) -> Self {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let texts = Texts {
            version: &uname.version().to_string_lossy(),
            modes: fs::read_to_string(MODES).ok(),
            command_line: fs::read_to_string("/proc/cmdline").unwrap_or_default(),
        };
        Self {
            model: texts.judge(|| config(&release)),
            is_dynamic: texts.is_dynamic(),
            in_tracepoints: types.is_none_or(|types| types.has_typedef(TRACEPOINT_GUARD)),
        }
    }

    /// Returns whether a task can lose its CPU inside a program of this type, now or after a change of the model.
    pub fn reaches(self, program_type: ProgramType) -> bool {
        let anywhere = self.is_dynamic || self.model.reaches_programs();
        match program_type {
            // The tracepoints of system calls are preemptible since 6.13, and are not worth a distinction.
            ProgramType::Fentry | ProgramType::RawTp => anywhere,
            ProgramType::TpBtf => anywhere && self.in_tracepoints,
            ProgramType::Kprobe | ProgramType::Tracepoint | ProgramType::Iter => false,
        }
    }
}

impl fmt::Display for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = if self.is_dynamic {
            ", may change at run time"
        } else {
            ""
        };
        write!(f, "{}{change}", self.model)
    }
}

impl Model {
    /// Returns whether a task can lose its CPU inside a program; true if the model is unknown.
    pub const fn reaches_programs(self) -> bool {
        !matches!(self, Self::None | Self::Voluntary)
    }

    /// The kernel's name of the model.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Voluntary => "voluntary",
            Self::Full => "full",
            Self::Lazy => "lazy",
            Self::RealTime => "rt",
            Self::Unknown => "unknown",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Voluntary, Self::Full, Self::Lazy]
            .into_iter()
            .find(|model| model.name() == name)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads the build configuration of the kernel from one of its usual places.
fn config(release: &str) -> Option<String> {
    let files = [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
    ];
    let file = files.iter().find_map(|path| fs::read_to_string(path).ok());
    file.or_else(|| {
        let mut text = String::new();
        let packed = fs::File::open("/proc/config.gz").ok()?;
        GzDecoder::new(packed).read_to_string(&mut text).ok()?;
        Some(text)
    })
}

/// What the kernel says about itself.
struct Texts<'a> {
    /// `uname -v`
    version: &'a str,
    /// [`MODES`]
    modes: Option<String>,
    command_line: String,
}

impl Texts<'_> {
    /// Whether the model can be changed while the kernel runs.
    fn is_dynamic(&self) -> bool {
        let mut words = self.version.split_whitespace();
        words.any(|word| word.starts_with("PREEMPT_DYNAMIC"))
    }

    /// Concludes the model. `config` reads the build configuration, and is called only if nothing else decides.
    fn judge(&self, config: impl FnOnce() -> Option<String>) -> Model {
        // The version of each kernel with preemption has this word (init/Makefile, init/version-timestamp.c).
        let mut words = self.version.split_whitespace();
        let Some(word) = words.find(|word| word.starts_with("PREEMPT")) else {
            return Model::None;
        };
        if word.starts_with("PREEMPT_RT") {
            return Model::RealTime;
        }
        let modes = self.modes.as_deref().and_then(selected);
        if let Some(model) = modes {
            return model;
        }
        let is_dynamic = self.is_dynamic();
        let requested = || {
            let words = self.command_line.split_whitespace().filter(|_| is_dynamic);
            // The last one wins.
            words
                .rev()
                .find_map(|word| Model::named(word.strip_prefix("preempt=")?))
        };
        let built = || {
            let config = config()?;
            BUILT
                .iter()
                .find(|(line, _)| config.lines().any(|own| own == *line))
                .map(|(_, model)| *model)
        };
        requested().or_else(built).unwrap_or(Model::Unknown)
    }
}

/// Default model by build option (kernel/Kconfig.preempt).
const BUILT: [(&str, Model); 4] = [
    ("CONFIG_PREEMPT_NONE=y", Model::None),
    ("CONFIG_PREEMPT_VOLUNTARY=y", Model::Voluntary),
    ("CONFIG_PREEMPT_LAZY=y", Model::Lazy),
    ("CONFIG_PREEMPT=y", Model::Full),
];

/// Returns the model in parentheses: `none voluntary (full) lazy`.
fn selected(modes: &str) -> Option<Model> {
    let (_, rest) = modes.split_once('(')?;
    let (name, _) = rest.split_once(')')?;
    Model::named(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        version: &str,
        modes: Option<&str>,
        command_line: &str,
        config: Option<&str>,
    ) -> Model {
        let texts = Texts {
            version,
            modes: modes.map(str::to_owned),
            command_line: command_line.to_owned(),
        };
        texts.judge(|| config.map(str::to_owned))
    }

    #[test]
    fn current_model_precedes_command_line_and_configuration() {
        const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-11-12)";
        let modes = Some("none voluntary (full) lazy\n");
        let requested = "quiet preempt=voluntary";
        let built =
            Some("CONFIG_PREEMPT_BUILD=y\n# CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_LAZY=y\n");
        assert_eq!(judged(DYNAMIC, modes, requested, built), Model::Full);
        assert_eq!(judged(DYNAMIC, None, requested, built), Model::Voluntary);
        assert_eq!(judged(DYNAMIC, None, "quiet", built), Model::Lazy);
        assert_eq!(judged(DYNAMIC, None, "", None), Model::Unknown);
    }

    #[test]
    fn version_names_kernels_without_preemption() {
        let plain = "#1 SMP Debian 5.10.0-46 (2026-10-01)";
        assert_eq!(judged(plain, None, "preempt=full", None), Model::None);
        let real_time = "#1 SMP PREEMPT_RT Debian 6.12.117-1";
        assert_eq!(
            judged(real_time, Some("(full) lazy"), "", None),
            Model::RealTime
        );
        let full = "#1 SMP PREEMPT Debian 5.10.0-46";
        assert!(judged(full, None, "preempt=none", None).reaches_programs());
    }

    #[test]
    fn unknown_model_reaches_programs() {
        let without = [Model::None, Model::Voluntary];
        assert!(without.iter().all(|model| !model.reaches_programs()));
        assert!(Model::Unknown.reaches_programs());
    }

    #[test]
    fn a_model_that_may_change_reaches_programs() {
        let of = |model, is_dynamic, in_tracepoints| Preemption {
            model,
            is_dynamic,
            in_tracepoints,
        };
        let reached = |preemption: Preemption| {
            let types = [
                ProgramType::TpBtf,
                ProgramType::Fentry,
                ProgramType::Kprobe,
                ProgramType::Tracepoint,
            ];
            types.map(|program_type| preemption.reaches(program_type))
        };
        assert_eq!(reached(of(Model::None, false, true)), [false; 4]);
        for (model, is_dynamic) in [(Model::None, true), (Model::Lazy, false)] {
            let old = reached(of(model, is_dynamic, false));
            assert_eq!(old, [false, true, false, false], "{model}");
            let new = reached(of(model, is_dynamic, true));
            assert_eq!(new, [true, true, false, false], "{model}");
        }
    }
}
