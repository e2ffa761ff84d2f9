//! The userspace half of inferprobe, as modules that tests can reach.
//!
//! Data goes one way: hook -> segment -> record -> message -> request -> identity -> observation -> family -> text.

pub mod app;
pub mod catalogue;
pub mod cli;
pub mod collectors;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod exchange;
pub mod frontends;
pub mod http;
pub mod identity;
pub mod kernel;
pub mod latency;
pub mod ledger;
pub mod metrics;
pub mod protocol;
pub mod request_log;
pub mod torchserve;
pub mod usage;
pub mod watcher;
pub mod workers;
