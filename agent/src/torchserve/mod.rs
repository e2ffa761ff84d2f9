//! What is read from TorchServe's own configuration, and asked over its own interfaces; nothing here measures.

pub mod by_id;
pub mod by_order;
pub mod connection;
pub mod dispatch;
pub mod exchange;
pub mod frames;
pub mod join;
pub mod management;
pub mod properties;
pub mod timing;
pub mod worker;
