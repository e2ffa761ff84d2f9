//! Reads the kernel's own statistics of BPF programs: how often and how long each program has run.

use std::{
    collections::BTreeMap,
    io,
    ops::Sub,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
};

/// `bpf(2)` commands (include/uapi/linux/bpf.h, `enum bpf_cmd`).
const PROG_LOAD: libc::c_long = 5;
/// Since Linux 5.8.
const ENABLE_STATS: libc::c_long = 32;
/// `BPF_STATS_RUN_TIME`, of `enum bpf_stats_type`.
const STATS_RUN_TIME: u32 = 0;
/// `BPF_PROG_TYPE_SOCKET_FILTER`, of `enum bpf_prog_type`.
const SOCKET_FILTER: u32 = 1;
/// Runs of the empty program.
const EMPTY_RUNS: usize = 20_000;

/// Runs of a program since it was loaded, or between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Number of runs.
    pub(crate) count: u64,
    /// Time in all of them.
    pub(crate) ns: u64,
}

impl Sub for Runs {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            count: self.count - earlier.count,
            ns: self.ns - earlier.ns,
        }
    }
}

/// Keeps the statistics on. The kernel turns them off with the last of these, unless they are on for everyone.
#[derive(Debug)]
pub(crate) struct Enabled {
    _fd: OwnedFd,
}

/// Switches the statistics on. Needs root.
pub(crate) fn enable() -> io::Result<Enabled> {
    Ok(Enabled {
        _fd: bpf(ENABLE_STATS, &STATS_RUN_TIME)?,
    })
}

/// Returns whether the statistics are on for everyone, which makes every program slower.
pub(crate) fn always_on() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")
        .is_ok_and(|value| value.trim() != "0")
}

/// Returns the runs of the programs that process `pid` has attached to tracepoints, by tracepoint.
pub(crate) fn by_tracepoint(pid: u32) -> BTreeMap<String, Runs> {
    let folder = format!("/proc/{pid}/fdinfo");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|err| panic!("{folder}: {err}"));
    let infos: Vec<String> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .collect();
    join(&infos)
}

/// Joins the links among the `fdinfo` texts, which name tracepoints, with the programs, which have run.
fn join(infos: &[String]) -> BTreeMap<String, Runs> {
    let runs: BTreeMap<&str, Runs> = infos
        .iter()
        .filter_map(|info| Some((field(info, "prog_id")?, runs_in(info)?)))
        .collect();
    infos
        .iter()
        .filter_map(|info| {
            let name = field(info, "tp_name")?;
            Some((name.to_owned(), *runs.get(field(info, "prog_id")?)?))
        })
        .collect()
}

/// Returns the mean time of an empty run: what the statistics themselves add to each run.
pub(crate) fn empty_run_ns(_enabled: &Enabled) -> io::Result<f64> {
    let program = load_empty()?;
    let (from, to) = UnixDatagram::pair()?;
    let fd = program.as_raw_fd();
    // SAFETY: the kernel reads an int of the given size at `fd`, which outlives the call.
    let attached = unsafe {
        libc::setsockopt(
            to.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const fd).cast(),
            size_of_val(&fd) as libc::socklen_t,
        )
    };
    if attached != 0 {
        return Err(io::Error::last_os_error());
    }
    for _ in 0..EMPTY_RUNS {
        // The filter drops everything, so the queue never fills.
        from.send(b"x")?;
    }
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let runs = runs_in(&info).filter(|runs| runs.count > 0);
    let runs = runs.ok_or_else(|| io::Error::other("the kernel counted no run of a program"))?;
    Ok(runs.ns as f64 / runs.count as f64)
}

/// Loads a socket filter of two instructions: `r0 = 0; exit`.
fn load_empty() -> io::Result<OwnedFd> {
    /// First fields of the attributes of `BPF_PROG_LOAD`.
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
    }
    const INSTRUCTIONS: [u64; 2] = [0xb7_u64.to_le(), 0x95_u64.to_le()];
    bpf(
        PROG_LOAD,
        &Load {
            prog_type: SOCKET_FILTER,
            insn_cnt: 2,
            insns: INSTRUCTIONS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
        },
    )
}

/// Calls `bpf(2)` with a command that makes a descriptor; `attr` starts `union bpf_attr`, the rest of which is zero.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes at `attr`, and what they point to, all of which outlive the call;
    // the commands given here write nothing back.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made `fd` for this call, and nothing else uses it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn runs_in(info: &str) -> Option<Runs> {
    Some(Runs {
        count: field(info, "run_cnt")?.parse().ok()?,
        ns: field(info, "run_time_ns")?.parse().ok()?,
    })
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_the_tracepoint_of_its_program() {
        let infos = [
            "pos:\t0\nprog_type:\t26\nprog_id:\t12\nrun_time_ns:\t500\nrun_cnt:\t4\n",
            "pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t7\nprog_id:\t12\ntp_name:\tsk_data_ready\n",
            "pos:\t0\nprog_id:\t13\nrun_time_ns:\t1\nrun_cnt:\t1\n",
        ]
        .map(str::to_owned);
        let expected = Runs { count: 4, ns: 500 };
        assert_eq!(
            join(&infos),
            [("sk_data_ready".to_owned(), expected)].into()
        );
    }
}
