//! Tools for testing the agent as a black box: servers and clients that stamp their own clock, a handle on a
//! running agent, and a strict reader of the exposition format.
//!
//! Does not depend on: the agent's code. The tests start the agent as a process and check what it serves and logs.

pub mod accuracy;
pub mod agent;
pub mod autoscale;
pub mod bpf_ids;
pub mod check_times;
pub mod client;
pub mod clock;
pub mod cpu_steal;
pub mod doctor;
pub mod exposition;
pub mod gateway;
pub mod grpc;
pub mod http;
pub mod http2;
pub mod kernel_matrix;
pub mod load;
pub mod loss_counters;
pub mod mock_http;
pub mod nvml;
pub mod process;
pub mod process_group;
pub mod report;
pub mod require_kernel;
mod running_test;
pub mod script;
pub mod scripted_server;
pub mod server;
pub mod server_cases;
pub mod server_counters;
pub mod slowness;
pub mod socket_queues;
pub mod stats;
pub mod stream;
pub mod tls;
pub mod tls_client;
pub mod torchserve;
pub mod tracefs;
pub mod unprivileged;
pub mod volume;
