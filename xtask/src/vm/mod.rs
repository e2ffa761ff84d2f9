//! A virtual machine that boots a kernel, runs one program and ends: qemu, emulating every instruction.
//!
//! Emulation alone: where a machine offers KVM to its guests, it may be of a kind that stock kernels hang in. What the
//! program is, and what it says, is not known here.

pub(crate) mod initramfs;
pub(crate) mod kernels;
pub(crate) mod qemu;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::tools::debian;

/// Packages with the emulator and the guest's busybox; the busybox of arm64 is fetched like a kernel.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "seabios", "busybox-static"];
const PACKAGES_ARM64: [&str; 1] = ["qemu-system-arm"];
/// Memory of the machine.
const MEMORY_MIB: u32 = 768;
/// Lines of the kernel's console that are shown of a machine that did not come to its end.
const CONSOLE_LINES: usize = 70;
/// The machine's clock: each instruction takes 2 ns of it, however long it is emulated, and while all processors wait it
/// goes on to what they wait for. So a tick comes after as many instructions as on a real machine, and what is timed does
/// not depend on what else this one has to do.
const CLOCK: &str = "shift=1,sleep=off";
/// No message but of trouble; a kernel in trouble ends the machine at once.
const KERNEL_ARGS: &str = "panic=-1 oops=panic no_timer_check quiet loglevel=4";

/// The emulator of an architecture.
pub(crate) fn emulator(arch: Arch) -> String {
    format!("qemu-system-{}", arch.machine())
}

/// Returns why this machine can run no virtual machines of `arch`, after trying to install what they need; `None` if it
/// can.
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
    /// Its first file system. The program writes to the second serial port, and its exit code to the third.
    pub(crate) initramfs: &'a Path,
    /// What its kernel is told beside what every one is.
    pub(crate) kernel_args: &'a str,
    /// Processors.
    pub(crate) cpus: u32,
    /// Longest time to the machine's end.
    pub(crate) limit: Duration,
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The program did, with this exit code.
    Program(i32),
    /// Without an exit code; why, and the end of the kernel's console.
    Early { why: String, console: String },
}

impl Machine<'_> {
    /// Boots it, and hands over each line that the program writes. `dir` is for its files.
    pub(crate) fn run(&self, dir: &Path, mut on_line: impl FnMut(&str)) -> Result<Ended> {
        let (console, code) = (dir.join("console"), dir.join("code"));
        fs::write(&code, "").context("clear the exit code")?;
        let mut qemu = Owned(
            self.command(&console, &code)?
                .spawn()
                .with_context(|| format!("start `{}`", emulator(self.arch)))?,
        );
        let said = qemu.0.stdout.take().expect("it is piped");
        let (send, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
                // It fails when nobody listens any more.
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
        // Ahead of other work, where that may be had: what the machine times should not be the wait for a processor.
        let mut command = Command::new("nice");
        command
            .args(["-n", "-15"])
            .arg(&emulator.path)
            .envs(emulator.variable())
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-no-reboot", "-accel", "tcg"])
            .args(["-smp", &self.cpus.to_string()])
            .args(["-m", &MEMORY_MIB.to_string()])
            .args(["-icount", CLOCK]);
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
            // The board has one serial port of its own; those on PCI are numbered as on amd64, the first of them idle.
            // Authenticated pointers are emulated by a quick algorithm in place of the architecture's.
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

/// The last lines of a console.
fn tail(console: &[u8]) -> String {
    let text = String::from_utf8_lossy(console);
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
}

/// A process that ends with whoever holds it.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
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
