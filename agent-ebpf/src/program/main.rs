//! The eBPF program: its hooks, and what they need from the kernel.
//!
//! Bottom up: `globals`, `clock`, `verifier`; `access`; `user_buffer`, `syscall`, `sock`, `task`; `maps`; `backend`;
//! `unobserved`, `bounded_loop`, `copying`, `tls_copy`, `http2_copy`, `upgrade`; `probes`. A file imports only files
//! before it. The decisions are in the library that both sides share.
//! Does not depend on: the agent.
#![no_std]
#![no_main]

mod access;
mod backend;
mod bounded_loop;
mod clock;
mod copying;
mod globals;
mod head_end;
mod http2_copy;
mod maps;
mod probes;
mod send_buffer;
mod sock;
mod syscall;
mod task;
mod tls_copy;
mod unobserved;
mod upgrade;
mod user_buffer;
mod verifier;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can reach this.
    loop {}
}

/// GPL-compatible, which the helpers require: the workspace's MIT OR Apache-2.0, and the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
