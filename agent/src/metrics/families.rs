//! Lists every family: name, type, unit, labels, group, help and note.
//!
//! No metric name is written anywhere else. Does not depend on: values.

use crate::metrics::family::{Family, Group, Kind};

/// Labels of a family whose series belong to one server each: those given, and those of its replica.
macro_rules! of_replica {
    ($($label:literal),*) => {
        &[$($label,)* "port", "namespace", "pod", "container"]
    };
}

/// Labels of a family about processes, which may have several listeners: those given, and those of a container.
macro_rules! of_container {
    ($($label:literal),*) => {
        &[$($label,)* "namespace", "pod", "container"]
    };
}

const HOST: &[&str] = &["Level", "Hostname"];
const DEVICE: &[&str] = &["Level", "DeviceId", "Hostname"];
const WORKER: &[&str] = &["WorkerName", "Level", "Hostname"];
const MODEL: &[&str] = &["ModelName", "Level", "Hostname"];
const SERVED: &[&str] = &["model_name", "model_version", "hostname"];
const REQUEST: &[&str] = of_replica!["model", "version", "server"];
const SLOW: &[&str] = of_replica!["model", "version", "server", "because"];
const RESPONSE: &[&str] = of_replica!["model", "version", "server", "code"];
const SERVER: &[&str] = of_replica!["server"];
const SERVER_PROCESSES: &[&str] = of_container!["server"];
const UNREAD: &[&str] = of_container!["server", "reason"];
const SOURCE: &[&str] = of_replica!["server", "source"];
const HOP: &[&str] = of_replica!["server", "gateway"];
const ENGINE: &[&str] = of_container!["server", "engine"];
const OUTCOME: &[&str] = of_container!["server", "outcome"];
const FIGURE: &[&str] = &["figure"];
const GEN_AI: &[&str] = of_replica![
    "model",
    "version",
    "server",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model"
];
const GEN_AI_ENDED: &[&str] = of_replica![
    "model",
    "version",
    "server",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "error_type"
];
const TOKENS_OF: &[&str] = of_replica!["model", "version", "server", "type"];
const USAGE_OF: &[&str] = of_replica!["model", "version", "server", "reason"];
const SESSION: &[&str] = of_replica!["model", "version", "server", "direction"];
const ADMIN: &[&str] = of_replica!["server", "code"];
const SECURED: &[&str] = of_replica!["server", "version", "alpn", "resumed", "client_cert"];
const CONTENT: &[&str] = of_replica!["server", "content"];
const STAGE: &[&str] = &["stage"];
const LABEL: &[&str] = &["label"];
const REASON: &[&str] = &["server", "port", "namespace", "pod", "container", "reason"];
const COLLECTOR: &[&str] = &["collector"];
const HOOK: &[&str] = &["hook", "kind"];
const PROGRAM: &[&str] = &["program"];
const GPU: &[&str] = &["device"];
const SERVER_STALL: &[&str] = of_container!["server", "resource", "kind"];
const STALL: &[&str] = &["resource", "kind"];
const GPU_DEVICE: &[&str] = &["device", "uuid", "mig"];
const GPU_CLOCK: &[&str] = &["device", "uuid", "mig", "clock"];
const GPU_POLICY: &[&str] = &["device", "uuid", "mig", "policy"];
const GPU_REASON: &[&str] = &["device", "uuid", "mig", "reason"];
const GPU_DIRECTION: &[&str] = &["device", "uuid", "mig", "direction"];
const GPU_LINK: &[&str] = &["device", "uuid", "mig", "link", "direction"];
const GPU_LINK_ERROR: &[&str] = &["device", "uuid", "mig", "link", "error"];
const GPU_ERROR: &[&str] = &["device", "uuid", "mig", "error"];
const GPU_XID_CODE: &[&str] = &["device", "uuid", "mig", "xid"];
const GPU_FIGURE: &[&str] = &["device", "uuid", "mig", "figure"];
const GPU_PROCESS: &[&str] = of_container!["device", "uuid", "mig", "pid", "server", "model"];
const GPU_SHARE: &[&str] = &["device", "uuid", "mig", "to", "server", "model"];
const GPU_UNKNOWN_VALUE: &[&str] = &["device", "uuid", "mig", "value", "reason"];
const BUILD: &[&str] = &["version"];
const SCALED: &[&str] = &["model"];
const DECISION: &[&str] = &["model", "decision"];
const NONE: &[&str] = &[];

macro_rules! families {
    ($(#[$doc:meta])* $table:ident; $($id:ident: $origin:ident(
        $name:literal, $kind:ident, $unit:literal, $labels:ident $(, $group:ident, $help:literal $(, $note:literal)?)?
    );)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub static $id: Family =
                Family::$origin($name, Kind::$kind, $unit, $labels $(, Group::$group, $help, concat!($($note)?))?);
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

    REQUESTS: own("inferprobe_requests_total", Counter, "", RESPONSE, Requests,
        "Inference requests answered, by status code of the response.",
        "A request whose client left before the response counts only as unfinished.");
    IN_FLIGHT: own("inferprobe_requests_in_flight", Gauge, "", REQUEST, Requests,
        "Inference requests that a server has begun to read and not answered to the end, at the time of the scrape.",
        "A stream of gRPC messages counts for each message that was not answered.");
    CONNECTIONS: own("inferprobe_connections", Gauge, "", SERVER, Requests,
        "Open connections on which a server was sent something, at the time of the scrape.");
    READERS: own("inferprobe_readers", Gauge, "", REQUEST, Requests,
        "Distinct threads that read a model's requests which ended in the last 30 seconds.",
        "Absent if none ended, and if there are more than 256 in five seconds.");
    READERS_BUSY: own("inferprobe_readers_busy_ratio", Gauge, "ratio", REQUEST, Requests,
        "Share of the last 30 seconds in which those threads had a request in hand, mean of all.",
        "From its first byte read to the last byte of its response. Absent if a thread has several requests in hand at once, as in an event loop that awaits: then one in hand does not keep it from reading.");
    MODEL_SOURCE: own("inferprobe_model_source_total", Counter, "", SOURCE, Requests,
        "Inference requests answered, by where their label model comes from.",
        "Best first: path, request_body, response_body, configuration, command_line, process_name, unknown. The command line and the process name are guesses: a server may have several models.");
    ACCEPT_WAIT: own("inferprobe_accept_wait_seconds", Histogram, "seconds", SERVER, Requests,
        "Time from connection established to connection accepted, if the server read from it; needs --accept-wait.");
    REQUEST_QUEUE: own("inferprobe_request_queue_seconds", Histogram, "seconds", REQUEST, Requests,
        "Time from first request byte readable to first request byte read by the server.");
    REQUEST_HANDLER: own("inferprobe_request_handler_seconds", Histogram, "seconds", REQUEST, Requests,
        "Time from last request byte read to first response byte written.");
    REQUEST_STARVED: own("inferprobe_request_starved_seconds", Histogram, "seconds", REQUEST, Requests,
        "Time that the serving thread was ready and waited for a CPU, from last request byte read to first response byte.",
        "Exact if one thread reads the request and writes the response, else unknown. Of a TorchServe request, its worker's. Part of the handler time.");
    SLOW_REQUESTS: own("inferprobe_slow_requests_total", Counter, "", SLOW, Requests,
        "Inference requests that took at least twice their model's median, by the component that explains most of it.",
        "The median of the model's latest 64 requests. Requests with an unknown stage are not judged.");
    REQUEST_DURATION: own("inferprobe_request_duration_seconds", Histogram, "seconds", REQUEST, Requests,
        "Time from first request byte readable to last response byte written.");
    REQUEST_INNER_QUEUE: own("inferprobe_request_inner_queue_seconds", Histogram, "seconds", REQUEST, Workers,
        "Time from last request byte read by TorchServe's frontend to its dispatch to a worker.",
        "The same time as `QueueTime`, of every request that a worker handled; TorchServe excludes failed ones.");
    REQUEST_WORKER: own("inferprobe_request_worker_seconds", Histogram, "seconds", REQUEST, Workers,
        "Time from last request byte read by a TorchServe worker to first byte of its reply.",
        "The same time as `PredictionTime`, of every request that a worker handled; TorchServe excludes failed ones.");
    REQUEST_RELAY: own("inferprobe_request_relay_seconds", Histogram, "seconds", REQUEST, Workers,
        "Time from last reply byte read by TorchServe's frontend to first response byte written.",
        "If the frontend's read of the last reply byte was not observed, the time begins when the worker wrote that byte.");
    WORKER_LOAD: own("inferprobe_worker_load_seconds", Histogram, "seconds", REQUEST, Workers,
        "Time from start of a TorchServe worker process to its report that the model is loaded.",
        "The same time as `WorkerLoadTime`.");
    WORKERS: own("inferprobe_workers", Gauge, "", REQUEST, Workers,
        "TorchServe worker processes that have the model loaded.",
        "Workers that were running before the agent started are included.");
    STAGE_UNKNOWN: own("inferprobe_request_stage_unknown_total", Counter, "", STAGE, Requests,
        "Inference requests with a stage that could not be timed and is not in the histograms.");
    STREAM_FIRST_BYTE: own("inferprobe_stream_time_to_first_byte_seconds", Histogram, "seconds", REQUEST, Streams,
        "Time from first request byte readable to first byte of a streamed response, headers included.");
    STREAM_FIRST_CHUNK: own("inferprobe_stream_time_to_first_chunk_seconds", Histogram, "seconds", REQUEST, Streams,
        "Time from first request byte readable to first chunk of a streamed response's body.");
    STREAM_GAP: own("inferprobe_stream_chunk_gap_seconds", Histogram, "seconds", REQUEST, Streams,
        "Time from one chunk of a streamed response to the next.",
        "The agent keeps 4,096 gaps of one response; later gaps count as unknown.");
    STREAM_DURATION: own("inferprobe_stream_duration_seconds", Histogram, "seconds", REQUEST, Streams,
        "Time from first request byte readable to last byte of a streamed response.");
    STREAM_CHUNKS: own("inferprobe_stream_chunks", Histogram, "", REQUEST, Streams,
        "Chunks of a streamed response: HTTP/1.1 chunks, gRPC messages, HTTP/2 DATA frames, else writes.",
        "The agent does not know how many tokens a chunk carries.");
    STREAM_UNKNOWN: own("inferprobe_stream_unknown_total", Counter, "", FIGURE, Streams,
        "Values of streamed responses that could not be measured and are not in the histograms.");
    SESSION_BYTES: own("inferprobe_session_bytes_total", Counter, "bytes", SESSION, Streams,
        "Bytes of WebSocket sessions that have ended, by direction: received or sent by the server.");
    SESSION_MESSAGES: own("inferprobe_session_messages_total", Counter, "", SESSION, Streams,
        "Messages of WebSocket sessions that have ended, by direction: received or sent by the server.",
        "Sessions of which some messages could not be counted are in `inferprobe_stream_unknown_total{figure=\"messages\"}` instead.");
    GEN_AI_FIRST_TOKEN: own("gen_ai_server_time_to_first_token_seconds", Histogram, "seconds", GEN_AI, GenAi,
        "Time from first request byte readable to first token of a language model's streamed response.",
        "The first token is the first event with content: text, reasoning or a part of a tool call.");
    GEN_AI_OUTPUT_TOKEN: own("gen_ai_server_time_per_output_token_seconds", Histogram, "seconds", GEN_AI, GenAi,
        "Mean time from one output token to the next of a language model's streamed response.",
        "One value per response. Tokens are counted as the response states; if it does not, each event with content is one.");
    GEN_AI_DURATION: own("gen_ai_server_request_duration_seconds", Histogram, "seconds", GEN_AI_ENDED, GenAi,
        "Time from first request byte readable to last response byte written, of language model requests.");
    TOKENS: own("inferprobe_tokens_total", Counter, "", TOKENS_OF, GenAi,
        "Tokens as language models' successful responses state them: input, of the prompt, and output, generated.",
        "Input includes cached tokens, output those of reasoning.");
    USAGE_UNKNOWN: own("inferprobe_usage_unknown_total", Counter, "", USAGE_OF, GenAi,
        "Successful responses of language models of which the agent knows no number of tokens, by reason.");
    TLS_CONNECTIONS: own("inferprobe_tls_connections_total", Counter, "", SECURED, Tls,
        "TLS connections whose handshake ended, by what their handshakes show.",
        "`alpn` is the protocol that the server chose; TLS 1.3 encrypts it, and its length shows it on most servers. `client_cert` says whether the client sent a certificate; a resumed session sends none.");
    TLS_HANDSHAKE: own("inferprobe_tls_handshake_seconds", Histogram, "seconds", SERVER, Tls,
        "Time from first byte of a TLS handshake readable to the client's last message of it read.");
    TLS_REQUESTS: own("inferprobe_tls_requests_total", Counter, "", CONTENT, Tls,
        "Requests over TLS answered, by what the agent knows of their content: `timed`, or `read` with --tls.",
        "They also count in `inferprobe_requests_total`, those that were timed under the code unknown; requests for health or metrics are among them.");
    TLS_BUSY: own("inferprobe_tls_multiplexed_busy_seconds_total", Counter, "seconds", SERVER, Tls,
        "Time from data of a client to the server's last data before the client's next, of HTTP/2 over TLS.",
        "A lower bound of the time in which such connections had an open request.");
    TLS_UNREAD_BYTES: own("inferprobe_tls_unread_bytes_total", Counter, "bytes", SERVER, Tls,
        "Bytes on TLS connections, whose content was not read; they are part of the socket bytes.",
        "Those of timed requests and of handshakes are not among the unattributed bytes, those of HTTP/2 are.");
    SERVER_STARVED: own("inferprobe_server_starved_seconds_total", Counter, "seconds", SERVER_PROCESSES, Starvation,
        "Time that threads of a server were ready to run and had no CPU, summed over threads.",
        "Time in which the cgroup's CPU limit stopped them is included.");
    SERVER_CPU: own("inferprobe_server_cpu_seconds_total", Counter, "seconds", SERVER_PROCESSES, Starvation,
        "CPU time of a server, summed over threads.");
    SERVER_THREADS: own("inferprobe_server_threads", Gauge, "", SERVER_PROCESSES, Starvation,
        "Threads of a server.");
    SERVER_THROTTLED: own("inferprobe_server_throttled_seconds_total", Counter, "seconds", SERVER_PROCESSES, Starvation,
        "Time that a CPU limit stopped the cgroups of a server, summed over CPUs.",
        "If several cgroups above one process have a limit, the one that stops it longest counts.");
    SERVER_PRESSURE: own("inferprobe_server_pressure_seconds_total", Counter, "seconds", SERVER_STALL, Starvation,
        "Time that tasks in a server's cgroup stalled on a resource: some of them, or all (full).",
        "Other processes in the cgroup are included. Needs cgroup 2 and a kernel that counts pressure (PSI).");
    SERVER_THREADS_UNREAD: own("inferprobe_server_threads_unread_total", Counter, "", UNREAD, Starvation,
        "Threads of servers whose last times are unknown, by reason.");
    HOST_PRESSURE: own("inferprobe_host_pressure_seconds_total", Counter, "seconds", STALL, Starvation,
        "Time that tasks of the host stalled on a resource: some of them, or all (full).");
    HOST_STEAL: own("inferprobe_host_steal_seconds_total", Counter, "seconds", NONE, Starvation,
        "Time that the hypervisor took from the host's CPUs while they had work, summed over CPUs.");
    ENGINE_RUNNING: own("inferprobe_engine_requests_running", Gauge, "", ENGINE, Engines,
        "Requests that an engine works on, as its own page says.");
    ENGINE_WAITING: own("inferprobe_engine_requests_waiting", Gauge, "", ENGINE, Engines,
        "Requests that wait inside an engine, as its own page says.");
    ENGINE_KV_CACHE: own("inferprobe_engine_kv_cache_ratio", Gauge, "ratio", ENGINE, Engines,
        "Share of an engine's KV cache in use, as its own page says.",
        "The fullest one counts, if there are several.");
    ENGINE_PREEMPTIONS: own("inferprobe_engine_preemptions_total", Counter, "", ENGINE, Engines,
        "Requests that an engine stopped to free KV cache since the agent began to ask, as its own page says.");
    ENGINE_BATCH: own("inferprobe_engine_batch_size", Gauge, "", ENGINE, Engines,
        "Requests in an engine's batch, as its own page says: now (TGI), or the mean since the last answer (Triton).");
    ENGINE_IN_FLIGHT: own("inferprobe_engine_requests_in_flight", Gauge, "", ENGINE, Engines,
        "Requests in flight as the kernel showed them when the engine was asked.");
    ENGINE_DIFFERENCES: own("inferprobe_engine_differences_total", Counter, "", ENGINE, Engines,
        "Answers in which an engine's requests, running and waiting, were others than those in flight.");
    ENGINE_ASKS: own("inferprobe_engine_asks_total", Counter, "", OUTCOME, Engines,
        "Requests that the agent sent to servers for their own page, by outcome.");
    GPU_BUSY: own("inferprobe_gpu_utilization_ratio", Gauge, "ratio", GPU_DEVICE, Gpu,
        "Share of time in which the GPU ran a kernel.",
        "Absent where NVML has no such value, and while it is 0 but the GPU draws much more than idle power.");
    GPU_MEMORY_BUSY: own("inferprobe_gpu_memory_utilization_ratio", Gauge, "ratio", GPU_DEVICE, Gpu,
        "Share of time in which the GPU's memory was read or written.");
    GPU_MEMORY_USED_BYTES: own("inferprobe_gpu_memory_used_bytes", Gauge, "bytes", GPU_DEVICE, Gpu,
        "Memory of the GPU that is in use.");
    GPU_MEMORY_TOTAL_BYTES: own("inferprobe_gpu_memory_total_bytes", Gauge, "bytes", GPU_DEVICE, Gpu,
        "Memory of the GPU.");
    GPU_PROCESS_BUSY: own("inferprobe_gpu_process_sm_ratio", Gauge, "ratio", GPU_PROCESS, Gpu,
        "Share of time in which a process ran kernels on the GPU.",
        "A share of time slices, not of work. Absent for a process that ran none, and on MIG.");
    GPU_PROCESS_MEMORY_BUSY: own("inferprobe_gpu_process_memory_utilization_ratio", Gauge, "ratio", GPU_PROCESS, Gpu,
        "Share of time in which a process read or wrote the GPU's memory.");
    GPU_PROCESS_MEMORY: own("inferprobe_gpu_process_memory_bytes", Gauge, "bytes", GPU_PROCESS, Gpu,
        "Memory of the GPU that a process uses.");
    GPU_POWER: own("inferprobe_gpu_power_watts", Gauge, "watts", GPU_DEVICE, Gpu,
        "Power that the GPU draws.");
    GPU_POWER_LIMIT: own("inferprobe_gpu_power_limit_watts", Gauge, "watts", GPU_DEVICE, Gpu,
        "Power limit of the GPU.");
    GPU_ENERGY: own("inferprobe_gpu_energy_joules_total", Counter, "joules", GPU_DEVICE, Gpu,
        "Energy that the GPU used since its driver was loaded.",
        "If the driver starts to count anew, the total goes on.");
    GPU_ENERGY_SHARES: own("inferprobe_gpu_energy_attributed_joules_total", Counter, "joules", GPU_SHARE, Gpu,
        "Estimate by time share of who used the GPU's energy; the parts add up to inferprobe_gpu_energy_joules_total.");
    GPU_COUNTER_RESETS: own("inferprobe_gpu_counter_resets_total", Counter, "", GPU_DEVICE, Gpu,
        "Times that the GPU's energy counter fell, because its driver started to count anew.");
    GPU_TEMPERATURE: own("inferprobe_gpu_temperature_celsius", Gauge, "celsius", GPU_DEVICE, Gpu,
        "Temperature of the GPU.");
    GPU_CLOCK_RATE: own("inferprobe_gpu_clock_hertz", Gauge, "hertz", GPU_CLOCK, Gpu,
        "Clock rates of the GPU: graphics, sm, memory and video.");
    GPU_THROTTLED: own("inferprobe_gpu_throttled_seconds_total", Counter, "seconds", GPU_POLICY, Gpu,
        "Time in which the GPU ran below the clocks that it was asked for, by policy.",
        "NVML's violation times, since the driver was loaded.");
    GPU_THROTTLE_REASON: own("inferprobe_gpu_throttle_active", Gauge, "", GPU_REASON, Gpu,
        "Whether a reason limits the GPU's clocks now: 1 if it does, 0 if not.");
    GPU_PCIE_BYTES: own("inferprobe_gpu_pcie_bytes_total", Counter, "bytes", GPU_DIRECTION, Gpu,
        "Bytes over PCIe, by direction as the GPU sees it: tx or rx.",
        "GPUs that do not count them have `inferprobe_gpu_pcie_bytes_per_second`.");
    GPU_PCIE_RATE: own("inferprobe_gpu_pcie_bytes_per_second", Gauge, "bytes_per_second", GPU_DIRECTION, Gpu,
        "Rate of bytes over PCIe in a sample of 20 ms; only of a GPU that does not count them.");
    GPU_PCIE_REPLAYS: own("inferprobe_gpu_pcie_replays_total", Counter, "", GPU_DEVICE, Gpu,
        "Packets that the GPU's PCIe link sent again.");
    GPU_PCIE_GENERATION: own("inferprobe_gpu_pcie_link_generation", Gauge, "", GPU_DEVICE, Gpu,
        "PCIe generation that the GPU's link uses now.");
    GPU_PCIE_WIDTH: own("inferprobe_gpu_pcie_link_width", Gauge, "", GPU_DEVICE, Gpu,
        "PCIe lanes that the GPU's link uses now.");
    GPU_NVLINK_BYTES: own("inferprobe_gpu_nvlink_bytes_total", Counter, "bytes", GPU_LINK, Gpu,
        "Bytes of data over an NVLink, by direction as the GPU sees it: tx or rx.");
    GPU_NVLINK_ERRORS: own("inferprobe_gpu_nvlink_errors_total", Counter, "", GPU_LINK_ERROR, Gpu,
        "Errors of an NVLink, by type.");
    GPU_ECC: own("inferprobe_gpu_ecc_errors_total", Counter, "", GPU_ERROR, Gpu,
        "Memory errors since the driver was loaded: corrected or uncorrected.");
    GPU_XID: own("inferprobe_gpu_xid_errors_total", Counter, "", GPU_XID_CODE, Gpu,
        "XID errors that the driver reported since the agent started, by code.",
        "If several happen at once, NVML may give all of them the code of the last one.");
    GPU_GPM: own("inferprobe_gpu_gpm_ratio", Gauge, "ratio", GPU_FIGURE, Gpu,
        "Mean use of a part of the GPU since the last reading; needs --gpm and a Hopper GPU or later.");
    GPU_GPM_RATE: own("inferprobe_gpu_gpm_bytes_per_second", Gauge, "bytes_per_second", GPU_FIGURE, Gpu,
        "Mean rate of bytes over PCIe and NVLink since the last reading; needs --gpm and a Hopper GPU or later.");
    GPU_UNKNOWN: own("inferprobe_gpu_unknown_total", Counter, "", GPU_UNKNOWN_VALUE, Gpu,
        "Readings of a GPU without a value, by value and reason.");
    ADMIN_REQUESTS: own("inferprobe_admin_requests_total", Counter, "", ADMIN, Requests,
        "Health, metrics and management requests answered by watched servers.",
        "A request that did not come over gRPC also counts in `Requests2XX` and its siblings.");
    INNER_REQUESTS: own("inferprobe_inner_requests_total", Counter, "", SERVER, Requests,
        "Internal requests: answered requests between processes of one server, which no other family counts.");
    GATEWAY_REQUESTS: own("inferprobe_gateway_requests_total", Counter, "", HOP, Requests,
        "Inference requests answered whose client is another watched server, by that server's name.",
        "They also count in `inferprobe_requests_total` of both servers. TorchServe's own families count them once, at the server nearest to the model.");
    UNFINISHED: own("inferprobe_requests_unfinished_total", Counter, "", REASON, Requests,
        "Requests that were read and never answered in full.");
    COVERAGE: own("inferprobe_coverage_ratio", Gauge, "ratio", SERVER, Coverage,
        "Share of the bytes on a server's watched sockets that belong to counted requests.",
        "1 minus unattributed bytes divided by socket bytes, since the agent started.");
    SOCKET_BYTES: own("inferprobe_socket_bytes_total", Counter, "bytes", SERVER, Coverage,
        "Bytes read and written on a server's watched sockets.",
        "The kernel's own byte counts, without connections of TorchServe workers and of ZeroMQ.");
    MISSED_BYTES: own("inferprobe_missed_bytes_total", Counter, "bytes", SERVER, Coverage,
        "Unattributed bytes: bytes on a server's watched sockets that belong to no counted request.",
        "Those of lost records, those that are no request, and those of responses without a request. Bytes of requests that count as unfinished are attributed.");
    LABEL_OVERFLOW: own("inferprobe_label_overflow_total", Counter, "", LABEL, Coverage,
        "Requests counted under the label value other because a cardinality limit was reached.");
    RECORDS_LOST: own("inferprobe_records_lost_total", Counter, "", REASON, Coverage,
        "Records, transfers and connections that did not become part of a request.");
    COLLECTOR_UP: own("inferprobe_collector_up", Gauge, "", COLLECTOR, Agent,
        "Whether a data source works: 1 if it does, 0 if not.");
    HOOK_INFO: own("inferprobe_hook_info", Gauge, "", HOOK, Agent,
        "Program type that each hook is attached with, none if it is not attached; always 1.");
    SOCKET_HOOKS: own("inferprobe_socket_hooks_attached", Gauge, "", NONE, Agent,
        "Whether reads and writes of sockets run the agent's programs: 1, or 0 while nothing is watched.");
    BPF_RECURSION_MISSES: own("inferprobe_bpf_recursion_misses_total", Counter, "", PROGRAM, Agent,
        "eBPF program runs skipped by the kernel's recursion guard, host-wide.",
        "All sockets of the host count, not only watched ones. For a program that is attached twice: the smaller count of the primary and the backup copy.");
    GPU_ERRORS: own("inferprobe_gpu_errors_total", Counter, "", GPU, Agent,
        "Readings of a GPU that NVML refused.");
    CONFIG_RELOADED: own("inferprobe_config_last_reload_successful", Gauge, "", NONE, Agent,
        "Whether the latest try to read the configuration succeeded: 1 if it did, 0 if the old one stays.");
    CONFIG_RELOAD_TIME: own("inferprobe_config_last_reload_success_timestamp_seconds", Gauge, "seconds", NONE, Agent,
        "When the configuration was last read, in seconds since the Unix epoch.");
    BUILD_INFO: own("inferprobe_build_info", Gauge, "", BUILD, Agent,
        "Version of the running agent; always 1.");

    PROCESS_CPU: own("process_cpu_seconds_total", Counter, "seconds", NONE, Process,
        "CPU time used by the agent, user and system.");
    PROCESS_RESIDENT: own("process_resident_memory_bytes", Gauge, "bytes", NONE, Process,
        "Resident memory of the agent.");
    PROCESS_VIRTUAL: own("process_virtual_memory_bytes", Gauge, "bytes", NONE, Process,
        "Virtual memory of the agent.");
    PROCESS_OPEN_FDS: own("process_open_fds", Gauge, "", NONE, Process,
        "File descriptors that the agent has open.");
    PROCESS_MAX_FDS: own("process_max_fds", Gauge, "", NONE, Process,
        "File descriptors that the agent may open.");
    PROCESS_START: own("process_start_time_seconds", Gauge, "seconds", NONE, Process,
        "Start time of the agent, in seconds since the Unix epoch.");
    PROCESS_THREADS: own("process_threads", Gauge, "", NONE, Process,
        "Threads of the agent.");
}

families! {
    /// Every family of `autoscale`, in the order of its exposition.
    AUTOSCALE_FAMILIES;
    AUTOSCALE_DESIRED: own("inferprobe_autoscale_desired_workers", Gauge, "", SCALED, Autoscale,
        "Workers that autoscale wants the model to have.");
    AUTOSCALE_ACTUAL: own("inferprobe_autoscale_actual_workers", Gauge, "", SCALED, Autoscale,
        "Workers of the model that TorchServe reports as ready.",
        "Absent while TorchServe does not answer.");
    AUTOSCALE_QUEUE: own("inferprobe_autoscale_queue_seconds", Gauge, "seconds", SCALED, Autoscale,
        "Mean queue time of the last interval in which it was known.");
    AUTOSCALE_DECISIONS: own("inferprobe_autoscale_decisions_total", Counter, "", DECISION, Autoscale,
        "Autoscale decisions, by their result.");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::REPLICA_LABELS;

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
    fn series_of_a_server_end_in_the_labels_of_its_replica() {
        for family in FAMILIES.iter().filter(|family| !family.is_torchserve()) {
            let has = |label: &str| family.labels.contains(&label);
            // Energy is divided between models.
            let is_of_server = has("server") && !has("to");
            let is_of_processes = matches!(
                family.group,
                Group::Starvation | Group::Engines | Group::Gpu
            );
            let last = match is_of_processes {
                true => &REPLICA_LABELS[1..],
                false => &REPLICA_LABELS,
            };
            // What was lost is told apart by its reason, behind them.
            let labels = match family.labels {
                [before @ .., "reason"] if before.ends_with(last) => before,
                labels => labels,
            };
            assert_eq!(labels.ends_with(last), is_of_server, "{}", family.name);
        }
    }

    #[test]
    fn help_texts_are_short_sentences() {
        for family in FAMILIES.iter().chain(AUTOSCALE_FAMILIES) {
            let help = family.help();
            assert!(help.len() <= 120, "{}: {}", family.name, help.len());
            assert_eq!(help.ends_with('.'), !family.is_torchserve(), "{help}");
        }
    }

    #[test]
    fn a_family_has_its_own_and_its_samples_names() {
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
            assert_eq!(family.has_name(name), expected, "{name:?}");
        }
    }
}
