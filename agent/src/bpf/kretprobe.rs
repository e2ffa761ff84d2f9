//! Kretprobes that many threads may wait behind at once.
//!
//! The kernel keeps a place for each call whose return is to be told, and passes over the returns of calls that found
//! none. Of a probe that is made by `perf_event_open` alone there is one place for each CPU, where a server's threads wait
//! in `recv` by the hundred; only a probe that is defined in tracefs may say how many it wants
//! (Documentation/trace/kprobetrace.rst, v6.18).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use perf_event_open_sys::{bindings, ioctls, perf_event_open};
use tracing::warn;

use crate::bpf::preflight::TRACEFS;

/// Places of each probe: the most that the kernel gives (kernel/trace/trace_kprobe.c, `KRETPROBE_MAXACTIVE_MAX`).
const PLACES: u32 = 4096;
/// Group of the probes' names in tracefs.
const GROUP: &str = "inferprobe";

/// Number of the next probe of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// An attached probe. Dropping it detaches the program and takes the definition back.
#[derive(Debug)]
pub struct Kretprobe {
    /// Open from the beginning: what the agent may open then is more than what it may open in the end.
    definitions: File,
    name: String,
    /// Closed before the definition goes: the kernel keeps what is in use.
    event: Option<OwnedFd>,
}

impl Kretprobe {
    /// Attaches the kprobe program `program` to the return of the kernel's `function`; the reason as a line if that fails.
    pub fn attach(program: BorrowedFd<'_>, function: &str) -> Result<Self, String> {
        let tracefs = find_tracefs()?;
        let path = tracefs.join("kprobe_events");
        let refused = |err: io::Error| format!("cannot write {}: {err}", path.display());
        let definitions = OpenOptions::new().append(true).open(&path);
        let definitions = definitions.map_err(refused)?;
        take_back_stale(&path, &definitions);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut probe = Self {
            name: format!("{GROUP}/r_{}_{number}_{function}", process::id()),
            definitions,
            event: None,
        };
        let line = format!("r{PLACES}:{} {function}", probe.name);
        write(&probe.definitions, &line).map_err(refused)?;
        let id = tracefs.join("events").join(&probe.name).join("id");
        let number = fs::read_to_string(&id)
            .map_err(|err| format!("cannot read {}: {err}", id.display()))?
            .trim()
            .parse()
            .map_err(|_| format!("{} holds no number", id.display()))?;
        let event = open(number).map_err(|err| format!("perf_event_open: {err}"))?;
        start(&event, program).map_err(|err| format!("attach to the event: {err}"))?;
        probe.event = Some(event);
        Ok(probe)
    }
}

impl Drop for Kretprobe {
    fn drop(&mut self) {
        drop(self.event.take());
        if let Err(err) = write(&self.definitions, &format!("-:{}", self.name)) {
            warn!(name = self.name, %err, "definition of a probe not taken back");
        }
    }
}

/// The mounted tracefs.
fn find_tracefs() -> Result<&'static Path, String> {
    let mut refusal = "tracefs is not mounted".to_owned();
    for dir in TRACEFS.map(Path::new) {
        match fs::metadata(dir.join("kprobe_events")) {
            Ok(_) => return Ok(dir),
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                refusal = format!(
                    "{} is closed to this user: run as root, or with CAP_DAC_OVERRIDE",
                    dir.display()
                );
            }
            Err(_) => {}
        }
    }
    Err(refusal)
}

/// Opens the tracepoint with the number for all processes.
fn open(number: u64) -> io::Result<OwnedFd> {
    let mut attr = bindings::perf_event_attr {
        type_: bindings::PERF_TYPE_TRACEPOINT,
        size: u32::try_from(size_of::<bindings::perf_event_attr>()).expect("a small struct"),
        config: number,
        ..Default::default()
    };
    attr.__bindgen_anon_1.sample_period = 1;
    // One CPU stands for all: the program is run by the tracepoint itself.
    // SAFETY: `attr` is valid, and has its own size.
    let fd = unsafe {
        perf_event_open(
            &raw mut attr,
            -1,
            0,
            -1,
            bindings::PERF_FLAG_FD_CLOEXEC.into(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn start(event: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open.
    let done = unsafe {
        ioctls::SET_BPF(event.as_raw_fd(), program.as_raw_fd().cast_unsigned()) >= 0
            && ioctls::ENABLE(event.as_raw_fd(), 0) >= 0
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes back the definitions of agents that were killed: nothing is attached to them any more.
fn take_back_stale(path: &Path, definitions: &File) {
    let text = fs::read_to_string(path).unwrap_or_default();
    for (name, pid) in text.lines().filter_map(own) {
        if Path::new("/proc").join(pid).exists() {
            continue;
        }
        if let Err(err) = write(definitions, &format!("-:{name}")) {
            warn!(name, %err, "definition of a killed agent's probe not taken back");
        }
    }
}

/// Name of one of our probes, and the process that defined it, in a line such as
/// `r4096:inferprobe/r_12_0_inet_recvmsg inet_recvmsg`.
fn own(line: &str) -> Option<(&str, &str)> {
    let name = line.split_whitespace().next()?.split_once(':')?.1;
    let pid = name
        .strip_prefix(GROUP)?
        .strip_prefix("/r_")?
        .split('_')
        .next()?;
    Some((name, pid))
}

fn write(mut definitions: &File, line: &str) -> io::Result<()> {
    definitions.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_definitions_are_told_from_others() {
        let line = "r4096:inferprobe/r_12_0_inet_recvmsg inet_recvmsg";
        assert_eq!(own(line), Some(("inferprobe/r_12_0_inet_recvmsg", "12")));
        for other in [
            "p:kprobes/r_1_open do_sys_open",
            "r8:inferprobes/r_1_x x",
            "",
        ] {
            assert_eq!(own(other), None, "{other}");
        }
    }
}
