//! The hooks, one file for each family of them.
//!
//! An entry is three lines. Its work is in its `try_` function, which is shared by all types of program on that hook.
//! Does not depend on: how a field is read, where state is kept.

mod accept;
mod call;
mod entry;
mod event;
mod fentry;
mod kprobe;
mod openssl;
mod process;
mod readable;
mod recv;
mod scan;
mod send;
mod state;
mod syscall;
