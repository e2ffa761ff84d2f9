//! Contains all that is specific to TorchServe's inside: the hop from its frontend to its workers.
//!
//! The other folders use it through three doors:
//! 1. Connection mode: `connection` reads the frames between frontend and worker (`frames`), and emits an `exchange`.
//! 2. Joined response: `join` finds the worker's exchange of each request, by ID (`by_id`) or by order (`by_order`), with
//!    the dispatch times of `dispatch`.
//! 3. Metric family: `timing` has the times that `metrics/torchserve/` exports by TorchServe's rules.
//!
//! Beside them, `worker` identifies a worker process, `properties` reads config.properties, and `management` calls the
//! management API for `scale`, `autoscale` and the look-up of workers.
//! Does not depend on: the kernel, metrics, the pipeline.

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
