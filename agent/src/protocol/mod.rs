//! What bytes mean: pure functions of bytes. Nothing here knows of sockets, times or processes.

pub mod genai;
pub mod grpc;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod json_model;
pub mod target;
pub mod zmtp;
