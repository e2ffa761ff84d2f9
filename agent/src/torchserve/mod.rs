//! What is read from TorchServe's own configuration, and asked over its own interfaces; nothing here measures.

mod arguments;
pub mod autoscale;
pub mod fetch;
pub mod lookup;
pub mod management;
pub mod properties;
pub mod scale;
pub mod url;
