//! The maps, and the few things done with them. Knows no hook.

pub(crate) mod calls;
pub(crate) mod sockets;

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::{Array, HashMap, LruHashMap, RingBuf},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ringbuf_output, bpf_ringbuf_query,
    },
    macros::btf_map,
};
use inferprobe_ebpf::{
    abi::{
        DROP_CPUS, DropReason, PAYLOAD_CAP, PROGRESS_SLOTS, ProcessEvent, ProgressSlot, Record,
        kind, mode,
    },
    conn::Conn,
    duplicate::Turn,
};

use crate::{
    backend::Flavour,
    sock::{Family, Sock, now_ns, runs_twice},
};

/// Bytes waiting in the ring from which a record wakes the agent up; below, the agent's own timer does.
const WAKEUP_BYTES: u64 = 512 << 10;
/// Looks at a connection that another hook has, before it is given up: some microseconds.
const CONTENDED_LOOKS: u32 = 1024;
/// Time after which a progress slot may go to another socket: the agent has long read it by then.
const SLOT_HELD_NS: u64 = 1_000_000_000;

/// A connection on its way to the server's process.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Accept {
    /// When it was established.
    established_ns: u64,
    /// When the server's call returned with it; 0: not seen.
    pub(crate) accepted_ns: u64,
}

/// A worker of TorchServe, at the other end of its frontend's connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Worker {
    /// Cookie of its socket.
    pub(crate) cookie: u64,
    /// [`inferprobe_ebpf::conn::Told::taken`].
    pub(crate) taken: u32,
    reserved: u32,
}

#[btf_map]
static RECORDS: RingBuf<Record, { 4 << 20 }> = RingBuf::new();

#[btf_map]
static PROCESSES: RingBuf<ProcessEvent, { 64 << 10 }> = RingBuf::new();

/// For maps that the agent reads as memory of its own (5.5).
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
static PROGRESSES: Array<ProgressSlot, PROGRESS_SLOTS, MMAPABLE> = Array::new();

#[btf_map]
static DROPS: Array<u64, { DROP_CPUS * DropReason::ALL.len() }, MMAPABLE> = Array::new();

/// Watched processes.
#[btf_map]
static WATCHED: HashMap<u32, u8, 8192> = HashMap::new();

/// Watched TCP ports, one bit each.
#[btf_map]
static PORTS: Array<u64, 1024> = Array::new();

/// Addresses (kernel pointers) of watched AF_UNIX listeners: their connections share them.
#[btf_map]
static LISTENERS: LruHashMap<u64, u8, 1024> = LruHashMap::new();

/// TCP ports that watched listeners have, or had: the server's side of a connection is the one with such a port.
#[btf_map]
static SERVED: LruHashMap<u32, u8, 1024> = LruHashMap::new();

/// Accepts of watched TCP connections that were not read from yet, by the address of their socket; in use if the agent
/// asks for them.
#[btf_map]
static ACCEPTS: LruHashMap<u64, Accept, 16384> = LruHashMap::new();

/// Workers' TCP sockets, by their ports: the worker's own above, the frontend's below.
#[btf_map]
static WORKERS: LruHashMap<u32, Worker, 1024> = LruHashMap::new();

/// Counts a loss.
#[inline(always)]
pub(crate) fn count(reason: DropReason) {
    // SAFETY: no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() } % DROP_CPUS as u32;
    if let Some(slot) = DROPS.get_ptr_mut(cpu * DropReason::ALL.len() as u32 + reason as u32) {
        // SAFETY: a map value, this CPU's own. A task that loses the CPU just here may undo the count of another.
        unsafe { *slot += 1 };
    }
}

/// Takes the connection for a hook that fills its record in; `false` when another one keeps it for too long.
///
/// A hook that was there first is through within a microsecond, unless its task loses the CPU. There is no atomic exchange
/// for this target in stable Rust: two hooks that look within the same nanoseconds both go on.
#[inline(never)]
pub(crate) fn take(conn: &mut Conn) -> bool {
    let busy: *mut u32 = &raw mut conn.busy;
    let mut looks = 0;
    while looks < CONTENDED_LOOKS {
        // SAFETY: a map value, and aligned; the compiler must look each time.
        if unsafe { busy.read_volatile() } == 0 {
            // SAFETY: as above.
            unsafe { busy.write_volatile(1) };
            return true;
        }
        looks += 1;
    }
    conn.missed = 1;
    false
}

/// Gives back what [`take`] took, and tells of an end that came meanwhile.
#[inline(always)]
pub(crate) fn give_back(conn: &mut Conn) {
    let busy: *mut u32 = &raw mut conn.busy;
    // SAFETY: as in `take`.
    unsafe { busy.write_volatile(0) };
    if conn.ended != 0 {
        close(conn, now_ns());
    }
}

/// Marks a listener as watched.
#[inline(always)]
pub(crate) fn mark<F: Flavour>(sk: Sock<F>) -> Result<(), DropReason> {
    F::mark(sk)?;
    if sk.family() == Some(Family::Inet) {
        // Without room, an older connection of HTTP/2 is not joined.
        let _ = SERVED.insert(sk.local_port() as u32, 1, BPF_ANY.into());
    }
    Ok(())
}

/// Whether a watched listener has the TCP port, or had it.
#[inline(always)]
pub(crate) fn serves_port(port: u16) -> bool {
    SERVED.get_ptr(port as u32).is_some()
}

/// Sends the record of `conn` up, with its payload.
#[inline(always)]
pub(crate) fn emit(conn: &mut Conn, record_kind: u8, now_ns: u64) {
    let payload_bytes = conn.seal(record_kind, now_ns) as u64;
    let payload_bytes = if payload_bytes > PAYLOAD_CAP as u64 {
        PAYLOAD_CAP as u64
    } else {
        payload_bytes
    };
    let ring: *mut c_void = (&raw const RECORDS).cast_mut().cast();
    // SAFETY: RECORDS is a ring buffer.
    let waiting = unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()) };
    let wakeup = if waiting >= WAKEUP_BYTES {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    // SAFETY: the payload follows the record in `Conn`, and `payload_bytes` ends within it.
    let sent = unsafe {
        bpf_ringbuf_output(
            ring,
            (&raw mut *conn).cast(),
            size_of::<Record>() as u64 + payload_bytes,
            wakeup.into(),
        )
    };
    if sent < 0 {
        count(DropReason::RingFull);
    }
    conn.sent();
}

/// Sends up what is left of `conn`, which can be written to no more, and that it ended; does so once, or leaves it to the
/// hook that has the connection, which this one may have interrupted.
#[inline(never)]
pub(crate) fn close(conn: &mut Conn, now_ns: u64) {
    if conn.closed != 0 || conn.record.cookie == 0 {
        return;
    }
    conn.ended = 1;
    if conn.busy != 0 {
        return;
    }
    conn.closed = 1;
    if let Some(cut) = conn.close_cuts() {
        emit(conn, cut, now_ns);
    }
    free_progress(conn);
    emit(conn, kind::CLOSE, now_ns);
}

/// Tells that the other end of connection `cookie` took `bytes` of a reply.
#[inline(always)]
pub(crate) fn emit_taken(cookie: u64, bytes: u32, now_ns: u64) -> Result<(), DropReason> {
    send_up(|record| {
        record.cookie = cookie;
        record.last_read_ns = now_ns;
        record.read_bytes = bytes as u64;
        record.kind = kind::TAKEN;
        record.mode = mode::FRAMES;
    })
}

/// Sends a record without payload up, which is filled in where it goes: it has no room on a program's stack.
#[inline(always)]
fn send_up(fill: impl FnOnce(&mut Record)) -> Result<(), DropReason> {
    let mut entry = RECORDS.reserve(0).ok_or(DropReason::RingFull)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is as long as a record, of which zeros are one.
    fill(unsafe {
        record.write_bytes(0, 1);
        &mut *record
    });
    entry.submit(BPF_RB_NO_WAKEUP.into());
    Ok(())
}

/// Notes that the connection whose socket is at `address` was established.
#[inline(always)]
pub(crate) fn note_established(address: u64, now_ns: u64) -> Result<(), DropReason> {
    let accept = Accept {
        established_ns: now_ns,
        accepted_ns: 0,
    };
    ACCEPTS
        .insert(address, accept, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

/// The accept of the connection whose socket is at `address`, if it is watched and was not read from yet.
#[inline(always)]
pub(crate) fn accept_of(address: u64) -> Option<*mut Accept> {
    ACCEPTS.get_ptr_mut(address)
}

/// Tells when the connection of `conn`, whose socket is at `address`, was accepted, as far as that was seen; does so once.
///
/// A call of its own, which is made once for a connection.
#[inline(never)]
pub(crate) fn emit_accepted(conn: &Conn, address: u64) {
    let Some(accept) = accept_of(address) else {
        return;
    };
    // SAFETY: a map value, which the one task that accepted the connection has written.
    let Accept {
        established_ns,
        accepted_ns,
    } = unsafe { *accept };
    // It may have left already.
    let _ = ACCEPTS.remove(address);
    if accepted_ns == 0 {
        return;
    }
    let sent = send_up(|record| {
        record.cookie = conn.record.cookie;
        record.arrival_ns = established_ns;
        record.first_read_ns = accepted_ns;
        record.tgid = conn.record.tgid;
        record.local_port = conn.record.local_port;
        record.peer_port = conn.record.peer_port;
        record.kind = kind::ACCEPTED;
        record.mode = conn.record.mode;
    });
    if let Err(reason) = sent {
        count(reason);
    }
}

/// Notes the TCP connection of a worker, so that the frontend's reads at its other end are told.
#[inline(always)]
pub(crate) fn note_worker(record: &Record) {
    let ports = ports_of(record.local_port, record.peer_port);
    let worker = Worker {
        cookie: record.cookie,
        taken: 0,
        reserved: 0,
    };
    // Without room, the frontend's reads are not told: the end of the reply stands for them.
    let _ = WORKERS.insert(ports, worker, BPF_ANY.into());
}

/// The worker whose socket has these ports, its own and the other end's.
#[inline(always)]
pub(crate) fn worker_of(local_port: u16, peer_port: u16) -> Option<*mut Worker> {
    WORKERS.get_ptr_mut(ports_of(local_port, peer_port))
}

#[inline(always)]
const fn ports_of(local_port: u16, peer_port: u16) -> u32 {
    (local_port as u32) << 16 | peer_port as u32
}

/// Notes the latest write in the socket's progress slot; `false` when another socket has the slot.
#[inline(always)]
pub(crate) fn note_progress(conn: &Conn) -> bool {
    let Some(slot) = PROGRESSES.get_ptr_mut(slot_of(conn)) else {
        return false;
    };
    // SAFETY: the entry is preallocated; a reader that sees half of it tells by the checksum.
    let slot = unsafe { &mut *slot };
    let age_ns = conn.record.last_write_ns.saturating_sub(slot.last_write_ns);
    if slot.cookie != 0 && slot.cookie != conn.record.cookie && age_ns < SLOT_HELD_NS {
        return false;
    }
    let mut next = ProgressSlot {
        cookie: conn.record.cookie,
        last_write_ns: conn.record.last_write_ns,
        written_bytes: conn.record.written_bytes,
        tail: conn.record.tail,
        writes: conn.record.writes as u64,
        total_bytes: conn.record.total_bytes,
        seq: conn.record.seq as u64,
        check: 0,
    };
    next.check = next.checksum();
    *slot = next;
    true
}

/// Gives the socket's progress slot back.
#[inline(always)]
pub(crate) fn free_progress(conn: &Conn) {
    let Some(slot) = PROGRESSES.get_ptr_mut(slot_of(conn)) else {
        return;
    };
    // SAFETY: as in `note_progress`.
    let slot = unsafe { &mut *slot };
    if slot.cookie == conn.record.cookie {
        slot.cookie = 0;
    }
}

#[inline(always)]
fn slot_of(conn: &Conn) -> u32 {
    conn.record.cookie as u32 & (PROGRESS_SLOTS as u32 - 1)
}

/// Sends a process event up, and wakes the agent: it must look before the process serves.
#[inline(always)]
pub(crate) fn emit_process(event: ProcessEvent) -> Result<(), DropReason> {
    PROCESSES
        .output(event, BPF_RB_FORCE_WAKEUP.into())
        .map_err(|_| DropReason::ProcessRingFull)
}

/// Sends the start of a thread up. Nobody waits for it: it is looked at with the records.
#[inline(always)]
pub(crate) fn emit_thread(event: ProcessEvent) -> Result<(), DropReason> {
    PROCESSES
        .output(event, BPF_RB_NO_WAKEUP.into())
        .map_err(|_| DropReason::ProcessRingFull)
}

/// Whether the process is watched.
#[inline(always)]
pub(crate) fn watches(tgid: u32) -> bool {
    WATCHED.get_ptr(tgid).is_some()
}

/// Watches a process.
#[inline(always)]
pub(crate) fn watch(tgid: u32) -> Result<(), DropReason> {
    WATCHED
        .insert(tgid, 1, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

/// Ends the watch of a process; `false` when it was not watched.
#[inline(always)]
pub(crate) fn unwatch(tgid: u32) -> bool {
    WATCHED.remove(tgid).is_ok()
}

/// Whether the TCP port is watched.
#[inline(always)]
pub(crate) fn watches_port(port: u16) -> bool {
    PORTS
        .get(port as u32 >> 6)
        .is_some_and(|bits| bits >> (port & 63) & 1 == 1)
}

/// Watches the connections of an AF_UNIX listener's address.
#[inline(always)]
pub(crate) fn watch_address(address: u64) -> Result<(), DropReason> {
    LISTENERS
        .insert(address, 1, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

/// Ends the watch of an AF_UNIX address: it belongs to another listener now.
#[inline(always)]
pub(crate) fn unwatch_address(address: u64) {
    // It was not watched in the first place, mostly.
    let _ = LISTENERS.remove(address);
}

/// Whether the AF_UNIX address is a watched listener's.
#[inline(always)]
pub(crate) fn watches_address(address: u64) -> bool {
    LISTENERS.get_ptr(address).is_some()
}

/// Whether the running thread's event was taken in already, of those that `mark` is for: see [`Turn`].
#[inline(always)]
pub(crate) fn is_told(turn: Turn, mark: &mut u32) -> bool {
    // Nobody looks at the first copy's marks where there is no second.
    (turn == Turn::Second || runs_twice()) && turn.is_told(mark, current().1)
}

/// Process and thread that run now.
#[inline(always)]
pub(crate) fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}
