//! The four dashboards of TorchServe's documentation on one board, by TorchServe's own names.

use crate::dashboards::board::{Board, Choice};
use crate::dashboards::panel::lines;
use crate::dashboards::schema::Dashboard;

pub(crate) fn board() -> Dashboard {
    Board::new(
        "TorchServe",
        "GPU memory, latency, throughput and error rate, by TorchServe's names. For TorchServe they follow its own \
         rules, for any other server they are measured at its socket.",
    )
    .choose("instance", "Agent", "inferprobe_build_info", Choice::Many)
    .row("GPU memory")
    .panels(
        (2, 8),
        [
            lines(
                "GPU memory utilization",
                "percent",
                "Share of the GPU's memory that is in use.",
                &[("GPUMemoryUtilization{@host}", "{{Hostname}} GPU {{DeviceId}}")],
            ),
            lines(
                "GPU memory used",
                "mbytes",
                "Memory of the GPU that is in use.",
                &[("GPUMemoryUsed{@host}", "{{Hostname}} GPU {{DeviceId}}")],
            ),
        ],
    )
    .row("Latency")
    .panels(
        (3, 8),
        [
            lines(
                "Handler time",
                "ms",
                "Time of the latest request in the handler.",
                &[("HandlerTime{@host}", "{{ModelName}} on {{Hostname}}")],
            ),
            lines(
                "Prediction time",
                "ms",
                "Time of the latest request in the worker.",
                &[("PredictionTime{@host}", "{{ModelName}} on {{Hostname}}")],
            ),
            lines(
                "Queue time",
                "ms",
                "Time that the latest job waited for a worker.",
                &[("QueueTime{@host}", "{{Hostname}}")],
            ),
        ],
    )
    .row("Throughput")
    .panels(
        (1, 8),
        [lines(
            "Inference requests",
            "reqps",
            "Inference requests by model.",
            &[(
                "sum by (model_name) (rate(ts_inference_requests_total{@host}[@i]))",
                "{{model_name}}",
            )],
        )],
    )
    .row("Errors")
    .panels(
        (2, 8),
        [
            lines(
                "Error rate",
                "percentunit",
                "Requests with a 5xx response, of all requests.",
                &[(
                    "sum by (Hostname) (rate(Requests5XX{@host}[@i])) / (sum by (Hostname) (rate(Requests2XX{@host}[@i])) \
                     + sum by (Hostname) (rate(Requests4XX{@host}[@i])) + sum by (Hostname) (rate(Requests5XX{@host}[@i])))",
                    "{{Hostname}}",
                )],
            ),
            lines(
                "Responses",
                "reqps",
                "Requests by class of their response.",
                &[
                    ("sum(rate(Requests2XX{@host}[@i]))", "2xx"),
                    ("sum(rate(Requests4XX{@host}[@i]))", "4xx"),
                    ("sum(rate(Requests5XX{@host}[@i]))", "5xx"),
                ],
            ),
        ],
    )
    .finish()
}
