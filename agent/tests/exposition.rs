//! Compares the whole exposition with the files in `tests/golden`; `UPDATE_GOLDEN=1` rewrites them.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use inferprobe::{
    catalogue::route::{ModelSource, Purpose},
    identity::{Container, Hop, Identity, Instance, Replica, ShownLabels},
    metrics::{
        DiskSample, Format, GpuMemory, GpuSample, LiveWorker, MemorySample, Metrics, Reading,
        Selection, Value, families,
    },
    observation::{Observation, Protocol, Stages, Stream},
    protocol::genai::Operation,
    torchserve::timing::{WorkEnd, WorkerSide, WorkerTiming},
    verdict::slow::Because,
};

#[test]
fn an_empty_agent_announces_every_family() {
    let metrics = Metrics::new("vm");
    compare(
        "empty.txt",
        &metrics.encode(&Selection::all(), Format::Text),
    );
    compare(
        "empty.openmetrics",
        &metrics.encode(&Selection::all(), Format::OpenMetrics),
    );
}

#[test]
fn a_busy_agent_exports_every_series() {
    let metrics = busy();
    compare("busy.txt", &metrics.encode(&Selection::all(), Format::Text));
    compare(
        "busy.openmetrics",
        &metrics.encode(&Selection::all(), Format::OpenMetrics),
    );
}

#[test]
fn a_filter_keeps_the_table_order_and_whole_families() {
    let names = [
        "inferprobe_request_queue_seconds_sum",
        "NoSuchMetric",
        "QueueTime",
        "inferprobe_requests",
    ];
    let text = busy().encode(&Selection::named(names), Format::Text);
    compare("filtered.txt", &text);
}

/// An agent after a fixed series of requests, readings and losses.
fn busy() -> Metrics {
    let metrics = Metrics::new("vm");
    let known = Stages {
        queue_ns: Some(120_000),
        receive_ns: 30_000,
        handler_ns: Some(36_024_000),
        stream_ns: Some(1_500_000),
        unsplit_ns: None,
    };
    let resumed = Stages {
        queue_ns: None,
        ..known
    };
    let slow = Stages {
        queue_ns: Some(2_750_000_000),
        handler_ns: Some(12_001_070_000),
        ..known
    };
    let endless = Stages {
        stream_ns: None,
        ..known
    };
    for (model, version, server, status, stages) in [
        ("tiny", "default", "torchserve", 200, known),
        ("tiny", "default", "torchserve", 200, slow),
        ("tiny", "1.0", "torchserve", 200, resumed),
        ("tiny", "default", "torchserve", 503, known),
        ("nosuch", "default", "torchserve", 404, known),
        ("resnet18", "default", "uvicorn", 200, endless),
        ("resnet18", "default", "uvicorn", 302, known),
        ("a \"quoted\\name\"\n", "2", "triton", 200, known),
    ] {
        metrics.observe(&observation(model, version, server, status, stages));
    }
    for (status, stream) in [(200, Some(stream())), (429, None)] {
        metrics.observe(&Observation {
            operation: Some(Operation::Chat),
            stream: stream.map(Box::new),
            ..observation("llama", "default", "vllm", status, known)
        });
    }
    metrics.observe(&Observation {
        hop: Hop {
            gateway: Some("litellm".into()),
            is_nearest: true,
        },
        ..observation("llama", "default", "vllm", 200, known)
    });
    let open = observation("llama", "default", "vllm", 200, known).identity;
    metrics.set_in_flight(&BTreeMap::from([(open, 3)]));
    let timing = WorkerTiming {
        internal_queue_ns: Some(7_125_000),
        worker_ns: Some(21_500_000),
        starved_ns: None,
        latency_ns: 29_000_000,
        relay_ns: Some(1_250_000),
        end: WorkEnd::Predicted,
    };
    metrics.observe(&Observation {
        starved_ns: Some(3_750_000),
        because: Some(Because::Cpu),
        worker_side: WorkerSide::Observed(timing),
        ..observation("two-hop", "default", "torchserve", 200, known)
    });
    let identity = observation("two-hop", "1.0", "torchserve", 200, known).identity;
    for (pid, load_ns) in [(7, Some(1_525_000_000)), (8, None)] {
        let worker = LiveWorker {
            name: format!("W-900{pid}-two-hop_1.0"),
            identity: identity.clone(),
            load_ns,
        };
        metrics.worker_loaded(pid, worker);
    }
    for status in [200, 200, 404] {
        let response = observation("", "", "torchserve", status, known);
        metrics.observe(&Observation {
            purpose: Purpose::Admin,
            ..response
        });
    }
    metrics.observe(&Observation {
        purpose: Purpose::Internal,
        ..observation("", "", "bentoml", 200, known)
    });
    for wait_ns in [80_000, 2_000_000_000] {
        metrics.accepted(&instance("gunicorn"), wait_ns);
    }
    for (reason, lost) in [("ring_full", 3), ("head_too_long", 0)] {
        metrics.lost(&families::RECORDS_LOST, &instance("vllm"), reason, lost);
    }
    metrics.lost(&families::UNFINISHED, &instance("vllm"), "closed", 1);
    publish_values(&metrics);
    metrics
}

/// Where a server runs: `vllm` in a pod.
fn replica(server: &str) -> Replica {
    let container = match server {
        "vllm" => Container {
            namespace: "llm".into(),
            pod: "vllm-0".into(),
            name: "server".into(),
        },
        _ => Container::default(),
    };
    Replica::new(Some(8000), &container, ShownLabels::ALL)
}

fn instance(server: &str) -> Instance {
    Instance {
        server: server.into(),
        replica: replica(server),
    }
}

fn observation(
    model: &str,
    version: &str,
    server: &str,
    status: u16,
    stages: Stages,
) -> Observation {
    Observation {
        identity: Identity {
            model: model.into(),
            version: version.into(),
            server: server.into(),
            replica: replica(server),
        },
        purpose: Purpose::Inference,
        model_source: ModelSource::Path,
        protocol: Protocol::Http,
        status,
        stages,
        starved_ns: None,
        because: None,
        worker_side: WorkerSide::NoWorker,
        stream: None,
        hop: Hop::ONLY,
        session: None,
        operation: None,
        tokens: None,
    }
}

/// A streamed response of three chunks, with one gap that was not observed.
fn stream() -> Stream {
    Stream {
        first_byte_ns: Some(36_174_000),
        first_chunk_ns: Some(36_375_000),
        duration_ns: Some(37_674_000),
        chunks: Some(3),
        gaps_ns: vec![625_000],
        gaps_unknown: 1,
        mean_gap_ns: Some(600_000),
        is_event_stream: true,
    }
}

fn publish_values(metrics: &Metrics) {
    let until = Instant::now() + Duration::from_secs(3600);
    metrics.set_cpu_pct(Some(12.5));
    metrics.set_memory(Some(MemorySample {
        used_mib: 778.78125,
        available_mib: 23020.86328125,
        used_pct: 4.5,
    }));
    let disk = DiskSample {
        used_gib: 16.68500518798828,
        available_gib: 74.18669891357422,
        used_pct: 18.4,
    };
    metrics.set_disk(Some(disk), until);
    let memory = GpuMemory {
        used_mib: 1024.0,
        used_pct: 1.25,
    };
    let gpus = vec![
        GpuSample {
            index: 0,
            busy_pct: Some(37.0),
            memory: Some(memory),
        },
        GpuSample {
            index: 1,
            busy_pct: Some(0.0),
            memory: None,
        },
    ];
    metrics.set_gpus(gpus, until);
    metrics.set_readings("gpu", gpu_readings(), until);
    metrics.add(&families::GPU_ERRORS, &["2"], 1);
    metrics.collector_up("requests", true);
    metrics.collector_up("cpu", false);
    metrics.collector_up_until("gpu", until);
    for (hook, kind) in [
        ("recv", "tp_btf"),
        ("send", "kprobe"),
        ("send_start", "none"),
    ] {
        metrics.set(&families::HOOK_INFO, &[hook, kind], 1);
    }
    for (program, total) in [("sock_recv_length", 3), ("sock_send_length", 0)] {
        metrics.set(&families::BPF_RECURSION_MISSES, &[program], total);
    }
    let process: [(_, Value); 7] = [
        (&families::PROCESS_CPU, 1.25.into()),
        (&families::PROCESS_RESIDENT, 12_345_678.into()),
        (&families::PROCESS_VIRTUAL, 123_456_789.into()),
        (&families::PROCESS_OPEN_FDS, 17.into()),
        (&families::PROCESS_MAX_FDS, 1024.into()),
        (&families::PROCESS_START, 1_700_000_000.25.into()),
        (&families::PROCESS_THREADS, 5.into()),
    ];
    for (family, value) in process {
        metrics.set(family, &[], value);
    }
}

/// Some series of a GPU.
fn gpu_readings() -> Vec<Reading> {
    let device = ["0", "GPU-1", ""];
    let labels = |more: &[&'static str]| [&device[..], more].concat();
    let energy = |to, joules: f64| {
        let labels = labels(&[to, "", ""]);
        Reading::new(&families::GPU_ENERGY_SHARES, &labels, joules)
    };
    vec![
        Reading::new(&families::GPU_BUSY, &device, 0.37),
        Reading::new(&families::GPU_MEMORY_USED_BYTES, &device, 1 << 30),
        Reading::new(
            &families::GPU_PROCESS_BUSY,
            &labels(&["4711", "vllm", "llama", "llm", "vllm-0", "server"]),
            0.25,
        ),
        Reading::new(&families::GPU_ENERGY, &device, 12.5),
        energy("idle", 10.0),
        energy("unattributed", 2.5),
        Reading::new(&families::GPU_THROTTLED, &labels(&["power"]), 1.5),
    ]
}

/// Compares `text` with a golden file, without the agent's version, which changes with every release.
fn compare(name: &str, text: &str) {
    let text = text.replace(
        concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
        "{version=\"VERSION\"}",
    );
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/exposition");
    let path = Path::new(folder).join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(folder).expect("create the folder of the goldens");
        std::fs::write(&path, &text).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    if golden == text {
        return;
    }
    let first = golden
        .lines()
        .zip(text.lines())
        .find(|(old, new)| old != new);
    let (lines, golden_lines) = (text.lines().count(), golden.lines().count());
    panic!(
        "{} differs ({golden_lines} lines, now {lines}); first difference: {first:?}; if it is meant, run with \
         UPDATE_GOLDEN=1 and review the diff",
        path.display()
    );
}
