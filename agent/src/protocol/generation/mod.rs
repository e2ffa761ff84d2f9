//! Reads what a language model generates: the parts of a response that hold content, and how many tokens it used.
//!
//! `event_stream` and `json_values` cut a body into parts, `part` and `usage` say what a part means, `sparse_json` parses
//! it.
//! Does not depend on: heads, times, which server it is.

pub mod event_stream;
pub mod json_values;
pub mod part;
mod sparse_json;
pub mod usage;

/// Longest part that is kept whole, bytes.
const PART_CAP: usize = 64 << 10;
/// Bytes that are kept of the end of a part that is not whole.
const END_KEPT: usize = 2048;

/// A part of a body: an event, or a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// All of it.
    Whole {
        /// Name of the event; empty if it has none.
        name: &'a [u8],
        /// Its content.
        data: &'a [u8],
    },
    /// Bytes of it are missing, or it is too long; this is its end, as far as that is known.
    End(&'a [u8]),
}

/// Removes all bytes but the last ones, which may name the usage.
fn keep_end(bytes: &mut Vec<u8>) {
    if bytes.len() > END_KEPT {
        bytes.drain(..bytes.len() - END_KEPT);
    }
}

#[cfg(test)]
mod tests;
