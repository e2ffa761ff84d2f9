//! Contains the agent: the user-space half of inferprobe, as a library so that tests can reach its modules.
//!
//! Data goes one way: hook -> segment -> record -> message -> request -> identity -> observation -> family -> text.

pub mod api;
pub mod bpf;
pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod collectors;
pub mod commands;
pub mod config;
pub mod discovery;
pub mod doctor;
pub mod exchange;
pub mod exporter;
pub mod history;
pub mod http;
pub mod identity;
pub mod live;
pub mod metrics;
pub mod observation;
pub mod openssl;
pub mod pipeline;
pub mod protocol;
pub mod recording;
pub mod remote;
pub mod request_log;
pub mod screen;
pub mod torchserve;
pub mod usage;
pub mod verdict;
