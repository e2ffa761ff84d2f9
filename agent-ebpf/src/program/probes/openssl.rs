//! OpenSSL's functions that read and write plaintext, through uprobes: attached only if the agent is asked to read it.
//!
//! A write is emitted at its entry, before the library sends anything of it, and corrected at its return if it was not written
//! whole. A read is emitted at its return. Nothing is written to the memory of the process.
//! Does not depend on: sockets.

use aya_ebpf::{
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use inferprobe_ebpf::abi::{DropReason, Record, kind};

use crate::{
    clock::now_ns,
    maps::{
        plaintexts::{self, PlaintextCall},
        records,
    },
    probes::entry::done,
    task,
    user_buffer::read,
};

/// `int SSL_read(SSL *ssl, void *buf, int num)`
#[uprobe]
fn openssl_read(ctx: ProbeContext) -> u32 {
    done(enter(&ctx, false, false)) as u32
}

/// `int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes)`, and what it passes its arguments on to.
#[uprobe]
fn openssl_read_ex(ctx: ProbeContext) -> u32 {
    done(enter(&ctx, false, true)) as u32
}

/// `int SSL_write(SSL *ssl, const void *buf, int num)`
#[uprobe]
fn openssl_write(ctx: ProbeContext) -> u32 {
    done(enter(&ctx, true, false)) as u32
}

/// `int SSL_write_ex(SSL *ssl, const void *buf, size_t num, size_t *written)`, and what it passes its arguments on to.
#[uprobe]
fn openssl_write_ex(ctx: ProbeContext) -> u32 {
    done(enter(&ctx, true, true)) as u32
}

/// The return of each of them.
#[uretprobe]
fn openssl_return(ctx: RetProbeContext) -> u32 {
    done(leave(ctx.ret::<u64>() as i32)) as u32
}

#[inline(always)]
fn enter(ctx: &ProbeContext, writes: bool, stores_count: bool) -> Result<(), DropReason> {
    let (Some(connection), Some(buffer), Some(bytes)) =
        (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u64>(2))
    else {
        return Ok(());
    };
    let (bytes, count) = if stores_count {
        (bytes, ctx.arg::<u64>(3).unwrap_or_default())
    } else {
        // An int, whose upper half of the register is undefined.
        (bytes & 0xffff_ffff, 0)
    };
    let call = plaintexts::current_or_new()?;
    // SAFETY: a map value, which only the running thread writes.
    let call = unsafe { &mut *call };
    let is_nested = call.connection == connection && call.buffer == buffer;
    call.connection = connection;
    call.buffer = buffer;
    call.bytes = bytes;
    call.count = count;
    call.writes = writes as u32;
    if !writes || is_nested {
        return Ok(());
    }
    emit(call, bytes)
}

#[inline(always)]
fn leave(returned: i32) -> Result<(), DropReason> {
    let Some(call) = plaintexts::current() else {
        return Ok(());
    };
    // SAFETY: as in `enter`.
    let call = unsafe { &mut *call };
    if call.connection == 0 {
        return Ok(());
    }
    let moved = if returned <= 0 {
        0
    } else if call.count != 0 {
        read::<u64>(call.count).unwrap_or_default()
    } else {
        returned as u64
    };
    let outcome = if call.writes == 0 {
        if moved == 0 || moved > call.bytes {
            Ok(())
        } else {
            emit(call, moved)
        }
    } else if moved == call.bytes {
        Ok(())
    } else {
        call.emitted = call.emitted.wrapping_add(1);
        let (connection, emitted) = (call.connection, call.emitted);
        records::emit_without_payload(|record| {
            fill(record, connection, emitted);
            record.kind = kind::PLAINTEXT_CUT;
            record.written_bytes = moved;
        })
    };
    call.connection = 0;
    outcome
}

/// Emits `bytes` of plaintext.
#[inline(always)]
fn emit(call: &mut PlaintextCall, bytes: u64) -> Result<(), DropReason> {
    call.emitted = call.emitted.wrapping_add(1);
    let (connection, emitted, writes) = (call.connection, call.emitted, call.writes != 0);
    records::emit_plaintext(call.buffer, bytes, |record: &mut Record, copied| {
        fill(record, connection, emitted);
        record.kind = kind::PLAINTEXT;
        if writes {
            record.written_bytes = bytes;
            record.response_len = copied;
        } else {
            record.read_bytes = bytes;
            record.request_len = copied;
        }
    })
}

/// Fills in what all records of a call have.
#[inline(always)]
fn fill(record: &mut Record, connection: u64, emitted: u32) {
    record.cookie = connection;
    record.tgid = task::current_tgid();
    record.reader_tid = task::current_tid();
    record.seq = emitted;
    record.last_read_ns = now_ns();
    record.last_write_ns = record.last_read_ns;
}
