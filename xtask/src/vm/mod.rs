//! Boots a kernel in a virtual machine that runs one program and ends: qemu, which emulates every instruction.
//!
//! It never uses KVM, because stock kernels hang in some nested KVMs. Does not depend on: the program and its output.

pub(crate) mod initramfs;
pub(crate) mod kernels;
pub(crate) mod modules;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::tools::{debian, qemu};

/// Packages with the emulator and the guest's busybox; the busybox of arm64 is fetched like a kernel.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "seabios", "busybox-static"];
const PACKAGES_ARM64: [&str; 1] = ["qemu-system-arm"];
/// Memory of a machine that has only the agent and programs of the tests.
pub(crate) const MEMORY_MIB: u32 = 768;
/// Lines of the kernel's console that are shown if a machine ends early.
const CONSOLE_LINES: usize = 70;
/// Only messages of errors; an error of the kernel ends the machine at once.
const KERNEL_ARGS: &str = "panic=-1 oops=panic no_timer_check quiet loglevel=4";

/// Returns the name of an architecture's emulator.
pub(crate) fn emulator(arch: Arch) -> String {
    format!("qemu-system-{}", arch.machine())
}

/// Returns why this machine can run no virtual machines of `arch`; `None` if it can.
///
/// What they need is installed if it is missing, and unpacked if apt-get refuses to install it.
pub(crate) fn lack(arch: Arch) -> Option<String> {
    if Arch::own() != Some(Arch::Amd64) {
        return Some("they are emulated only on x86-64".to_owned());
    }
    if !debian::is_here() {
        return Some("kernels are fetched only on Debian".to_owned());
    }
    if has_programs(arch) {
        return None;
    }
    let packages = match arch {
        Arch::Amd64 => &PACKAGES[..],
        Arch::Arm64 => &PACKAGES_ARM64,
    };
    let missing = debian::missing(packages);
    let installed = missing.and_then(|missing| {
        let why = "The agent is tested on other kernels in virtual machines";
        debian::install(why, &missing)
    });
    let refusal = installed.err()?;
    let tree = qemu::tree_of(arch);
    eprintln!("==> {refusal:#}; unpack into {} instead", tree.display());
    let err = qemu::unpack(packages, &emulator(arch), arch).err()?;
    Some(format!(
        "{refusal:#}; cannot unpack into {} either: {err:#}",
        tree.display()
    ))
}

fn has_programs(arch: Arch) -> bool {
    let has_busybox = arch == Arch::Arm64 || qemu::find("busybox", arch).is_ok();
    has_busybox && qemu::find(&emulator(arch), arch).is_ok()
}

/// What to boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine<'a> {
    /// Its architecture.
    pub(crate) arch: Arch,
    /// Image of a kernel.
    pub(crate) image: &'a Path,
    /// Its first file system. The program writes to the second serial port, and its exit code goes to the third.
    pub(crate) initramfs: &'a Path,
    /// Arguments of its kernel, in addition to those of every kernel.
    pub(crate) kernel_args: &'a str,
    /// How its clock advances.
    pub(crate) clock: Clock,
    /// Processors.
    pub(crate) cpus: u32,
    /// Memory, which also holds the first file system.
    pub(crate) memory_mib: u32,
    /// Longest time until the machine ends.
    pub(crate) limit: Duration,
}

/// By how much the clock advances with each instruction, ns.
pub(crate) const INSTRUCTION_NS: u32 = 1 << ICOUNT_SHIFT;
/// The same as a power of two, for qemu.
const ICOUNT_SHIFT: u32 = 1;

/// How the clock of a machine advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// By [`INSTRUCTION_NS`] per instruction, and it skips idle time: a tick comes after as many instructions as on a real machine, and
    /// results do not depend on the load of this one.
    Instructions,
    /// As the one of this machine. The processors are emulated in parallel, which is faster, but times mean nothing.
    Real,
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The program ended, with this exit code.
    Program(i32),
    /// The machine ended without an exit code; why, and the end of the kernel's console.
    Early { why: String, console: String },
}

impl Machine<'_> {
    /// Boots it, and calls `on_line` for each line that the program writes. `dir` is for its files.
    pub(crate) fn run(&self, dir: &Path, mut on_line: impl FnMut(&str)) -> Result<Ended> {
        let (console, code) = (dir.join("console"), dir.join("code"));
        fs::write(&code, "").context("clear the exit code")?;
        let mut qemu = Owned(
            self.command(&console, &code)?
                .spawn()
                .with_context(|| format!("start `{}`", emulator(self.arch)))?,
        );
        let output = qemu.0.stdout.take().expect("it is piped");
        let (send, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                // Fails if the receiver was dropped after a time-out.
                let _ = send.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let deadline = Instant::now() + self.limit;
        let why = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => on_line(line.trim_end_matches('\r')),
                Err(RecvTimeoutError::Timeout) => {
                    qemu.0.kill().context("end the virtual machine")?;
                    break format!("it did not end within {} s", self.limit.as_secs());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = qemu.0.wait().context("wait for the virtual machine")?;
                    break format!("{} ended with {status}", emulator(self.arch));
                }
            }
        };
        let _ = reader.join();
        let code = fs::read_to_string(&code).unwrap_or_default();
        Ok(match code.trim().parse() {
            Ok(code) => Ended::Program(code),
            Err(_) => Ended::Early {
                why,
                console: tail(&fs::read(&console).unwrap_or_default()),
            },
        })
    }

    fn command(&self, console: &Path, code: &Path) -> Result<Command> {
        let emulator = qemu::find(&emulator(self.arch), self.arch)?;
        // Before other work, if this process may do that: a guest that waits for a processor measures the wait.
        let mut command = Command::new("nice");
        let icount = format!("shift={ICOUNT_SHIFT},sleep=off");
        command
            .args(["-n", "-15"])
            .arg(&emulator.path)
            .envs(emulator.variable())
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-no-reboot", "-accel", "tcg"])
            .args(["-smp", &self.cpus.to_string()])
            .args(["-m", &self.memory_mib.to_string()])
            .args(match self.clock {
                Clock::Instructions => vec!["-icount".to_owned(), icount],
                Clock::Real => Vec::new(),
            });
        let (console_file, code_file) = (
            format!("file:{}", console.display()),
            format!("file:{}", code.display()),
        );
        let console_port = match self.arch {
            Arch::Amd64 => {
                command.args(["-M", "q35", "-cpu", "max,la57=off"]);
                command.args(["-serial", &console_file, "-serial", "stdio"]);
                command.args(["-serial", &code_file]);
                "ttyS0"
            }
            // The board has one serial port of its own; those on PCI are numbered as on amd64, and the first one is idle.
            // Authenticated pointers use a quick algorithm in place of the architecture's.
            Arch::Arm64 => {
                command.args(["-M", "virt", "-cpu", "max,pauth-impdef=on"]);
                command.args(["-serial", &console_file]);
                let ends = [
                    "null,id=s0",
                    "stdio,id=s1",
                    &format!("file,path={},id=s2", code.display()),
                ];
                for (number, end) in ends.iter().enumerate() {
                    command.args(["-chardev", end, "-device"]);
                    command.arg(format!("pci-serial,chardev=s{number}"));
                }
                "ttyAMA0"
            }
        };
        command
            .arg("-kernel")
            .arg(self.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .arg("-append")
            .arg(format!(
                "console={console_port} {KERNEL_ARGS} {}",
                self.kernel_args
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(command)
    }
}

/// Returns the last lines of a console.
fn tail(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
}

/// A process that is killed when this is dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_console_is_its_last_lines() {
        let lines: Vec<String> = (0..130).map(|n| format!("line {n}\r")).collect();
        let end = tail(lines.join("\n").as_bytes());
        assert_eq!(end.lines().count(), CONSOLE_LINES);
        assert!(end.starts_with("line 60\nline 61\n"), "{end}");
        assert!(end.ends_with("line 129"), "{end}");
        assert_eq!(tail(b""), "");
    }
}
