//! Emits records to the agent, and lets one hook at a time fill the record of a connection.
//!
//! Does not depend on: hooks, when a record is due.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::RingBuf,
    helpers::{
        bpf_ringbuf_discard, bpf_ringbuf_output, bpf_ringbuf_query, bpf_ringbuf_reserve,
        bpf_ringbuf_submit, generated::bpf_probe_read_user,
    },
    macros::btf_map,
};
use inferprobe_ebpf::{
    abi::{COPY_CAP, DropReason, PAYLOAD_CAP, PIECE_CAP, PLAINTEXT_CAP, Record, flag, kind, mode},
    conn::Conn,
    unobserved::Unobserved,
};

use crate::{
    clock::now_ns,
    maps::{drops, progress},
};

/// Bytes waiting in the ring from which a record wakes the agent. Below that, the agent's own timer does.
const WAKEUP_BYTES: u64 = 512 << 10;
/// A record in so many asks how many bytes wait: that costs more than all else that is done with a short record.
const RECORDS_PER_CHECK: u64 = 16;
/// Bytes waiting in the ring from which bodies are not copied, so that records of other connections find room.
const BODY_WAITING_BYTES: u64 = 2 << 20;
/// How often a hook checks whether another one has released the connection, before it gives up: some microseconds.
const CONTENDED_CHECKS: u32 = 1024;

#[btf_map]
static RECORDS: RingBuf<Record, { 4 << 20 }> = RingBuf::new();

/// Acquires the connection for a hook that fills its record; returns `false` if another hook holds it for too long.
///
/// The other hook is done within a microsecond, unless its task loses the CPU. Stable Rust has no atomic exchange for
/// this target: two hooks that check within the same nanoseconds both continue.
#[inline(never)]
pub(crate) fn acquire(conn: &mut Conn) -> bool {
    let busy: *mut u32 = &raw mut conn.lock.busy;
    let mut checks = 0;
    while checks < CONTENDED_CHECKS {
        // SAFETY: a map value, and aligned; the compiler must read it each time.
        if unsafe { busy.read_volatile() } == 0 {
            // SAFETY: as above.
            unsafe { busy.write_volatile(1) };
            return true;
        }
        checks += 1;
    }
    conn.lock.missed = 1;
    false
}

/// Releases what [`acquire`] acquired, and emits the end of the connection if it happened meanwhile.
#[inline(always)]
pub(crate) fn release(conn: &mut Conn) {
    let busy: *mut u32 = &raw mut conn.lock.busy;
    // SAFETY: as in `acquire`.
    unsafe { busy.write_volatile(0) };
    if conn.lock.ended != 0 {
        close(conn, now_ns());
    }
}

/// Emits the record of `conn`, with its payload.
#[inline(always)]
pub(crate) fn emit(conn: &mut Conn, record_kind: u8, now_ns: u64) {
    let payload_bytes = conn.seal(record_kind, now_ns) as u64;
    let payload_bytes = if payload_bytes > PAYLOAD_CAP as u64 {
        PAYLOAD_CAP as u64
    } else {
        payload_bytes
    };
    // SAFETY: the payload follows the record in `Conn`, and `payload_bytes` ends within it.
    let sent = unsafe {
        bpf_ringbuf_output(
            ring(),
            (&raw mut *conn).cast(),
            size_of::<Record>() as u64 + payload_bytes,
            wakeup_at(now_ns),
        )
    };
    if sent < 0 {
        drops::count_of(
            DropReason::RingFull,
            conn.record.tgid,
            conn.record.local_port,
        );
    }
    conn.on_emitted();
}

/// Whether the ring has room for more than heads.
#[inline(always)]
pub(crate) fn has_room_for_bodies() -> bool {
    waiting_bytes() < BODY_WAITING_BYTES
}

/// Emits the record of `conn`, which has no payload, with the next bytes of the current transfer: up to [`PIECE_CAP`] of
/// `bytes`, from user memory straight into the ring. Returns how many; 0 if they cannot be read.
#[inline(always)]
pub(crate) fn emit_piece(conn: &mut Conn, bytes: u32) -> u32 {
    let copied = if bytes > PIECE_CAP as u32 {
        PIECE_CAP as u32
    } else {
        bytes
    };
    // SAFETY: RECORDS is a ring buffer.
    let entry = unsafe { bpf_ringbuf_reserve(ring(), (size_of::<Record>() + PIECE_CAP) as u64, 0) }
        .cast::<Record>();
    if entry.is_null() {
        return 0;
    }
    let from = conn.cursors.buffer.start as *const c_void;
    // SAFETY: the entry has room for a piece after the record.
    if unsafe { bpf_probe_read_user(entry.add(1).cast(), copied, from) } != 0 {
        // SAFETY: the entry was reserved, and is not used any more.
        unsafe { bpf_ringbuf_discard(entry.cast(), BPF_RB_NO_WAKEUP.into()) };
        return 0;
    }
    conn.on_copied(false, copied, true);
    conn.seal(kind::READ, conn.cursors.buffer.now_ns);
    // SAFETY: the entry begins with room for a record, and is not used any more.
    unsafe {
        entry.write(conn.record);
        bpf_ringbuf_submit(entry.cast(), wakeup());
    }
    conn.on_emitted();
    copied
}

#[inline(always)]
fn ring() -> *mut c_void {
    (&raw const RECORDS).cast_mut().cast()
}

/// Bytes in the ring that the agent has not read.
#[inline(always)]
fn waiting_bytes() -> u64 {
    // SAFETY: RECORDS is a ring buffer.
    unsafe { bpf_ringbuf_query(ring(), BPF_RB_AVAIL_DATA.into()) }
}

/// Returns the flag with which an entry is added: whether it wakes the agent.
#[inline(always)]
fn wakeup() -> u64 {
    if waiting_bytes() >= WAKEUP_BYTES {
        BPF_RB_FORCE_WAKEUP.into()
    } else {
        BPF_RB_NO_WAKEUP.into()
    }
}

/// As [`wakeup`], for one of [`RECORDS_PER_CHECK`] records, as the last digits of the time `now_ns` have it: of each
/// connection, and of all.
#[inline(always)]
fn wakeup_at(now_ns: u64) -> u64 {
    if now_ns & (RECORDS_PER_CHECK - 1) == 0 {
        wakeup()
    } else {
        BPF_RB_NO_WAKEUP.into()
    }
}

/// Emits what is left of `conn`, to which the server can write no more, and its end. Does so once, or leaves it to the
/// hook that holds the connection, which this one may have interrupted.
#[inline(never)]
pub(crate) fn close(conn: &mut Conn, now_ns: u64) {
    if conn.lock.closed != 0 || conn.record.cookie == 0 {
        return;
    }
    conn.lock.ended = 1;
    if conn.lock.busy != 0 {
        return;
    }
    conn.lock.closed = 1;
    if let Some(cut) = conn.before_close() {
        emit(conn, cut, now_ns);
    }
    progress::free(conn);
    emit(conn, kind::CLOSE, now_ns);
}

/// Emits that the other end of connection `cookie` read `bytes` of a reply.
#[inline(always)]
pub(crate) fn emit_reply_read(cookie: u64, bytes: u32, now_ns: u64) -> Result<(), DropReason> {
    emit_without_payload(|record| {
        record.cookie = cookie;
        record.last_read_ns = now_ns;
        record.read_bytes = bytes as u64;
        record.kind = kind::REPLY_READ;
        record.mode = mode::FRAMES;
    })
}

/// Emits that the bytes between the positions `start` and `end` of connection `cookie` arrived at `ns`.
///
/// A call of its own: it runs only if a reader is far behind.
#[inline(never)]
pub(crate) fn emit_arrived(cookie: u64, start: u32, end: u32, ns: u64) {
    let emitted = emit_without_payload(|record| {
        record.cookie = cookie;
        record.arrival_ns = ns;
        record.position = start;
        record.read_bytes = end.wrapping_sub(start) as u64;
        record.kind = kind::ARRIVED;
    });
    if let Err(reason) = emitted {
        drops::count(reason);
    }
}

/// Emits that no hook handled these bytes of `conn`, and counts them. What is pending goes first.
#[inline(never)]
pub(crate) fn emit_unobserved(conn: &mut Conn, bytes: Unobserved, now_ns: u64) {
    if let Some(cut) = conn.before_close() {
        emit(conn, cut, now_ns);
    }
    conn.on_unobserved(bytes);
    let emitted = emit_without_payload(|record| {
        record.cookie = conn.record.cookie;
        record.tgid = conn.record.tgid;
        record.local_port = conn.record.local_port;
        record.peer_port = conn.record.peer_port;
        record.flags = conn.record.flags & (flag::UNIX | flag::RESPONSES);
        record.mode = conn.record.mode;
        record.total_bytes = conn.record.total_bytes;
        record.last_read_ns = now_ns;
        record.read_bytes = if bytes.read > 0 { bytes.read as u64 } else { 0 };
        record.written_bytes = if bytes.written > 0 {
            bytes.written as u64
        } else {
            0
        };
        record.seq = conn.record.seq.wrapping_add(1);
        record.kind = kind::UNOBSERVED;
    });
    if let Err(reason) = emitted {
        // The number of the next record tells the agent.
        conn.lock.missed = 1;
        drops::count_of(reason, conn.record.tgid, conn.record.local_port);
    }
}

/// Emits a record without payload. `fill` writes it in the ring, because a program's stack has no room for it.
#[inline(always)]
pub(crate) fn emit_without_payload(fill: impl FnOnce(&mut Record)) -> Result<(), DropReason> {
    let mut entry = RECORDS.reserve(0).ok_or(DropReason::RingFull)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is as long as a record, for which zeros are a valid value.
    fill(unsafe {
        record.write_bytes(0, 1);
        &mut *record
    });
    entry.submit(BPF_RB_NO_WAKEUP.into());
    Ok(())
}

/// Emits that a TLS library moved plaintext, of which `bytes` are at the address `from`: `fill` writes the record. Long ones
/// are copied as far as the ring has room for more than heads.
#[inline(always)]
pub(crate) fn emit_plaintext(
    from: u64,
    bytes: u64,
    fill: impl Fn(&mut Record, u16),
) -> Result<(), DropReason> {
    if bytes <= COPY_CAP as u64 || !has_room_for_bodies() {
        emit_copied::<COPY_CAP>(from, bytes, fill)
    } else if bytes <= PIECE_CAP as u64 {
        emit_copied::<PIECE_CAP>(from, bytes, fill)
    } else {
        emit_copied::<PLAINTEXT_CAP>(from, bytes, fill)
    }
}

/// The same with up to `CAP` bytes; without any, if they cannot be read.
#[inline(always)]
fn emit_copied<const CAP: usize>(
    from: u64,
    bytes: u64,
    fill: impl Fn(&mut Record, u16),
) -> Result<(), DropReason> {
    // SAFETY: RECORDS is a ring buffer.
    let entry = unsafe { bpf_ringbuf_reserve(ring(), (size_of::<Record>() + CAP) as u64, 0) }
        .cast::<Record>();
    if entry.is_null() {
        return Err(DropReason::RingFull);
    }
    let len = if bytes > CAP as u64 {
        CAP as u64
    } else {
        bytes
    };
    // SAFETY: the entry has room for `CAP` bytes after the record.
    let failed =
        unsafe { bpf_probe_read_user(entry.add(1).cast(), len as u32, from as *const c_void) } != 0;
    let copied = if failed { 0 } else { len as u16 };
    // SAFETY: the entry begins with room for a record, for which zeros are a valid value, and is not used any more.
    unsafe {
        entry.write_bytes(0, 1);
        fill(&mut *entry, copied);
        bpf_ringbuf_submit(entry.cast(), wakeup());
    }
    if failed && len > 0 {
        return Err(DropReason::HeadUnreadable);
    }
    Ok(())
}
