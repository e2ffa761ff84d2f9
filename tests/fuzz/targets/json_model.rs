//! Fuzz target of `text::json_model`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inferprobe_fuzz::text::json_model(data));
