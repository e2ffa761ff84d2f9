//! Fuzz target of `records::records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inferprobe_fuzz::records::records(data));
