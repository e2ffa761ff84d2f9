//! State of sockets: in their own storage, for typed programs; in tables by address, for the others.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{
        BPF_ANY, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
    },
    btf_maps::{Array, HashMap, LruHashMap},
    helpers::{bpf_get_smp_processor_id, bpf_sk_storage_get},
    macros::btf_map,
};
use inferprobe_ebpf::{abi::DropReason, conn::Conn};

use crate::{
    backend::{Plain, Typed},
    sock::{Family, Sock, now_ns},
};

/// A socket storage map; `FLAGS` beside the one that the kernel asks for.
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

    /// The socket's entry; null if it has none.
    #[inline(always)]
    pub(crate) fn get(&'static self, sk: Sock<Typed>) -> *mut T {
        // SAFETY: this is a socket storage map, and `sk` came from a hook's typed argument.
        unsafe { bpf_sk_storage_get(self.as_ptr(), sk.as_ptr(), ptr::null_mut(), 0) }.cast()
    }

    /// The socket's entry, made of zeros if it had none.
    #[inline(always)]
    pub(crate) fn get_or_insert(&'static self, sk: Sock<Typed>) -> Result<*mut T, DropReason> {
        let create = BPF_SK_STORAGE_GET_F_CREATE.into();
        // SAFETY: as in `get`; without a first value the kernel makes one of zeros (kernel/bpf/bpf_local_storage.c).
        let entry =
            unsafe { bpf_sk_storage_get(self.as_ptr(), sk.as_ptr(), ptr::null_mut(), create) };
        if entry.is_null() {
            Err(DropReason::NoStorage)
        } else {
            Ok(entry.cast())
        }
    }

    #[inline(always)]
    fn as_ptr(&'static self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// `BPF_F_NO_PREALLOC`, which socket storage asks for.
const NO_PREALLOC: usize = 1;
/// `BPF_F_CLONE`: a connection gets a copy of its listener's entry before its first byte.
const CLONE: usize = 1 << 9;

/// State of watched connections.
#[btf_map]
pub(crate) static CONNS: SkStorage<Conn, NO_PREALLOC> = SkStorage::new();

/// State of the answers of watched connections of HTTP/2: on these, one task may write while another reads.
#[btf_map]
pub(crate) static ANSWERS: SkStorage<Conn, NO_PREALLOC> = SkStorage::new();

/// Marks of watched listeners, which their connections inherit. One byte, so that accepting a connection costs the
/// server next to nothing, and its state is only allocated by its own hooks, where a failure does it no harm.
#[btf_map]
pub(crate) static MARKS: SkStorage<u8, { NO_PREALLOC | CLONE }> = SkStorage::new();

/// State of watched connections, by the address of their socket. The loader leaves one entry where it is not in use.
#[btf_map]
static CONNS_BY_ADDRESS: HashMap<u64, Conn, 4096> = HashMap::new();

/// As [`ANSWERS`], by the address of the socket.
#[btf_map]
static ANSWERS_BY_ADDRESS: HashMap<u64, Conn, 1024> = HashMap::new();

/// Marks of watched listeners and of their connections: what [`MARKS`] is for the others.
#[btf_map]
static MARKED: HashMap<Keyed, u8, 16384> = HashMap::new();

/// Inodes of the AF_UNIX sockets that have state, where nothing tells of their end.
#[btf_map]
static INODES: LruHashMap<u64, u64, 4096> = LruHashMap::new();

/// What a connection is at first: zeros.
#[btf_map]
static BLANK: Array<Conn, 1> = Array::new();

/// What a mark is on: of TCP, a listener's network namespace and port; any other socket by its address.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Keyed {
    place: u64,
    port: u64,
}

impl Keyed {
    /// A socket that may be a listener.
    #[inline(always)]
    pub(crate) fn of(sk: Sock<Plain>) -> Self {
        if sk.listens() {
            Self::listener(sk)
        } else {
            Self::at(sk.address())
        }
    }

    /// The listener that `sk` is, or begins to be, or, of TCP, that it was accepted by: listeners that share a port, and
    /// those on other addresses, count as one.
    #[inline(always)]
    pub(crate) fn listener(sk: Sock<Plain>) -> Self {
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
pub(crate) fn mark_at(listener: Keyed) -> Result<(), DropReason> {
    MARKED
        .insert(listener, 1, BPF_ANY.into())
        .map_err(|_| DropReason::MapFull)
}

#[inline(always)]
pub(crate) fn unmark_at(listener: Keyed) {
    // It was not marked in the first place, mostly.
    let _ = MARKED.remove(listener);
}

#[inline(always)]
pub(crate) fn is_marked_at(listener: Keyed) -> bool {
    MARKED.get_ptr(listener).is_some()
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
pub(crate) fn answers_at_or_new(address: u64) -> Result<*mut Conn, DropReason> {
    get_or_insert(&ANSWERS_BY_ADDRESS, address)
}

#[inline(always)]
fn get_or_insert<const ENTRIES: usize>(
    map: &'static HashMap<u64, Conn, ENTRIES>,
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
pub(crate) fn forget_at(address: u64) {
    // Neither was made, mostly.
    let _ = CONNS_BY_ADDRESS.remove(address);
    let _ = ANSWERS_BY_ADDRESS.remove(address);
    unmark_at(Keyed::at(address));
}

/// Forgets what is known of an AF_UNIX socket's address if it is another socket's now.
#[inline(always)]
pub(crate) fn renew_at(address: u64, inode: u64) {
    if let Some(known) = INODES.get_ptr(address) {
        // SAFETY: a map value, written as a whole.
        if unsafe { *known } == inode {
            return;
        }
        forget_at(address);
    }
    // Without room, the oldest one goes.
    let _ = INODES.insert(address, inode, BPF_ANY.into());
}

/// Bits of a cookie that are its time, of which they hold half a year; the CPU's number is above.
const TIME_BITS: u32 = 54;

/// A number that no other socket of this run has; 0 never.
///
/// No count for each CPU: a task that loses its CPU between two steps of it would share its number with another.
#[inline(always)]
pub(crate) fn next_cookie() -> u64 {
    // SAFETY: no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u64;
    cpu << TIME_BITS | (now_ns() & ((1 << TIME_BITS) - 1))
}
