//! Many hosts: which agents report, which host or pod is slow, and what their GPUs do.

use crate::dashboards::board::{Board, Choice};
use crate::dashboards::panel::{lines, number, table};
use crate::dashboards::schema::Dashboard;

pub(crate) fn board() -> Dashboard {
    let board = Board::new(
        "fleet",
        "Many hosts: which agents report, which host or pod is slow, and what their GPUs do.",
    )
    .choose("instance", "Agent", "inferprobe_build_info", Choice::Many)
    .choose(
        "namespace",
        "Namespace",
        "inferprobe_requests_total{@host}",
        Choice::Many,
    )
    .choose(
        "pod",
        "Pod",
        "inferprobe_requests_total{@host}",
        Choice::Many,
    );
    gpus(pods(hosts(board))).finish()
}

fn hosts(board: Board) -> Board {
    board
        .row("Agents")
        .panels(
            (4, 4),
            [
                number(
                    "Agents that report",
                    "short",
                    "Agents that Prometheus scraped.",
                    "count(inferprobe_build_info{@host})",
                    &[],
                ),
                number(
                    "Agents down",
                    "short",
                    "Targets of jobs named inferprobe that Prometheus could not scrape.",
                    "sum(1 - up{job=~\".*inferprobe.*\",@host})",
                    &[("red", 1.0)],
                ),
                number(
                    "Agents without probes",
                    "short",
                    "Agents that measure no requests.",
                    "sum(1 - inferprobe_collector_up{@host,collector=\"probes\"})",
                    &[("red", 1.0)],
                ),
                number(
                    "Coverage, lowest",
                    "percentunit",
                    "Share of the bytes on watched sockets that belong to counted requests.",
                    "min(inferprobe_coverage_ratio{@host})",
                    &[("red", f64::NEG_INFINITY), ("orange", 0.99), ("green", 0.999)],
                ),
            ],
        )
        .panels(
            (1, 9),
            [table(
                "Hosts",
                "The latest interval of each host.",
                &[
                    (
                        "Requests",
                        "reqps",
                        "sum by (instance) (rate(inferprobe_requests_total{@host}[@i]))",
                    ),
                    (
                        "Errors",
                        "reqps",
                        "sum by (instance) (rate(inferprobe_requests_total{@host,code=~\"5..\"}[@i])) \
                         or 0 * sum by (instance) (rate(inferprobe_requests_total{@host}[@i]))",
                    ),
                    (
                        "p99",
                        "s",
                        "histogram_quantile(0.99, sum by (instance, le) \
                         (rate(inferprobe_request_duration_seconds_bucket{@host}[@i])))",
                    ),
                    (
                        "Coverage",
                        "percentunit",
                        "min by (instance) (inferprobe_coverage_ratio{@host})",
                    ),
                    (
                        "Agent's memory",
                        "bytes",
                        "sum by (instance) (process_resident_memory_bytes{@host} @own)",
                    ),
                ],
            )],
        )
        .panels(
            (3, 8),
            [
                lines(
                    "Requests by host",
                    "reqps",
                    "Inference requests answered.",
                    &[(
                        "sum by (instance) (rate(inferprobe_requests_total{@host}[@i]))",
                        "{{instance}}",
                    )],
                ),
                lines(
                    "Requests in queues by host",
                    "short",
                    "Mean number of requests that wait to be read.",
                    &[(
                        "sum by (instance) (rate(inferprobe_request_queue_seconds_sum{@host}[@i]))",
                        "{{instance}}",
                    )],
                ),
                lines(
                    "Waits for a CPU by host",
                    "short",
                    "In CPUs, summed over the threads of all servers.",
                    &[(
                        "sum by (instance) (rate(inferprobe_server_starved_seconds_total{@host}[@i]))",
                        "{{instance}}",
                    )],
                ),
            ],
        )
}

fn pods(board: Board) -> Board {
    board.row("Pods").panels(
        (3, 8),
        [
            lines(
                "Requests",
                "reqps",
                "Inference requests answered. Servers outside pods have no namespace.",
                &[(
                    "sum by (namespace, pod, server) (rate(inferprobe_requests_total{@pod}[@i]))",
                    "{{namespace}}/{{pod}} {{server}}",
                )],
            ),
            lines(
                "Duration, p99",
                "s",
                "From first request byte readable to last response byte written.",
                &[(
                    "histogram_quantile(0.99, sum by (namespace, pod, server, le) \
                     (rate(inferprobe_request_duration_seconds_bucket{@pod}[@i])))",
                    "{{namespace}}/{{pod}} {{server}}",
                )],
            ),
            lines(
                "Wait to be read, mean",
                "s",
                "From first request byte readable to first request byte read.",
                &[(
                    "sum by (namespace, pod, server) (rate(inferprobe_request_queue_seconds_sum{@pod}[@i])) \
                     / sum by (namespace, pod, server) (rate(inferprobe_request_queue_seconds_count{@pod}[@i]))",
                    "{{namespace}}/{{pod}} {{server}}",
                )],
            ),
        ],
    )
}

fn gpus(board: Board) -> Board {
    board.row("GPUs").panels(
        (4, 8),
        [
            lines(
                "Utilization",
                "percentunit",
                "Share of time in which the GPU ran a kernel. Absent while the driver reports a 0 that cannot be true.",
                &[(
                    "inferprobe_gpu_utilization_ratio{@host}",
                    "{{instance}} GPU {{device}} {{mig}}",
                )],
            ),
            lines(
                "Memory",
                "percentunit",
                "Share of the GPU's memory that is in use.",
                &[(
                    "inferprobe_gpu_memory_used_bytes{@host} / inferprobe_gpu_memory_total_bytes{@host}",
                    "{{instance}} GPU {{device}} {{mig}}",
                )],
            ),
            lines(
                "Power",
                "watt",
                "Power that the GPU draws.",
                &[(
                    "inferprobe_gpu_power_watts{@host}",
                    "{{instance}} GPU {{device}}",
                )],
            ),
            lines(
                "Throttled",
                "percentunit",
                "Share of time below the clocks that the GPU was asked for, by policy.",
                &[(
                    "sum by (instance, device, policy) (rate(inferprobe_gpu_throttled_seconds_total{@host}[@i]))",
                    "{{instance}} GPU {{device}} {{policy}}",
                )],
            ),
        ],
    )
}
