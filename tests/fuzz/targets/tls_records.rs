//! Fuzz target of `tls::tls_records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inferprobe_fuzz::tls::tls_records(data));
