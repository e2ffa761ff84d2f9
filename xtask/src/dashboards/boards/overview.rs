//! All servers and models at once: rate, errors, duration, and where requests waited.

use crate::dashboards::board::{Board, Choice};
use crate::dashboards::panel::{lines, number, stacked, table};
use crate::dashboards::schema::Dashboard;

pub(crate) fn board() -> Dashboard {
    let board = Board::new(
        "overview",
        "Every inference server and model: rate, errors, duration, and where requests waited.",
    )
    .choose("instance", "Agent", "inferprobe_build_info", Choice::Many)
    .choose(
        "server",
        "Server",
        "inferprobe_requests_total{@host}",
        Choice::Many,
    );
    starvation(models(waits(now(board)))).finish()
}

fn now(board: Board) -> Board {
    board.row("Now").panels(
        (6, 4),
        [
            number(
                "Requests",
                "reqps",
                "Inference requests answered.",
                "sum(rate(inferprobe_requests_total{@server}[@i]))",
                &[],
            ),
            number(
                "Errors",
                "percentunit",
                "Inference requests with a 5xx response, of all.",
                "(sum(rate(inferprobe_requests_total{@server,code=~\"5..\"}[@i])) or vector(0)) \
                 / sum(rate(inferprobe_requests_total{@server}[@i]))",
                &[("orange", 0.001), ("red", 0.01)],
            ),
            number(
                "Duration, p99",
                "s",
                "From first request byte readable to last response byte written.",
                "histogram_quantile(0.99, sum by (le) (rate(inferprobe_request_duration_seconds_bucket{@server}[@i])))",
                &[],
            ),
            number(
                "In flight",
                "short",
                "Requests that a server has begun to read and not answered to the end.",
                "sum(inferprobe_requests_in_flight{@server})",
                &[],
            ),
            number(
                "Coverage, lowest",
                "percentunit",
                "Share of the bytes on watched sockets that belong to counted requests. Below 1, requests are missing here.",
                "min(inferprobe_coverage_ratio{@server})",
                &[("red", f64::NEG_INFINITY), ("orange", 0.99), ("green", 0.999)],
            ),
            number(
                "Agents' CPU",
                "percentunit",
                "CPU time of the agents, in shares of one core. The eBPF programs are not included.",
                "sum(rate(process_cpu_seconds_total{@host}[@i]) @own)",
                &[],
            ),
        ],
    )
}

fn waits(board: Board) -> Board {
    board.row("Where requests waited").panels(
        (2, 9),
        [
            stacked(
                "Requests in each stage",
                "short",
                "Mean number of requests in each stage: seconds that requests spent there, per second. \
                 The server's work includes TorchServe's workers.",
                &[
                    (
                        "sum(rate(inferprobe_request_queue_seconds_sum{@server}[@i]))",
                        "wait to be read",
                    ),
                    (
                        "sum(rate(inferprobe_request_inner_queue_seconds_sum{@server}[@i]))",
                        "wait for a worker",
                    ),
                    (
                        "sum(rate(inferprobe_request_starved_seconds_sum{@server}[@i]))",
                        "wait for a CPU",
                    ),
                    (
                        "sum(rate(inferprobe_request_handler_seconds_sum{@server}[@i])) \
                         - (sum(rate(inferprobe_request_inner_queue_seconds_sum{@server}[@i])) or vector(0)) \
                         - (sum(rate(inferprobe_request_starved_seconds_sum{@server}[@i])) or vector(0))",
                        "server's work",
                    ),
                    (
                        "clamp_min(sum(rate(inferprobe_request_duration_seconds_sum{@server}[@i])) \
                         - sum(rate(inferprobe_request_queue_seconds_sum{@server}[@i])) \
                         - sum(rate(inferprobe_request_handler_seconds_sum{@server}[@i])), 0)",
                        "receive and send",
                    ),
                ],
            ),
            stacked(
                "Slow requests, by what made them slow",
                "reqps",
                "Requests that took at least twice their model's median, by the component that explains most of it.",
                &[(
                    "sum by (because) (rate(inferprobe_slow_requests_total{@server}[@i]))",
                    "{{because}}",
                )],
            ),
        ],
    )
}

fn models(board: Board) -> Board {
    board
        .row("Models")
        .panels(
            (1, 9),
            [table(
                "Models",
                "The latest interval of each model.",
                &[
                    (
                        "Requests",
                        "reqps",
                        "sum by (server, model) (rate(inferprobe_requests_total{@server}[@i]))",
                    ),
                    (
                        "Errors",
                        "percentunit",
                        "(sum by (server, model) (rate(inferprobe_requests_total{@server,code=~\"5..\"}[@i])) \
                         or 0 * sum by (server, model) (rate(inferprobe_requests_total{@server}[@i]))) \
                         / sum by (server, model) (rate(inferprobe_requests_total{@server}[@i]))",
                    ),
                    (
                        "p50",
                        "s",
                        "histogram_quantile(0.5, sum by (server, model, le) \
                         (rate(inferprobe_request_duration_seconds_bucket{@server}[@i])))",
                    ),
                    (
                        "p99",
                        "s",
                        "histogram_quantile(0.99, sum by (server, model, le) \
                         (rate(inferprobe_request_duration_seconds_bucket{@server}[@i])))",
                    ),
                    (
                        "Waited to be read",
                        "percentunit",
                        "sum by (server, model) (rate(inferprobe_request_queue_seconds_sum{@server}[@i])) \
                         / sum by (server, model) (rate(inferprobe_request_duration_seconds_sum{@server}[@i]))",
                    ),
                ],
            )],
        )
        .panels(
            (3, 8),
            [
                lines(
                    "Requests",
                    "reqps",
                    "Inference requests answered.",
                    &[(
                        "sum by (server, model) (rate(inferprobe_requests_total{@server}[@i]))",
                        "{{model}} ({{server}})",
                    )],
                ),
                lines(
                    "Errors",
                    "percentunit",
                    "Inference requests with a 5xx response, of all.",
                    &[(
                        "(sum by (server, model) (rate(inferprobe_requests_total{@server,code=~\"5..\"}[@i])) \
                         or 0 * sum by (server, model) (rate(inferprobe_requests_total{@server}[@i]))) \
                         / sum by (server, model) (rate(inferprobe_requests_total{@server}[@i]))",
                        "{{model}} ({{server}})",
                    )],
                ),
                lines(
                    "Duration, p99",
                    "s",
                    "From first request byte readable to last response byte written.",
                    &[(
                        "histogram_quantile(0.99, sum by (server, model, le) \
                         (rate(inferprobe_request_duration_seconds_bucket{@server}[@i])))",
                        "{{model}} ({{server}})",
                    )],
                ),
            ],
        )
}

fn starvation(board: Board) -> Board {
    board.row("What servers waited for").panels(
        (3, 8),
        [
            lines(
                "CPU time, and waits for a CPU",
                "short",
                "In CPUs. Summed over the threads of a server; waits include the time in which a CPU limit stopped them.",
                &[
                    (
                        "sum by (server) (rate(inferprobe_server_cpu_seconds_total{@server}[@i]))",
                        "{{server}} runs",
                    ),
                    (
                        "sum by (server) (rate(inferprobe_server_starved_seconds_total{@server}[@i]))",
                        "{{server}} waits",
                    ),
                ],
            ),
            lines(
                "Stopped by a CPU limit",
                "short",
                "In CPUs. Absent for servers without a limit.",
                &[(
                    "sum by (server) (rate(inferprobe_server_throttled_seconds_total{@server}[@i]))",
                    "{{server}}",
                )],
            ),
            lines(
                "Taken by the hypervisor",
                "short",
                "In CPUs. This time looks like computing to the server.",
                &[(
                    "sum by (instance) (rate(inferprobe_host_steal_seconds_total{@host}[@i]))",
                    "{{instance}}",
                )],
            ),
        ],
    )
}
