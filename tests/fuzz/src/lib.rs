//! Checks what must be true of every parser of the agent for any bytes: one function of bytes for each fuzz target.
//!
//! The targets (`targets/`) call them with bytes from libFuzzer, and a test (`tests/replay.rs`) with the files in
//! `corpus/`. Does not depend on: where inputs come from.

pub mod http1;
pub mod http2;
pub mod records;
pub mod text;
pub mod tls;
pub mod torchserve;

/// A fuzz target: panics if something does not hold of the bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its program and of its corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("request_head", http1::request_head),
    ("response_head", http1::response_head),
    ("chunked", http1::chunked),
    ("http2_frames", http2::http2_frames),
    ("torchserve_frames", torchserve::torchserve_frames),
    ("name_query", text::name_query),
    ("json_model", text::json_model),
    ("tls_hello", tls::tls_hello),
    ("tls_records", tls::tls_records),
    ("prologue", tls::prologue),
    ("records", records::records),
];

/// `bytes` in pieces whose lengths follow from the bytes themselves, between 1 and 16.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(rest.first()? & 15) + 1;
        let (piece, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        Some(piece)
    })
}
