//! Attaches programs to an instruction of a file, for one process.
//!
//! The kernel removes the probe with its descriptor, also if the agent is killed. Other processes that have mapped the file pay
//! nothing (kernel/trace/trace_uprobe.c, `uprobe_perf_filter`, v6.18).
//! Does not depend on: what is at the instruction.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use perf_event_open_sys::{bindings, ioctls, perf_event_open};

/// What the kernel says of its uprobes.
const SOURCE: &str = "/sys/bus/event_source/devices/uprobe";

/// How to ask this kernel for a uprobe.
#[derive(Debug, Clone, Copy)]
pub struct Uprobes {
    /// Type of the event.
    kind: u32,
    /// Bit of its configuration that asks for the return of a function.
    at_return: u64,
}

impl Uprobes {
    /// Asks the kernel.
    ///
    /// # Errors
    /// If this kernel has no uprobes.
    pub fn find() -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("{SOURCE}/{name}"));
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let kind = read("type")?.trim().parse().map_err(|_| invalid())?;
        let format = read("format/retprobe")?;
        let bit: u32 = format
            .trim()
            .strip_prefix("config:")
            .and_then(|bit| bit.parse().ok())
            .ok_or_else(invalid)?;
        Ok(Self {
            kind,
            at_return: 1_u64.checked_shl(bit).ok_or_else(invalid)?,
        })
    }

    /// Runs the program whenever the process executes the instruction at `offset` bytes of `file`, or, with `at_return`,
    /// whenever the function returns whose return address is on the stack then. It does so for as long as the descriptor is
    /// open.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach(
        self,
        program: BorrowedFd<'_>,
        file: &File,
        offset: u64,
        pid: u32,
        at_return: bool,
    ) -> io::Result<OwnedFd> {
        // The kernel follows this link to the file itself, whatever its path leads to by now.
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let mut attr = bindings::perf_event_attr {
            type_: self.kind,
            size: u32::try_from(size_of::<bindings::perf_event_attr>()).expect("a small struct"),
            config: if at_return { self.at_return } else { 0 },
            ..Default::default()
        };
        attr.__bindgen_anon_1.sample_period = 1;
        attr.__bindgen_anon_3.config1 = path.as_ptr() as u64;
        attr.__bindgen_anon_4.config2 = offset;
        let pid = i32::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: `attr` and the path are valid during the call, and `size` is the size of `attr`.
        let fd = unsafe {
            perf_event_open(
                &raw mut attr,
                pid,
                -1,
                -1,
                bindings::PERF_FLAG_FD_CLOEXEC.into(),
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, so this is its only owner.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: both descriptors are open.
        let started = unsafe {
            ioctls::SET_BPF(event.as_raw_fd(), program.as_raw_fd().cast_unsigned()) >= 0
                && ioctls::ENABLE(event.as_raw_fd(), 0) >= 0
        };
        match started {
            true => Ok(event),
            false => Err(io::Error::last_os_error()),
        }
    }
}
