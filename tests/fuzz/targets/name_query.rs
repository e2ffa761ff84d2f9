//! Fuzz target of `text::name_query`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inferprobe_fuzz::text::name_query(data));
