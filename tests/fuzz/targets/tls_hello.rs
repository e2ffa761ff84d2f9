//! Fuzz target of `tls::tls_hello`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inferprobe_fuzz::tls::tls_hello(data));
