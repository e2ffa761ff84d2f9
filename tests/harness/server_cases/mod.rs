//! One list of cases for every server: what the client sends, and what the agent must report.
//!
//! A case states requests, codes and models. The servers' own marks bound the times. Does not depend on: how the agent
//! works.

pub mod cases;
pub mod expected;
pub mod hosts;
pub mod judge;
pub mod play;
pub mod streams;
