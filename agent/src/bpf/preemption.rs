//! Whether a task may lose its CPU while it runs a program: then the kernel passes the program over for the next task on
//! that CPU, and a second copy must stand by.
//!
//! Reads the kernel's files. Where none says, it may.

use std::{fmt, fs, io::Read as _};

use flate2::read::GzDecoder;

/// Where the kernel says how it is set now.
const MODES: &str = "/sys/kernel/debug/sched/preempt";

/// Model of preemption, by the kernel's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preemption {
    /// Never within the kernel.
    None,
    /// Within the kernel where it offers that.
    Voluntary,
    /// Anywhere.
    Full,
    /// Anywhere, mostly at a tick of the clock (6.13).
    Lazy,
    /// Anywhere, within most interrupts too.
    RealTime,
    /// Nothing says which.
    Unknown,
}

impl Preemption {
    /// Looks at the running kernel.
    pub fn look() -> Self {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let texts = Texts {
            version: &uname.version().to_string_lossy(),
            modes: fs::read_to_string(MODES).ok(),
            command_line: fs::read_to_string("/proc/cmdline").unwrap_or_default(),
        };
        texts.judge(|| config(&release))
    }

    /// Whether a task may lose its CPU within a program.
    pub const fn reaches_programs(self) -> bool {
        !matches!(self, Self::None | Self::Voluntary)
    }

    /// Name of the model.
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

/// Configuration that the kernel was built with, wherever it lies.
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

/// What the kernel says of itself.
struct Texts<'a> {
    /// `uname -v`
    version: &'a str,
    /// [`MODES`]
    modes: Option<String>,
    command_line: String,
}

impl Texts<'_> {
    /// `config`: what the kernel was built with, which takes some reading.
    fn judge(&self, config: impl FnOnce() -> Option<String>) -> Preemption {
        // The word stands in the version of any kernel that can (init/Makefile, init/version-timestamp.c).
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
        let asked = || {
            let words = self.command_line.split_whitespace().filter(|_| is_dynamic);
            // The last one counts.
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
        asked().or_else(built).unwrap_or(Preemption::Unknown)
    }
}

/// What a kernel is built to be, unless it is told otherwise (kernel/Kconfig.preempt).
const BUILT: [(&str, Preemption); 4] = [
    ("CONFIG_PREEMPT_NONE=y", Preemption::None),
    ("CONFIG_PREEMPT_VOLUNTARY=y", Preemption::Voluntary),
    ("CONFIG_PREEMPT_LAZY=y", Preemption::Lazy),
    ("CONFIG_PREEMPT=y", Preemption::Full),
];

/// The model in brackets: `none voluntary (full) lazy`.
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
    fn what_is_set_now_counts_before_what_was_asked_for_and_built() {
        const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-11-12)";
        let modes = Some("none voluntary (full) lazy\n");
        let asked = "quiet preempt=voluntary";
        let built =
            Some("CONFIG_PREEMPT_BUILD=y\n# CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_LAZY=y\n");
        assert_eq!(judged(DYNAMIC, modes, asked, built), Preemption::Full);
        assert_eq!(judged(DYNAMIC, None, asked, built), Preemption::Voluntary);
        assert_eq!(judged(DYNAMIC, None, "quiet", built), Preemption::Lazy);
        assert_eq!(judged(DYNAMIC, None, "", None), Preemption::Unknown);
    }

    #[test]
    fn a_kernel_that_cannot_is_known_by_its_version() {
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
    fn where_nothing_says_a_task_may_lose_its_cpu() {
        let without = [Preemption::None, Preemption::Voluntary];
        assert!(without.iter().all(|model| !model.reaches_programs()));
        assert!(Preemption::Unknown.reaches_programs());
    }
}
