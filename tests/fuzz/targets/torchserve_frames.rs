//! Fuzz target of `torchserve::torchserve_frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inferprobe_fuzz::torchserve::torchserve_frames(data));
