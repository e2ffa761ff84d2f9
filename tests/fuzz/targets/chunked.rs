//! Fuzz target of `http1::chunked`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inferprobe_fuzz::http1::chunked(data));
