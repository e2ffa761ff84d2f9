//! One list of cases for every server: what is sent, and what the agent must say of it, by the servers' own marks.
//!
//! Knows nothing of how the agent works: a case states requests, codes and models, and the marks bound the times.

pub mod cases;
pub mod expected;
pub mod hosts;
pub mod judge;
pub mod play;
pub mod streams;
