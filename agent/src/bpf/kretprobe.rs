//! Attaches kretprobes that many threads may wait in at once.
//!
//! The kernel keeps a slot for each call whose return is pending, and skips the return of a call that found no free slot.
//! A kretprobe that is made by `perf_event_open` only has one slot per CPU, but hundreds of a server's threads wait in
//! `recv`. Only a probe that is defined in tracefs can ask for more (Documentation/trace/kprobetrace.rst, v6.18).
//! Does not depend on: hooks, attach modes.

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

use crate::bpf::{preflight::TRACEFS, report::RefusalKind};

/// Slots of each probe: the kernel's maximum (kernel/trace/trace_kprobe.c, `KRETPROBE_MAXACTIVE_MAX`).
const SLOTS: u32 = 4096;
/// Group of the probes' names in tracefs.
const GROUP: &str = "inferprobe";

/// Number of the next probe of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// An attached probe. Dropping it detaches the program and removes the definition.
#[derive(Debug)]
pub struct Kretprobe {
    /// Opened at start, because the agent drops the capability to open it later.
    definitions: File,
    name: String,
    /// Closed before the definition is removed: the kernel keeps a definition that is in use.
    event: Option<OwnedFd>,
}

impl Kretprobe {
    /// Attaches the kprobe program `program` to the return of the kernel's `function`.
    ///
    /// If that fails, returns the kind of refusal and the reason as one line.
    pub fn attach(program: BorrowedFd<'_>, function: &str) -> Result<Self, (RefusalKind, String)> {
        let tracefs = find_tracefs()?;
        let path = tracefs.join("kprobe_events");
        let not_written = |err| refusal(&format!("cannot write {}", path.display()), &err);
        let definitions = OpenOptions::new().append(true).open(&path);
        let definitions = definitions.map_err(not_written)?;
        remove_stale(&path, &definitions);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut probe = Self {
            name: format!("{GROUP}/r_{}_{number}_{function}", process::id()),
            definitions,
            event: None,
        };
        let line = format!("r{SLOTS}:{} {function}", probe.name);
        write(&probe.definitions, &line).map_err(not_written)?;
        let id = tracefs.join("events").join(&probe.name).join("id");
        let number = fs::read_to_string(&id)
            .map_err(|err| refusal(&format!("cannot read {}", id.display()), &err))?
            .trim()
            .parse()
            .map_err(|_| {
                let reason = format!("{} has no number", id.display());
                (RefusalKind::Unavailable, reason)
            })?;
        let event = open(number).map_err(|err| refusal("perf_event_open", &err))?;
        start(&event, program).map_err(|err| refusal("cannot start the event", &err))?;
        probe.event = Some(event);
        Ok(probe)
    }
}

impl Drop for Kretprobe {
    fn drop(&mut self) {
        drop(self.event.take());
        if let Err(err) = write(&self.definitions, &format!("-:{}", self.name)) {
            warn!(name = self.name, %err, "probe definition not removed");
        }
    }
}

fn refusal(what: &str, err: &io::Error) -> (RefusalKind, String) {
    let kind = match err.kind() {
        io::ErrorKind::PermissionDenied => RefusalKind::NotPermitted,
        _ => RefusalKind::Unavailable,
    };
    (kind, format!("{what}: {err}"))
}

/// Returns the mount point of tracefs.
fn find_tracefs() -> Result<&'static Path, (RefusalKind, String)> {
    let mut refusal = (
        RefusalKind::Unavailable,
        "tracefs is not mounted".to_owned(),
    );
    for dir in TRACEFS.map(Path::new) {
        match fs::metadata(dir.join("kprobe_events")) {
            Ok(_) => return Ok(dir),
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                let reason = format!(
                    "{} needs root or CAP_DAC_OVERRIDE: permission denied",
                    dir.display()
                );
                refusal = (RefusalKind::NotPermitted, reason);
            }
            Err(_) => {}
        }
    }
    Err(refusal)
}

/// Opens the tracepoint with this number for all processes.
fn open(number: u64) -> io::Result<OwnedFd> {
    let mut attr = bindings::perf_event_attr {
        type_: bindings::PERF_TYPE_TRACEPOINT,
        size: u32::try_from(size_of::<bindings::perf_event_attr>()).expect("a small struct"),
        config: number,
        ..Default::default()
    };
    attr.__bindgen_anon_1.sample_period = 1;
    // One CPU suffices: the tracepoint itself runs the program, on every CPU.
    // SAFETY: `attr` is valid, and `size` is its size.
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
    // SAFETY: the descriptor is new, so this is its only owner.
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

/// Removes the definitions that killed agents left behind, to which no program is attached any more.
fn remove_stale(path: &Path, definitions: &File) {
    let text = fs::read_to_string(path).unwrap_or_default();
    for (name, pid) in text.lines().filter_map(own) {
        if Path::new("/proc").join(pid).exists() {
            continue;
        }
        if let Err(err) = write(definitions, &format!("-:{name}")) {
            warn!(name, %err, "probe definition of a killed agent not removed");
        }
    }
}

/// Returns the name and the process id of an agent's probe from a line such as
/// `r4096:inferprobe/r_12_0_inet_recvmsg inet_recvmsg`; `None` for the probe of another program.
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
    fn own_ignores_definitions_of_other_programs() {
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
