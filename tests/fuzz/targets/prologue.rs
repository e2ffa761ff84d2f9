//! Fuzz target of `tls::prologue`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inferprobe_fuzz::tls::prologue(data));
