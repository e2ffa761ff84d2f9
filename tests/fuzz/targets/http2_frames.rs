//! Fuzz target of `http2::http2_frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inferprobe_fuzz::http2::http2_frames(data));
