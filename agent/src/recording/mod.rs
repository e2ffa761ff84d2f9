//! Keeps what an agent's API served over some time, and serves it again.
//!
//! `file` is the form in which it is kept, `content` what was known at each moment of it, `player` a position that moves.
//! Does not depend on: where the agent was, what is shown.

pub mod content;
pub mod file;
pub mod player;
