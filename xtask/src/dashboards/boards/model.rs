//! One model: where its requests spend their time, its tokens, its TorchServe workers and its energy.

use crate::dashboards::board::{Board, Choice};
use crate::dashboards::panel::{heatmap, lines, stacked};
use crate::dashboards::schema::{Dashboard, Panel};

pub(crate) fn board() -> Dashboard {
    let board = Board::new(
        "one model",
        "Where the requests of one model spend their time; first token, time per token, and tokens.",
    )
    .choose("instance", "Agent", "inferprobe_build_info", Choice::Many)
    .choose(
        "server",
        "Server",
        "inferprobe_requests_total{@host}",
        Choice::Many,
    )
    .choose(
        "model",
        "Model",
        "inferprobe_requests_total{@server}",
        Choice::One,
    );
    gpus(workers(tokens(requests(board)))).finish()
}

/// Three quantiles of a histogram.
fn quantiles(title: &str, help: &str, family: &str) -> Panel {
    let of = |quantile: f64| {
        format!("histogram_quantile({quantile}, sum by (le) (rate({family}_bucket{{@model}}[@i])))")
    };
    lines(
        title,
        "s",
        help,
        &[(&of(0.5), "p50"), (&of(0.9), "p90"), (&of(0.99), "p99")],
    )
}

/// Mean of a histogram.
fn mean(family: &str) -> String {
    format!("sum(rate({family}_sum{{@model}}[@i])) / sum(rate({family}_count{{@model}}[@i]))")
}

fn requests(board: Board) -> Board {
    let queue = mean("inferprobe_request_queue_seconds");
    let inner = mean("inferprobe_request_inner_queue_seconds");
    let starved = mean("inferprobe_request_starved_seconds");
    let handler = mean("inferprobe_request_handler_seconds");
    let duration = mean("inferprobe_request_duration_seconds");
    let work =
        format!("clamp_min({handler} - (({inner}) or vector(0)) - (({starved}) or vector(0)), 0)");
    let rest = format!("clamp_min({duration} - {queue} - {handler}, 0)");
    board
        .row("Requests")
        .panels(
            (2, 9),
            [
                stacked(
                    "Where a request spends its time",
                    "s",
                    "Mean of each stage. The server's work includes TorchServe's workers.",
                    &[
                        (&queue, "wait to be read"),
                        (&inner, "wait for a worker"),
                        (&starved, "wait for a CPU"),
                        (&work, "server's work"),
                        (&rest, "receive and send"),
                    ],
                ),
                heatmap(
                    "Duration",
                    "s",
                    "Requests by their duration.",
                    "sum by (le) (increase(inferprobe_request_duration_seconds_bucket{@model}[@i]))",
                ),
            ],
        )
        .panels(
            (3, 8),
            [
                stacked(
                    "Requests",
                    "reqps",
                    "Inference requests answered, by status code of the response.",
                    &[(
                        "sum by (code) (rate(inferprobe_requests_total{@model}[@i]))",
                        "{{code}}",
                    )],
                ),
                lines(
                    "In flight",
                    "short",
                    "Requests that a server has begun to read and not answered to the end.",
                    &[(
                        "sum by (server) (inferprobe_requests_in_flight{@model})",
                        "{{server}}",
                    )],
                ),
                stacked(
                    "Slow requests, by what made them slow",
                    "reqps",
                    "Requests that took at least twice the model's median, by the component that explains most of it.",
                    &[(
                        "sum by (because) (rate(inferprobe_slow_requests_total{@model}[@i]))",
                        "{{because}}",
                    )],
                ),
                quantiles(
                    "Duration",
                    "From first request byte readable to last response byte written.",
                    "inferprobe_request_duration_seconds",
                ),
                quantiles(
                    "Wait to be read",
                    "From first request byte readable to first request byte read.",
                    "inferprobe_request_queue_seconds",
                ),
                quantiles(
                    "Handler",
                    "From last request byte read to first response byte written.",
                    "inferprobe_request_handler_seconds",
                ),
            ],
        )
}

fn tokens(board: Board) -> Board {
    board.row("Streams and tokens").panels(
        (3, 8),
        [
            quantiles(
                "Time to first token",
                "From first request byte readable to first event with content.",
                "gen_ai_server_time_to_first_token_seconds",
            ),
            quantiles(
                "Time per output token",
                "Mean time from one output token to the next, one value per response.",
                "gen_ai_server_time_per_output_token_seconds",
            ),
            lines(
                "Tokens",
                "short",
                "Tokens per second as responses state them.",
                &[(
                    "sum by (type) (rate(inferprobe_tokens_total{@model}[@i]))",
                    "{{type}}",
                )],
            ),
            quantiles(
                "Time to first chunk",
                "Of any streamed response, whatever its chunks carry.",
                "inferprobe_stream_time_to_first_chunk_seconds",
            ),
            quantiles(
                "Time between chunks",
                "Of any streamed response.",
                "inferprobe_stream_chunk_gap_seconds",
            ),
            lines(
                "Responses without a number of tokens",
                "reqps",
                "Successful responses of which the agent knows no number of tokens, by reason.",
                &[(
                    "sum by (reason) (rate(inferprobe_usage_unknown_total{@model}[@i]))",
                    "{{reason}}",
                )],
            ),
        ],
    )
}

fn workers(board: Board) -> Board {
    board.row("TorchServe workers").panels(
        (3, 8),
        [
            quantiles(
                "Wait for a worker",
                "From last request byte read by the frontend to dispatch.",
                "inferprobe_request_inner_queue_seconds",
            ),
            quantiles(
                "Worker",
                "From last request byte read by the worker to first byte of its reply.",
                "inferprobe_request_worker_seconds",
            ),
            lines(
                "Workers",
                "short",
                "Worker processes that have the model loaded.",
                &[(
                    "sum by (instance) (inferprobe_workers{@model})",
                    "{{instance}}",
                )],
            ),
        ],
    )
}

fn gpus(board: Board) -> Board {
    board.row("GPUs").panels(
        (3, 8),
        [
            lines(
                "Share of time on the GPU",
                "percentunit",
                "A share of time slices, not of work, by process.",
                &[(
                    "inferprobe_gpu_process_sm_ratio{@model}",
                    "{{instance}} GPU {{device}} pid {{pid}}",
                )],
            ),
            lines(
                "GPU memory",
                "bytes",
                "Memory of the GPU that the model's processes use.",
                &[(
                    "inferprobe_gpu_process_memory_bytes{@model}",
                    "{{instance}} GPU {{device}} pid {{pid}}",
                )],
            ),
            lines(
                "Energy per request",
                "joule",
                "An estimate by time share of who used the GPU's energy, divided by requests.",
                &[(
                    "sum(rate(inferprobe_gpu_energy_attributed_joules_total{@model,to=\"model\"}[@i])) \
                     / sum(rate(inferprobe_requests_total{@model}[@i]))",
                    "J per request",
                )],
            ),
        ],
    )
}
