//! Detects the kernel's preemption model, which says whether a task can lose its CPU inside an eBPF program.
//!
//! If it can, the kernel skips that program for the next task on the CPU, and the loader attaches backup copies.
//! Does not depend on: the programs.

use std::{fmt, fs, io::Read as _};

use flate2::read::GzDecoder;

/// The models of the running kernel, the current one in parentheses.
const MODES: &str = "/sys/kernel/debug/sched/preempt";

/// Preemption model, under the kernel's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preemption {
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
    /// Detects the model of the running kernel.
    pub fn detect() -> Self {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let texts = Texts {
            version: &uname.version().to_string_lossy(),
            modes: fs::read_to_string(MODES).ok(),
            command_line: fs::read_to_string("/proc/cmdline").unwrap_or_default(),
        };
        texts.judge(|| config(&release))
    }

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

impl fmt::Display for Preemption {
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
    /// Concludes the model. `config` reads the build configuration, and is called only if nothing else decides.
    fn judge(&self, config: impl FnOnce() -> Option<String>) -> Preemption {
        // The version of each kernel with preemption has this word (init/Makefile, init/version-timestamp.c).
        let mut words = self.version.split_whitespace();
        let Some(word) = words.find(|word| word.starts_with("PREEMPT")) else {
            return Preemption::None;
        };
        if word.starts_with("PREEMPT_RT") {
            return Preemption::RealTime;
        }
        let modes = self.modes.as_deref().and_then(selected);
        if let Some(model) = modes {
            return model;
        }
        let is_dynamic = word.starts_with("PREEMPT_DYNAMIC");
        let requested = || {
            let words = self.command_line.split_whitespace().filter(|_| is_dynamic);
            // The last one wins.
            words
                .rev()
                .find_map(|word| Preemption::named(word.strip_prefix("preempt=")?))
        };
        let built = || {
            let config = config()?;
            BUILT
                .iter()
                .find(|(line, _)| config.lines().any(|own| own == *line))
                .map(|(_, model)| *model)
        };
        requested().or_else(built).unwrap_or(Preemption::Unknown)
    }
}

/// Default model by build option (kernel/Kconfig.preempt).
const BUILT: [(&str, Preemption); 4] = [
    ("CONFIG_PREEMPT_NONE=y", Preemption::None),
    ("CONFIG_PREEMPT_VOLUNTARY=y", Preemption::Voluntary),
    ("CONFIG_PREEMPT_LAZY=y", Preemption::Lazy),
    ("CONFIG_PREEMPT=y", Preemption::Full),
];

/// Returns the model in parentheses: `none voluntary (full) lazy`.
fn selected(modes: &str) -> Option<Preemption> {
    let (_, rest) = modes.split_once('(')?;
    let (name, _) = rest.split_once(')')?;
    Preemption::named(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        version: &str,
        modes: Option<&str>,
        command_line: &str,
        config: Option<&str>,
    ) -> Preemption {
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
        assert_eq!(judged(DYNAMIC, modes, requested, built), Preemption::Full);
        assert_eq!(
            judged(DYNAMIC, None, requested, built),
            Preemption::Voluntary
        );
        assert_eq!(judged(DYNAMIC, None, "quiet", built), Preemption::Lazy);
        assert_eq!(judged(DYNAMIC, None, "", None), Preemption::Unknown);
    }

    #[test]
    fn version_names_kernels_without_preemption() {
        let plain = "#1 SMP Debian 5.10.0-46 (2026-10-01)";
        assert_eq!(judged(plain, None, "preempt=full", None), Preemption::None);
        let real_time = "#1 SMP PREEMPT_RT Debian 6.12.117-1";
        assert_eq!(
            judged(real_time, Some("(full) lazy"), "", None),
            Preemption::RealTime
        );
        let full = "#1 SMP PREEMPT Debian 5.10.0-46";
        assert!(judged(full, None, "preempt=none", None).reaches_programs());
    }

    #[test]
    fn unknown_model_reaches_programs() {
        let without = [Preemption::None, Preemption::Voluntary];
        assert!(without.iter().all(|model| !model.reaches_programs()));
        assert!(Preemption::Unknown.reaches_programs());
    }
}
