//! Keeps the state of sockets: in socket storage, for BTF-typed programs; in hash maps by address, for raw ones.
//!
//! `backend` chooses between the two. The maps that are not in use have one entry.
//! Does not depend on: hooks, what the state means.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{
        BPF_ANY, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
    },
    btf_maps::{Array, HashMap, LruHashMap},
    helpers::{bpf_get_smp_processor_id, bpf_sk_storage_delete, bpf_sk_storage_get},
    macros::btf_map,
};
use inferprobe_ebpf::{abi::DropReason, conn::Conn};

use crate::{
    access::{Access, Btf},
    clock::now_ns,
    sock::{Family, Sock},
};

/// A socket storage map, with the map flags `FLAGS`.
#[repr(C)]
pub(crate) struct SkStorage<T, const FLAGS: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: the fields are placeholders that the loader reads types from; nothing dereferences them.
unsafe impl<T, const FLAGS: usize> Sync for SkStorage<T, FLAGS> {}

impl<T, const FLAGS: usize> SkStorage<T, FLAGS> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    /// Returns the socket's entry; null if it has none.
    #[inline(always)]
    pub(crate) fn get(&'static self, sk: Sock<Btf>) -> *mut T {
        // SAFETY: this is a socket storage map, and `sk` is a hook's typed argument.
        unsafe { bpf_sk_storage_get(self.as_ptr(), sk.as_ptr(), ptr::null_mut(), 0) }.cast()
    }

    /// Returns the socket's entry; makes one of zeros if it has none.
    #[inline(always)]
    pub(crate) fn get_or_insert(&'static self, sk: Sock<Btf>) -> Result<*mut T, DropReason> {
        let create = BPF_SK_STORAGE_GET_F_CREATE.into();
        // SAFETY: as in `get`; without an initial value the kernel makes one of zeros (kernel/bpf/bpf_local_storage.c).
        let entry =
            unsafe { bpf_sk_storage_get(self.as_ptr(), sk.as_ptr(), ptr::null_mut(), create) };
        if entry.is_null() {
            Err(DropReason::NoStorage)
        } else {
            Ok(entry.cast())
        }
    }

    /// Removes the socket's entry, if it has one.
    #[inline(always)]
    pub(crate) fn delete(&'static self, sk: Sock<Btf>) {
        // SAFETY: as in `get`. It fails only if there is none.
        let _ = unsafe { bpf_sk_storage_delete(self.as_ptr(), sk.as_ptr()) };
    }

    #[inline(always)]
    fn as_ptr(&'static self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// `BPF_F_NO_PREALLOC`, which socket storage requires.
const NO_PREALLOC: usize = 1;
/// `BPF_F_CLONE`: a connection gets a copy of its listener's entry before its first byte.
const CLONE: usize = 1 << 9;

/// State of watched connections.
#[btf_map]
pub(crate) static CONNS: SkStorage<Conn, NO_PREALLOC> = SkStorage::new();

/// State of the responses of watched HTTP/2 connections: there, one task may write while another reads.
#[btf_map]
pub(crate) static ANSWERS: SkStorage<Conn, NO_PREALLOC> = SkStorage::new();

/// Marks of watched listeners, which their connections inherit. A mark is one byte, so that it adds little to an
/// accept. The state is allocated later, by the hooks, where a failure does not harm the server.
#[btf_map]
pub(crate) static MARKS: SkStorage<u8, { NO_PREALLOC | CLONE }> = SkStorage::new();

/// A mark of a listener, or one that a connection inherited from it.
const WATCHED: u8 = 0;
/// A mark of a connection that is watched only if a watched process reads from it.
const CANDIDATE: u8 = 1;

/// Marks a connection as a candidate, unless it has a mark.
#[inline(always)]
pub(crate) fn mark_candidate(sk: Sock<Btf>) -> Result<(), DropReason> {
    if MARKS.get(sk).is_null() {
        let mark = MARKS.get_or_insert(sk)?;
        // SAFETY: a map value; no other hook writes it.
        unsafe { *mark = CANDIDATE };
    }
    Ok(())
}

/// Whether the connection is a candidate.
#[inline(always)]
pub(crate) fn is_candidate(sk: Sock<Btf>) -> bool {
    let mark = MARKS.get(sk);
    // SAFETY: a map value.
    !mark.is_null() && unsafe { *mark } != WATCHED
}

/// State of watched connections, by the address of their socket.
#[btf_map]
static CONNS_BY_ADDRESS: HashMap<u64, Conn, 4096> = HashMap::new();

/// As [`ANSWERS`], by the address of the socket.
#[btf_map]
static ANSWERS_BY_ADDRESS: HashMap<u64, Conn, 1024> = HashMap::new();

/// As [`CONNS_BY_ADDRESS`], for programs that run only on kernels on which a program may allocate entries (6.1): it takes
/// memory only for the connections that there are.
#[btf_map]
static SHARED_CONNS: HashMap<u64, Conn, 65536, NO_PREALLOC> = HashMap::new();

/// As [`SHARED_CONNS`], for the responses of HTTP/2 connections.
#[btf_map]
static SHARED_ANSWERS: HashMap<u64, Conn, 65536, NO_PREALLOC> = HashMap::new();

/// Marks of watched listeners and of their connections: what [`MARKS`] is for BTF-typed programs.
#[btf_map]
static MARKED: HashMap<MarkKey, u8, 16384> = HashMap::new();

/// Inodes of the AF_UNIX sockets that have state, for hooks that do not report their end.
#[btf_map]
static INODES: LruHashMap<u64, u64, 4096> = LruHashMap::new();

/// The initial state of a connection: zeros.
#[btf_map]
static BLANK: Array<Conn, 1> = Array::new();

/// What a mark is attached to: a TCP listener by its network namespace and port, any other socket by its address.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MarkKey {
    place: u64,
    port: u64,
}

impl MarkKey {
    /// Returns the key of a socket that may be a listener.
    #[inline(always)]
    pub(crate) fn of<A: Access>(sk: Sock<A>) -> Self {
        if sk.listens() {
            Self::listener(sk)
        } else {
            Self::at(sk.address())
        }
    }

    /// Returns the key of the listener that `sk` is or becomes, or that a TCP connection was accepted by. Listeners
    /// that share a port, even on different addresses, have one key.
    #[inline(always)]
    pub(crate) fn listener<A: Access>(sk: Sock<A>) -> Self {
        if sk.family() == Some(Family::Inet) {
            Self {
                place: sk.namespace(),
                port: sk.local_port() as u64,
            }
        } else {
            Self::at(sk.address())
        }
    }

    #[inline(always)]
    pub(crate) const fn at(address: u64) -> Self {
        Self {
            place: address,
            port: 0,
        }
    }
}

#[inline(always)]
pub(crate) fn mark_at(listener: MarkKey) -> Result<(), DropReason> {
    MARKED
        .insert(listener, WATCHED, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

#[inline(always)]
pub(crate) fn unmark_at(listener: MarkKey) {
    // Mostly it was not marked before.
    let _ = MARKED.remove(listener);
}

#[inline(always)]
pub(crate) fn is_marked_at(listener: MarkKey) -> bool {
    MARKED.get_ptr(listener).is_some()
}

/// As [`mark_candidate`].
#[inline(always)]
pub(crate) fn mark_candidate_at(connection: MarkKey) {
    // Mostly it has a mark, which stays.
    let _ = MARKED.insert(connection, CANDIDATE, BPF_NOEXIST.into());
}

/// As [`is_candidate`].
#[inline(always)]
pub(crate) fn is_candidate_at(connection: MarkKey) -> bool {
    match MARKED.get_ptr(connection) {
        // SAFETY: a map value.
        Some(mark) => unsafe { *mark != WATCHED },
        None => false,
    }
}

#[inline(always)]
pub(crate) fn conn_at(address: u64) -> *mut Conn {
    CONNS_BY_ADDRESS
        .get_ptr_mut(address)
        .unwrap_or(ptr::null_mut())
}

#[inline(always)]
pub(crate) fn conn_at_or_new(address: u64) -> Result<*mut Conn, DropReason> {
    get_or_insert(&CONNS_BY_ADDRESS, address)
}

#[inline(always)]
pub(crate) fn responses_at_or_new(address: u64) -> Result<*mut Conn, DropReason> {
    get_or_insert(&ANSWERS_BY_ADDRESS, address)
}

#[inline(always)]
pub(crate) fn shared_conn_at(address: u64) -> *mut Conn {
    SHARED_CONNS.get_ptr_mut(address).unwrap_or(ptr::null_mut())
}

#[inline(always)]
pub(crate) fn shared_conn_at_or_new(address: u64) -> Result<*mut Conn, DropReason> {
    get_or_insert(&SHARED_CONNS, address)
}

#[inline(always)]
pub(crate) fn shared_responses_at_or_new(address: u64) -> Result<*mut Conn, DropReason> {
    get_or_insert(&SHARED_ANSWERS, address)
}

/// Copies the listener's mark to a connection that was just established.
#[inline(always)]
pub(crate) fn inherit_mark<A: Access>(sk: Sock<A>) -> Result<(), DropReason> {
    if is_marked_at(MarkKey::listener(sk)) {
        mark_at(MarkKey::at(sk.address()))
    } else {
        Ok(())
    }
}

#[inline(always)]
fn get_or_insert<const ENTRIES: usize, const FLAGS: usize>(
    map: &'static HashMap<u64, Conn, ENTRIES, FLAGS>,
    address: u64,
) -> Result<*mut Conn, DropReason> {
    if let Some(conn) = map.get_ptr_mut(address) {
        return Ok(conn);
    }
    let Some(blank) = BLANK.get(0) else {
        return Err(DropReason::NoStorage);
    };
    // Another hook may have been first.
    let _ = map.insert(address, blank, BPF_NOEXIST.into());
    map.get_ptr_mut(address).ok_or(DropReason::NoStorage)
}

#[inline(always)]
pub(crate) fn remove_at(address: u64) {
    // Mostly neither exists.
    let _ = CONNS_BY_ADDRESS.remove(address);
    let _ = ANSWERS_BY_ADDRESS.remove(address);
    unmark_at(MarkKey::at(address));
}

#[inline(always)]
pub(crate) fn remove_shared_at(address: u64) {
    // Mostly neither exists.
    let _ = SHARED_CONNS.remove(address);
    let _ = SHARED_ANSWERS.remove(address);
    unmark_at(MarkKey::at(address));
}

/// Removes the state at an AF_UNIX socket's address if the address now belongs to another socket.
#[inline(always)]
pub(crate) fn renew_at(address: u64, inode: u64) {
    if let Some(known) = INODES.get_ptr(address) {
        // SAFETY: a map value, written as a whole.
        if unsafe { *known } == inode {
            return;
        }
        remove_at(address);
    }
    // Without room, the kernel removes the least recently used entry.
    let _ = INODES.insert(address, inode, BPF_ANY.into());
}

/// Low bits of a cookie, which are its time: they wrap after half a year. The CPU's number is in the bits above.
const TIME_BITS: u32 = 54;

/// Returns a number that no other socket of this run has; never 0.
///
/// It is not a counter: a task that loses its CPU between reading and writing a counter would share its number with
/// another.
#[inline(always)]
pub(crate) fn next_cookie() -> u64 {
    // SAFETY: no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u64;
    cpu << TIME_BITS | (now_ns() & ((1 << TIME_BITS) - 1))
}
