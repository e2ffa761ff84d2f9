//! Writes the configuration file of a TorchServe.

use std::{fmt::Write as _, net::TcpListener, path::Path};

/// Where a TorchServe listens, all on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Predictions and `/ping`.
    pub inference: u16,
    /// Models and their workers.
    pub management: u16,
    /// TorchServe's own metrics.
    pub metrics: u16,
    /// Predictions over gRPC.
    pub grpc_inference: u16,
    /// Models over gRPC.
    pub grpc_management: u16,
}

impl Ports {
    /// Returns five free ports of 127.0.0.1.
    pub(super) fn free() -> Self {
        let held: [TcpListener; 5] = std::array::from_fn(|_| {
            TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port")
        });
        let [
            inference,
            management,
            metrics,
            grpc_inference,
            grpc_management,
        ] = held.map(|listener| {
            let address = listener.local_addr().expect("a listener has an address");
            address.port()
        });
        Self {
            inference,
            management,
            metrics,
            grpc_inference,
            grpc_management,
        }
    }
}

/// Returns the text of a configuration file; `properties` are lines that come last, and so take precedence.
pub(super) fn text(ports: &Ports, models: &Path, properties: &[&str]) -> String {
    let mut text = format!(
        "inference_address=http://127.0.0.1:{}\n\
         management_address=http://127.0.0.1:{}\n\
         metrics_address=http://127.0.0.1:{}\n\
         grpc_inference_address=127.0.0.1\n\
         grpc_inference_port={}\n\
         grpc_management_address=127.0.0.1\n\
         grpc_management_port={}\n\
         enable_metrics_api=true\n\
         metrics_mode=prometheus\n\
         metric_time_interval=2\n\
         disable_token_authorization=true\n\
         enable_model_api=true\n\
         install_py_dep_per_model=false\n\
         default_workers_per_model=1\n\
         model_store={}\n\
         vmargs=-Xmx512m\n",
        ports.inference,
        ports.management,
        ports.metrics,
        ports.grpc_inference,
        ports.grpc_management,
        models.display()
    );
    for property in properties {
        writeln!(text, "{property}").expect("a string takes every line");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_properties_come_last() {
        let ports = Ports::free();
        let mut all = vec![
            ports.inference,
            ports.management,
            ports.metrics,
            ports.grpc_inference,
            ports.grpc_management,
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
        let text = text(&ports, Path::new("/m"), &["job_queue_size=1"]);
        assert!(text.contains(&format!(
            "metrics_address=http://127.0.0.1:{}\n",
            ports.metrics
        )));
        assert!(text.ends_with("\njob_queue_size=1\n"));
    }
}
