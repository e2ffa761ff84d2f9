//! A blocking HTTP/1.1 server that knows nothing of the agent and stamps its own clock around every system call.
//!
//! How it reads is chosen on its command line (a request cannot say how it is to be read), how it answers by
//! the query of each request. It is the truth that the agent's figures are compared with.

pub mod connection;
pub mod options;
pub mod plan;
pub mod serve;
pub mod stamps;
pub mod wire;
