//! Parses bytes: HTTP/1, HTTP/2, gRPC, JSON and ZeroMQ, as pure functions.
//!
//! `exchange` and the catalogue use it.
//! Does not depend on: sockets, times, processes.

pub mod body_format;
pub mod content_type;
pub mod form_model;
pub mod genai;
pub mod generation;
pub mod grpc;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod json_model;
pub mod response_model;
pub mod target;
pub mod tls;
pub mod url_encoded_model;
pub mod websocket;
pub mod zmtp;
