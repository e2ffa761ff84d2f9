//! The one table of every family: name, type, unit, labels and help.
//!
//! Nowhere else is a metric name a string. Nothing here knows a value.

use std::borrow::Cow;

/// What a family's samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

/// One family of the exposition.
#[derive(Debug)]
pub struct Family {
    /// Name in the text format.
    pub name: &'static str,
    /// Type in the text format.
    pub kind: Kind,
    /// Unit: TorchServe's word for its families, the base unit for the others, else empty.
    pub unit: &'static str,
    /// Label names, in the order that samples carry their values.
    pub labels: &'static [&'static str],
    help: Option<&'static str>,
}

impl Family {
    const fn torchserve(
        name: &'static str,
        kind: Kind,
        unit: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            kind,
            unit,
            labels,
            help: None,
        }
    }

    const fn own(
        name: &'static str,
        kind: Kind,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            unit,
            labels,
            help: Some(help),
        }
    }

    /// Whether TorchServe defines this family.
    pub const fn is_torchserve(&self) -> bool {
        self.help.is_none()
    }

    /// The text of its HELP line.
    pub fn help(&self) -> Cow<'static, str> {
        match self.help {
            Some(help) => Cow::Borrowed(help),
            None => {
                let kind = match self.kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram => "histogram",
                };
                let unit = self.unit;
                Cow::Owned(format!(
                    "Torchserve prometheus {kind} metric with unit: {unit}"
                ))
            }
        }
    }

    /// Name of the family in OpenMetrics, where a counter's samples end in `_total` and its family does not.
    pub fn openmetrics_name(&self) -> &'static str {
        match (self.is_torchserve(), self.kind) {
            (false, Kind::Counter) => self.name.strip_suffix("_total").unwrap_or(self.name),
            _ => self.name,
        }
    }

    /// Whether a scrape that asks for `name` means this family: by its name, or by one of its samples' names.
    pub fn responses_to(&self, name: &str) -> bool {
        if name == self.name || name == self.openmetrics_name() {
            return true;
        }
        self.kind == Kind::Histogram
            && name
                .strip_prefix(self.name)
                .is_some_and(|suffix| matches!(suffix, "_bucket" | "_sum" | "_count"))
    }
}

const HOST: &[&str] = &["Level", "Hostname"];
const DEVICE: &[&str] = &["Level", "DeviceId", "Hostname"];
const WORKER: &[&str] = &["WorkerName", "Level", "Hostname"];
const MODEL: &[&str] = &["ModelName", "Level", "Hostname"];
const SERVED: &[&str] = &["model_name", "model_version", "hostname"];
const REQUEST: &[&str] = &["model", "version", "server"];
const RESPONSE: &[&str] = &["model", "version", "server", "code"];
const SERVER: &[&str] = &["server"];
const FIGURE: &[&str] = &["figure"];
const GEN_AI: &[&str] = &[
    "model",
    "version",
    "server",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
];
const GEN_AI_ENDED: &[&str] = &[
    "model",
    "version",
    "server",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "error_type",
];
const ADMIN: &[&str] = &["server", "code"];
const STAGE: &[&str] = &["stage"];
const LABEL: &[&str] = &["label"];
const REASON: &[&str] = &["reason"];
const COLLECTOR: &[&str] = &["collector"];
const HOOK: &[&str] = &["hook", "kind"];
const PROGRAM: &[&str] = &["program"];
const GPU: &[&str] = &["device"];
const BUILD: &[&str] = &["version"];
const SCALED: &[&str] = &["model"];
const DECISION: &[&str] = &["model", "decision"];
const NONE: &[&str] = &[];

macro_rules! families {
    ($(#[$doc:meta])* $table:ident; $($id:ident: $origin:ident($name:literal, $kind:ident, $unit:literal, $labels:ident $(, $help:literal)?);)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub static $id: Family = Family::$origin($name, Kind::$kind, $unit, $labels $(, $help)?);
        )*
        $(#[$doc])*
        pub static $table: &[&Family] = &[$(&$id),*];
    };
}

families! {
    /// Every family of the agent, in the order of the exposition.
    FAMILIES;
    CPU_UTILIZATION: torchserve("CPUUtilization", Gauge, "Percent", HOST);
    MEMORY_USED: torchserve("MemoryUsed", Gauge, "Megabytes", HOST);
    MEMORY_AVAILABLE: torchserve("MemoryAvailable", Gauge, "Megabytes", HOST);
    MEMORY_UTILIZATION: torchserve("MemoryUtilization", Gauge, "Percent", HOST);
    DISK_USAGE: torchserve("DiskUsage", Gauge, "Gigabytes", HOST);
    DISK_AVAILABLE: torchserve("DiskAvailable", Gauge, "Gigabytes", HOST);
    DISK_UTILIZATION: torchserve("DiskUtilization", Gauge, "Percent", HOST);
    GPU_UTILIZATION: torchserve("GPUUtilization", Gauge, "Percent", DEVICE);
    GPU_MEMORY_UTILIZATION: torchserve("GPUMemoryUtilization", Gauge, "Percent", DEVICE);
    GPU_MEMORY_USED: torchserve("GPUMemoryUsed", Gauge, "Megabytes", DEVICE);
    HANDLER_TIME: torchserve("HandlerTime", Gauge, "ms", MODEL);
    PREDICTION_TIME: torchserve("PredictionTime", Gauge, "ms", MODEL);
    QUEUE_TIME: torchserve("QueueTime", Gauge, "Milliseconds", HOST);
    WORKER_LOAD_TIME: torchserve("WorkerLoadTime", Gauge, "Milliseconds", WORKER);
    WORKER_THREAD_TIME: torchserve("WorkerThreadTime", Gauge, "Milliseconds", HOST);
    REQUESTS_2XX: torchserve("Requests2XX", Counter, "Count", HOST);
    REQUESTS_4XX: torchserve("Requests4XX", Counter, "Count", HOST);
    REQUESTS_5XX: torchserve("Requests5XX", Counter, "Count", HOST);
    TS_INFERENCE_REQUESTS: torchserve("ts_inference_requests_total", Counter, "Count", SERVED);
    TS_INFERENCE_LATENCY: torchserve("ts_inference_latency_microseconds", Counter, "Microseconds", SERVED);
    TS_QUEUE_LATENCY: torchserve("ts_queue_latency_microseconds", Counter, "Microseconds", SERVED);

    REQUESTS: own("inferprobe_requests_total", Counter, "", RESPONSE,
        "Inference requests answered, by status code of the answer.");
    ACCEPT_WAIT: own("inferprobe_accept_wait_seconds", Histogram, "seconds", SERVER,
        "Connection established to connection accepted by the server, of connections that it read from; with --accept-wait alone.");
    REQUEST_QUEUE: own("inferprobe_request_queue_seconds", Histogram, "seconds", REQUEST,
        "First request byte readable to first request byte read by the server.");
    REQUEST_HANDLER: own("inferprobe_request_handler_seconds", Histogram, "seconds", REQUEST,
        "Last request byte read to first response byte written.");
    REQUEST_DURATION: own("inferprobe_request_duration_seconds", Histogram, "seconds", REQUEST,
        "First request byte readable to last response byte written.");
    REQUEST_INNER_QUEUE: own("inferprobe_request_inner_queue_seconds", Histogram, "seconds", REQUEST,
        "Last request byte read by a frontend to when it hands the request to a worker: the wait inside the server.");
    REQUEST_WORKER: own("inferprobe_request_worker_seconds", Histogram, "seconds", REQUEST,
        "Last byte read by a frontend's worker to first byte of its reply.");
    REQUEST_RELAY: own("inferprobe_request_relay_seconds", Histogram, "seconds", REQUEST,
        "Last reply byte of a worker read by its frontend to first answer byte written by the frontend.");
    WORKER_LOAD: own("inferprobe_worker_load_seconds", Histogram, "seconds", REQUEST,
        "Start of a worker's process to its word that the model is loaded.");
    WORKERS: own("inferprobe_workers", Gauge, "", REQUEST,
        "Worker processes that have the model loaded.");
    STAGE_UNKNOWN: own("inferprobe_request_stage_unknown_total", Counter, "", STAGE,
        "Inference requests with a stage that could not be timed and is left out of the histograms.");
    STREAM_FIRST_BYTE: own("inferprobe_stream_time_to_first_byte_seconds", Histogram, "seconds", REQUEST,
        "First request byte readable to first byte of a streamed answer, its head included.");
    STREAM_FIRST_CHUNK: own("inferprobe_stream_time_to_first_chunk_seconds", Histogram, "seconds", REQUEST,
        "First request byte readable to first chunk of a streamed answer: the first bytes of its body.");
    STREAM_GAP: own("inferprobe_stream_chunk_gap_seconds", Histogram, "seconds", REQUEST,
        "Time from one chunk of a streamed answer to the next.");
    STREAM_DURATION: own("inferprobe_stream_duration_seconds", Histogram, "seconds", REQUEST,
        "First request byte readable to last byte of a streamed answer.");
    STREAM_CHUNKS: own("inferprobe_stream_chunks", Histogram, "", REQUEST,
        "Chunks of a streamed answer: chunks of HTTP/1.1, DATA frames of HTTP/2, else writes. How many tokens one carries is not known.");
    STREAM_UNKNOWN: own("inferprobe_stream_unknown_total", Counter, "", FIGURE,
        "Figures of streamed answers that could not be told and are left out of the histograms.");
    GEN_AI_FIRST_TOKEN: own("gen_ai_server_time_to_first_token_seconds", Histogram, "seconds", GEN_AI,
        "First request byte readable to first chunk of a streamed answer of a language model, which is taken for its first token.");
    GEN_AI_OUTPUT_TOKEN: own("gen_ai_server_time_per_output_token_seconds", Histogram, "seconds", GEN_AI,
        "Mean time from one chunk to the next, once for each streamed answer of a language model: a chunk is taken for one token, and may carry none or several.");
    GEN_AI_DURATION: own("gen_ai_server_request_duration_seconds", Histogram, "seconds", GEN_AI_ENDED,
        "First request byte readable to last answer byte written, of requests to a language model.");
    ADMIN_REQUESTS: own("inferprobe_admin_requests_total", Counter, "", ADMIN,
        "Health, metrics and management requests answered by watched servers.");
    INNER_REQUESTS: own("inferprobe_inner_requests_total", Counter, "", SERVER,
        "Requests between processes of one server, answered: they count nowhere else.");
    UNFINISHED: own("inferprobe_requests_unfinished_total", Counter, "", REASON,
        "Requests that were read and never answered in full.");
    COVERAGE: own("inferprobe_coverage_ratio", Gauge, "ratio", SERVER,
        "Share of the bytes on a server's watched sockets that belong to requests which were counted.");
    SOCKET_BYTES: own("inferprobe_socket_bytes_total", Counter, "bytes", SERVER,
        "Bytes read and written on a server's watched sockets.");
    MISSED_BYTES: own("inferprobe_missed_bytes_total", Counter, "bytes", SERVER,
        "Bytes on a server's watched sockets that could not be attributed to a request.");
    LABEL_OVERFLOW: own("inferprobe_label_overflow_total", Counter, "", LABEL,
        "Requests counted under the label value other because a limit of distinct values was reached.");
    RECORDS_LOST: own("inferprobe_records_lost_total", Counter, "", REASON,
        "Records of the kernel side that did not become part of a request.");
    COLLECTOR_UP: own("inferprobe_collector_up", Gauge, "", COLLECTOR,
        "Whether a source of figures works: 1 if it does, 0 if not.");
    HOOK_INFO: own("inferprobe_hook_info", Gauge, "", HOOK,
        "The kind of eBPF program that each hook of the probes is on; none where it is on nothing; always 1.");
    BPF_RECURSION_MISSES: own("inferprobe_bpf_recursion_misses_total", Counter, "", PROGRAM,
        "eBPF program runs skipped by the kernel's recursion guard, host-wide.");
    GPU_ERRORS: own("inferprobe_gpu_errors_total", Counter, "", GPU,
        "Readings of a GPU that NVML refused.");
    BUILD_INFO: own("inferprobe_build_info", Gauge, "", BUILD,
        "The running agent, always 1.");

    PROCESS_CPU: own("process_cpu_seconds_total", Counter, "seconds", NONE,
        "CPU time that the agent has used, user and system.");
    PROCESS_RESIDENT: own("process_resident_memory_bytes", Gauge, "bytes", NONE,
        "Resident memory of the agent.");
    PROCESS_VIRTUAL: own("process_virtual_memory_bytes", Gauge, "bytes", NONE,
        "Virtual memory of the agent.");
    PROCESS_OPEN_FDS: own("process_open_fds", Gauge, "", NONE,
        "File descriptors that the agent has open.");
    PROCESS_MAX_FDS: own("process_max_fds", Gauge, "", NONE,
        "File descriptors that the agent may open.");
    PROCESS_START: own("process_start_time_seconds", Gauge, "seconds", NONE,
        "When the agent started, in seconds since the Unix epoch.");
    PROCESS_THREADS: own("process_threads", Gauge, "", NONE,
        "Threads of the agent.");
}

families! {
    /// Every family of `autoscale`, in the order of its exposition.
    AUTOSCALE_FAMILIES;
    AUTOSCALE_DESIRED: own("inferprobe_autoscale_desired_workers", Gauge, "", SCALED,
        "Workers that autoscale wants the model to have.");
    AUTOSCALE_ACTUAL: own("inferprobe_autoscale_actual_workers", Gauge, "", SCALED,
        "Workers of the model that are ready, as TorchServe says.");
    AUTOSCALE_QUEUE: own("inferprobe_autoscale_queue_seconds", Gauge, "seconds", SCALED,
        "Mean queue time of the last interval in which it was known.");
    AUTOSCALE_DECISIONS: own("inferprobe_autoscale_decisions_total", Counter, "", DECISION,
        "Decisions made, by what they came down to.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_torchserve_has_its_21() {
        let families = FAMILIES.iter().chain(AUTOSCALE_FAMILIES);
        let mut names: Vec<_> = families.map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len() + AUTOSCALE_FAMILIES.len());
        let torchserve = FAMILIES.iter().filter(|family| family.is_torchserve());
        assert_eq!(torchserve.count(), 21);
    }

    #[test]
    fn own_names_follow_the_conventions() {
        let families = FAMILIES.iter().chain(AUTOSCALE_FAMILIES);
        for family in families.filter(|family| !family.is_torchserve()) {
            let is_total = family.name.ends_with("_total");
            assert_eq!(is_total, family.kind == Kind::Counter, "{}", family.name);
            let base = family.openmetrics_name();
            assert!(base.ends_with(family.unit), "{base} lacks {}", family.unit);
        }
    }

    #[test]
    fn a_family_responses_to_its_own_and_its_samples_names() {
        for (family, name, expected) in [
            (&QUEUE_TIME, "QueueTime", true),
            (&QUEUE_TIME, "queuetime", false),
            (&QUEUE_TIME, "QueueTime ", false),
            (&QUEUE_TIME, "QueueTime_sum", false),
            (&REQUESTS, "inferprobe_requests_total", true),
            (&REQUESTS, "inferprobe_requests", true),
            (&TS_INFERENCE_REQUESTS, "ts_inference_requests", false),
            (&REQUEST_QUEUE, "inferprobe_request_queue_seconds", true),
            (
                &REQUEST_QUEUE,
                "inferprobe_request_queue_seconds_bucket",
                true,
            ),
            (&REQUEST_QUEUE, "inferprobe_request_queue_seconds_sum", true),
            (
                &REQUEST_QUEUE,
                "inferprobe_request_queue_seconds_count",
                true,
            ),
            (
                &REQUEST_QUEUE,
                "inferprobe_request_queue_seconds_total",
                false,
            ),
            (&REQUEST_QUEUE, "", false),
        ] {
            assert_eq!(family.responses_to(name), expected, "{name:?}");
        }
    }
}
