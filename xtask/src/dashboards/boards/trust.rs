//! How far to trust the other boards: coverage, losses, unknown values, and what the agents cost.

use crate::dashboards::board::{Board, Choice};
use crate::dashboards::panel::{lines, table};
use crate::dashboards::schema::Dashboard;

pub(crate) fn board() -> Dashboard {
    let board = Board::new(
        "trust",
        "What is measured, what was lost and why, which values are unknown, and what the agents cost.",
    )
    .choose("instance", "Agent", "inferprobe_build_info", Choice::Many);
    cost(sources(unknown(losses(board)))).finish()
}

fn losses(board: Board) -> Board {
    board.row("Coverage and losses").panels(
        (3, 8),
        [
            lines(
                "Coverage since the agent's start",
                "percentunit",
                "Share of the bytes on a server's watched sockets that belong to counted requests.",
                &[("inferprobe_coverage_ratio{@host}", "{{instance}} {{server}}")],
            ),
            lines(
                "Unattributed bytes",
                "Bps",
                "Bytes on watched sockets that belong to no counted request.",
                &[(
                    "sum by (instance, server) (rate(inferprobe_missed_bytes_total{@host}[@i]))",
                    "{{instance}} {{server}}",
                )],
            ),
            lines(
                "Losses by reason",
                "short",
                "Records, transfers and connections per second that did not become part of a request.",
                &[(
                    "sum by (reason) (rate(inferprobe_records_lost_total{@host}[@i])) > 0",
                    "{{reason}}",
                )],
            ),
            lines(
                "Unfinished requests by reason",
                "reqps",
                "Requests that were read and never answered in full; in most cases the client left.",
                &[(
                    "sum by (reason) (rate(inferprobe_requests_unfinished_total{@host}[@i]))",
                    "{{reason}}",
                )],
            ),
            lines(
                "Runs that the kernel skipped",
                "short",
                "Runs of eBPF programs per second that the kernel's recursion guard skipped, host-wide.",
                &[(
                    "sum by (program) (rate(inferprobe_bpf_recursion_misses_total{@host}[@i]))",
                    "{{program}}",
                )],
            ),
            lines(
                "Labels over the limit",
                "reqps",
                "Requests counted under the label value other.",
                &[(
                    "sum by (label) (rate(inferprobe_label_overflow_total{@host}[@i]))",
                    "{{label}}",
                )],
            ),
        ],
    )
}

fn unknown(board: Board) -> Board {
    board.row("Unknown values").panels(
        (4, 8),
        [
            lines(
                "Stages of requests",
                "reqps",
                "Requests with a stage that could not be timed and is not in the histograms.",
                &[(
                    "sum by (stage) (rate(inferprobe_request_stage_unknown_total{@host}[@i]))",
                    "{{stage}}",
                )],
            ),
            lines(
                "Values of streams",
                "short",
                "Values of streamed responses per second that could not be measured.",
                &[(
                    "sum by (figure) (rate(inferprobe_stream_unknown_total{@host}[@i]))",
                    "{{figure}}",
                )],
            ),
            lines(
                "Threads of servers",
                "short",
                "Threads per second whose last times are unknown.",
                &[(
                    "sum by (reason) (rate(inferprobe_server_threads_unread_total{@host}[@i]))",
                    "{{reason}}",
                )],
            ),
            lines(
                "Values of GPUs",
                "short",
                "Readings of a GPU per second without a value.",
                &[(
                    "sum by (value, reason) (rate(inferprobe_gpu_unknown_total{@host}[@i]))",
                    "{{value}}: {{reason}}",
                )],
            ),
        ],
    )
}

fn sources(board: Board) -> Board {
    board.row("Where values come from").panels(
        (3, 8),
        [
            lines(
                "Source of the label model",
                "reqps",
                "The command line and the process name are guesses.",
                &[(
                    "sum by (source) (rate(inferprobe_model_source_total{@host}[@i]))",
                    "{{source}}",
                )],
            ),
            table(
                "Data sources",
                "1 if a source works, 0 if not.",
                &[(
                    "Works",
                    "short",
                    "min by (instance, collector) (inferprobe_collector_up{@host})",
                )],
            ),
            table(
                "Hooks",
                "Program type that each hook is attached with; none if it is not attached.",
                &[(
                    "Agents",
                    "short",
                    "count by (hook, kind) (inferprobe_hook_info{@host})",
                )],
            ),
        ],
    )
}

fn cost(board: Board) -> Board {
    board.row("Cost").panels(
        (4, 8),
        [
            lines(
                "CPU",
                "percentunit",
                "CPU time of each agent, in shares of one core. The eBPF programs run in the servers' time.",
                &[(
                    "sum by (instance) (rate(process_cpu_seconds_total{@host}[@i]) @own)",
                    "{{instance}}",
                )],
            ),
            lines(
                "CPU per request",
                "s",
                "CPU time of the agents, divided by the inference requests that they counted.",
                &[(
                    "sum(rate(process_cpu_seconds_total{@host}[@i]) @own) \
                     / sum(rate(inferprobe_requests_total{@host}[@i]))",
                    "per request",
                )],
            ),
            lines(
                "Memory",
                "bytes",
                "Resident memory of each agent.",
                &[(
                    "sum by (instance) (process_resident_memory_bytes{@host} @own)",
                    "{{instance}}",
                )],
            ),
            lines(
                "Scrapes",
                "s",
                "Duration of a scrape, as Prometheus measures it.",
                &[(
                    "scrape_duration_seconds{@host} @own",
                    "{{instance}}",
                )],
            ),
        ],
    )
}
