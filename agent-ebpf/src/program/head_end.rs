//! Finds where the head of a response ends, in bytes that were copied.
//!
//! Looks at four bytes at a time: of those that the end of a head reaches into, the first is a carriage return or a line feed.
//! Does not depend on: hooks, maps, user memory, what else is in a head.

use core::{ffi::c_void, mem::offset_of};

use inferprobe_ebpf::{
    abi::{PAYLOAD_CAP, RESPONSE_HEAD_CAP},
    conn::Conn,
};

use crate::{
    backend::Backend,
    bounded_loop::{GO_ON, STOP, bounded_loop},
    verifier::opaque,
};

/// No head ends in the bytes.
pub(crate) const NONE: u32 = 0;
/// The end of a head.
const BLANK_LINE: u32 = u32::from_le_bytes(*b"\r\n\r\n");
/// Bytes of a word.
const WORD: u32 = 4;
/// Words that one step searches.
const STEP_WORDS: u32 = 8;
/// Most steps of a search; one more, because the bytes may begin inside a word.
const STEPS: u32 = RESPONSE_HEAD_CAP as u32 / (STEP_WORDS * WORD) + 1;

/// State of a search. It is in the map value, where the verifier follows no number: it would follow each position of the
/// end separately.
#[repr(C)]
struct Search {
    /// Where in the payload the next word is.
    position: u32,
    /// Where the bytes end.
    limit: u32,
    /// The word before the next one.
    before: u32,
    /// Where the head ends, or [`NONE`].
    found: u32,
}

const _: () = assert!(size_of::<Search>() <= 24 && offset_of!(Conn, payload) % 4 == 0);

/// Returns the position in the payload behind the head that ends in the `len` bytes from `at` on; [`NONE`] if none does.
///
/// A call of its own, which only long writes make.
#[inline(never)]
pub(crate) fn find<B: Backend>(conn: &mut Conn, at: u16, len: u16) -> u32 {
    let mut state: *mut Conn = conn;
    // SAFETY: `conn` is a map value.
    let search = unsafe { search(state) };
    let limit = at as u32 + len as u32;
    search.position = at as u32 & !(WORD - 1);
    search.limit = limit;
    search.before = 0;
    search.found = NONE;
    // SAFETY: `step` expects a pointer to a connection, which outlives the loop.
    unsafe { bounded_loop::<B>(STEPS, STEPS, step, (&raw mut state).cast()) };
    // SAFETY: as above.
    let found = unsafe { (&raw const self::search(state).found).read_volatile() };
    // The last word may reach beyond the bytes.
    if found > limit { NONE } else { found }
}

/// Returns the state of the search in `conn`.
///
/// # Safety
///
/// `conn` is a map value, which outlives the state.
#[inline(always)]
unsafe fn search<'a>(conn: *mut Conn) -> &'a mut Search {
    // SAFETY: the caller's; `forget` uses only the first number, and the state fits in the others.
    unsafe { &mut *(&raw mut (*conn).scratch[1]).cast() }
}

/// One step: searches the next words.
unsafe extern "C" fn step(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: `bounded_loop` passes what `find` gave it.
    let conn = unsafe { *state.cast::<*mut Conn>() };
    // SAFETY: the map value that `find` was given.
    let search = unsafe { search(conn) };
    // SAFETY: references are valid to read; the verifier must know nothing of what an earlier step wrote.
    let (position, limit, mut before) = unsafe {
        (
            (&raw const search.position).read_volatile(),
            (&raw const search.limit).read_volatile(),
            (&raw const search.before).read_volatile(),
        )
    };
    if position >= limit {
        return STOP;
    }
    let mut at = 0;
    while at < STEP_WORDS * WORD {
        let word = payload_word(conn, position + at);
        if matches!(word as u8, b'\r' | b'\n') {
            let both = (word as u64) << 32 | before as u64;
            let mut reach = 1;
            while reach <= WORD {
                if (both >> (8 * reach)) as u32 == BLANK_LINE {
                    search.found = position + at + reach;
                    return STOP;
                }
                reach += 1;
            }
        }
        before = word;
        at += WORD;
    }
    search.before = before;
    search.position = position + at;
    GO_ON
}

/// Returns the four bytes from `payload[at]` on, the first lowest.
#[inline(always)]
fn payload_word(conn: *mut Conn, at: u32) -> u32 {
    let at = opaque(at) & (PAYLOAD_CAP as u32 - WORD);
    // SAFETY: the word ends within the payload, and begins at a multiple of its size.
    u32::from_le(unsafe {
        conn.cast::<u8>()
            .add(offset_of!(Conn, payload))
            .add(at as usize)
            .cast::<u32>()
            .read()
    })
}
