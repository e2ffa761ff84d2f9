//! What is known of TorchServe alone: its configuration file.

pub mod properties;
