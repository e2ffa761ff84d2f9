//! The eBPF program: hooks, and what they need of the kernel. What they decide is the library's.
#![no_std]
#![no_main]

mod backend;
mod bounded_loop;
mod http2_copy;
mod maps;
mod probes;
mod sock;
mod upgrade;
mod user_buffer;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can get here, so none does.
    loop {}
}

/// GPL-compatible, as the helpers used here ask: the workspace's MIT OR Apache-2.0, and the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
