//! `iter/task_file`: passes over the open sockets of this host. Runs when the agent asks for it.
//!
//! One pass marks the watched listeners that were open before the watch, and reports them. The other reports the watched
//! connections, with what was read and not answered yet.
//! Does not depend on: when a record is emitted.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use inferprobe_ebpf::{
    abi::{DropReason, OpenSocket, REQUEST_HEAD_CAP, Record, mode},
    conn::{Conn, phase},
};

use crate::{
    access::{Btf, Raw},
    backend::{Backend, Shared, mark_listener},
    maps::{clients, watched},
    probes::entry::done,
    sock::{Family, Sock},
    task,
};

/// `struct bpf_iter_meta` (include/linux/bpf.h, 5.8).
#[repr(C)]
struct Meta {
    seq: *mut c_void,
}

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c, 5.8): the verifier knows its fields by their offset.
#[repr(C)]
struct TaskFile {
    meta: *mut Meta,
    task: *mut c_void,
    fd: u32,
    file: *mut c_void,
}

/// What a pass visits: a file, the task that has it open, and where the pass writes to.
struct Visit {
    seq: *mut c_void,
    task: *mut c_void,
    file: *mut c_void,
}

impl Visit {
    /// Returns what `ctx` is about; `None` on the last call of a pass.
    #[inline(always)]
    fn of(ctx: *mut TaskFile) -> Option<Self> {
        // SAFETY: the kernel passes a context of this layout; task and file are null on the last call.
        let (meta, task, file) = unsafe { ((*ctx).meta, (*ctx).task, (*ctx).file) };
        if task.is_null() || file.is_null() {
            return None;
        }
        // SAFETY: the kernel always passes a `meta`.
        let seq = unsafe { (*meta).seq };
        Some(Self { seq, task, file })
    }

    /// Writes `entry`. Without room, the kernel enlarges the buffer and visits the file again.
    #[inline(always)]
    fn write(&self, entry: &OpenSocket) {
        let entry: *const OpenSocket = entry;
        // SAFETY: `seq` is the pass's typed file; the entry is as long as stated.
        unsafe {
            bpf_seq_write(
                self.seq.cast(),
                entry.cast(),
                size_of::<OpenSocket>() as u32,
            )
        };
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn scan_listeners(ctx: *mut TaskFile) -> i32 {
    let Some(visit) = Visit::of(ctx) else {
        return 0;
    };
    done(match Sock::<Btf>::of_file(visit.file) {
        Some(sk) => try_scan_listener(&visit, sk),
        None => Ok(()),
    })
}

/// The same, with state in hash maps by address.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn scan_listeners_plain(ctx: *mut TaskFile) -> i32 {
    let Some(visit) = Visit::of(ctx) else {
        return 0;
    };
    done(match Sock::<Raw>::of_file(visit.file) {
        Some(sk) => try_scan_listener(&visit, sk),
        None => Ok(()),
    })
}

/// The same, with state that programs of both types share.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn scan_listeners_shared(ctx: *mut TaskFile) -> i32 {
    let Some(visit) = Visit::of(ctx) else {
        return 0;
    };
    done(match Sock::<Btf>::of_file(visit.file) {
        Some(sk) => try_scan_listener(&visit, Sock::<Shared<Btf>>::new(sk.as_ptr())),
        None => Ok(()),
    })
}

#[inline(always)]
fn try_scan_listener<B: Backend>(visit: &Visit, sk: Sock<B>) -> Result<(), DropReason> {
    let Some(family) = sk.family() else {
        return Ok(());
    };
    let tgid = task::ids_of(visit.task).0;
    let by_process = watched::has_process(tgid);
    let port = sk.local_port();
    if !sk.listens() {
        if family == Family::Inet && watched::is_released(port) && !by_process && !B::is_marked(sk)
        {
            B::release(sk);
            return Ok(());
        }
        // A connection that a watched process made before its watch.
        return if by_process && family == Family::Inet && !watched::serves_port(port) {
            clients::note(sk, tgid)
        } else {
            Ok(())
        };
    }
    let by_port = family == Family::Inet && watched::has_port(port) && !watched::is_undecided(port);
    if !by_process && !by_port {
        return Ok(());
    }
    mark_listener(sk)?;
    if family == Family::Unix {
        return watched::add_address(sk.unix_address());
    }
    visit.write(&OpenSocket {
        cookie: 0,
        tgid,
        port: port as u32,
        len: 0,
        reserved: 0,
    });
    Ok(())
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn scan_open(ctx: *mut TaskFile) -> i32 {
    let Some(visit) = Visit::of(ctx) else {
        return 0;
    };
    if let Some(sk) = Sock::<Btf>::of_file(visit.file) {
        report_open(&visit, sk);
    }
    0
}

/// The same, with state in hash maps by address.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn scan_open_plain(ctx: *mut TaskFile) -> i32 {
    let Some(visit) = Visit::of(ctx) else {
        return 0;
    };
    if let Some(sk) = Sock::<Raw>::of_file(visit.file) {
        report_open(&visit, sk);
    }
    0
}

/// The same, with state that programs of both types share.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn scan_open_shared(ctx: *mut TaskFile) -> i32 {
    let Some(visit) = Visit::of(ctx) else {
        return 0;
    };
    if let Some(sk) = Sock::<Btf>::of_file(visit.file) {
        report_open(&visit, Sock::<Shared<Btf>>::new(sk.as_ptr()));
    }
    0
}

/// Reports a watched connection, and what its server has read since its latest write.
#[inline(always)]
fn report_open<B: Backend>(visit: &Visit, sk: Sock<B>) {
    if sk.family().is_none() {
        return;
    }
    let conn = B::conn(sk);
    if conn.is_null() {
        return;
    }
    // SAFETY: a map value. A hook may change it meanwhile: the agent takes what is reported for a glimpse.
    let conn = unsafe { &*conn };
    if conn.record.cookie == 0 || conn.lock.closed != 0 {
        return;
    }
    let len = unreported_len(conn);
    visit.write(&OpenSocket {
        cookie: conn.record.cookie,
        tgid: conn.record.tgid,
        port: conn.record.local_port as u32,
        len,
        reserved: 0,
    });
    if len > 0 {
        let conn: *const Conn = conn;
        // SAFETY: the payload follows the record in `Conn`, and `len` ends within it.
        unsafe { bpf_seq_write(visit.seq.cast(), conn.cast(), len) };
    }
}

/// Returns the length of the record that is being filled with reads, and of its payload; 0 if there is none.
#[inline(always)]
fn unreported_len(conn: &Conn) -> u32 {
    let is_shared = conn.record.mode == mode::MESSAGES || conn.record.mode == mode::RECORDS;
    if !is_shared || conn.progress.phase != phase::READING {
        return 0;
    }
    let copied = conn.record.request_len as u32;
    let copied = if copied > REQUEST_HEAD_CAP as u32 {
        REQUEST_HEAD_CAP as u32
    } else {
        copied
    };
    size_of::<Record>() as u32 + copied
}
