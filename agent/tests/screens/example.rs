//! An example of what an agent says: three models, one of them with a saturated reader, and one with a hostile name.

use inferprobe::{
    api::{
        Labels, Served, Source,
        history::{History, Window},
        live::{
            Cost, Coverage, Figures, Gpu, GpuProcess, Gpus, Host, Live, Loss, Model, ProbeState,
            Probes, Server, Tokens,
        },
        requests::{Request, Stream},
        stages::Stages,
        verdict::{Focus, Span, Verdict},
    },
    cli::View,
    screen::state::State,
};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
/// Now, on the records' clock.
const NOW_NS: u64 = 1_000 * S;

fn served(model: &str, server: &str) -> Served {
    Served {
        model: model.into(),
        version: "default".into(),
        server: server.into(),
    }
}

fn source() -> Source {
    Source {
        api_version: 1,
        agent_version: "0.1.0".into(),
        hostname: "gpu-07".into(),
        started_ns: 1,
        now_ns: NOW_NS,
        unix_ms: 1_700_000_000_000,
    }
}

/// Sums of `requests` requests that take these milliseconds each.
fn sums(requests: u64, [queue, receive, worker, handler, stream]: [u64; 5]) -> Stages {
    Stages {
        queue: requests * queue * MS / 10,
        receive: requests * receive * MS / 10,
        worker: requests * worker * MS / 10,
        handler: requests * handler * MS / 10,
        stream: requests * stream * MS / 10,
        ..Stages::default()
    }
}

fn span(requests: u64, sums_ns: Stages) -> Span {
    Span {
        span_ns: 30 * S,
        requests,
        complete: requests,
        mean_ns: Some(sums_ns.total_ns() / requests.max(1)),
        sums_ns,
        readers: Some(1),
        readers_busy: Some(0.96),
        ..Span::default()
    }
}

fn ranker() -> Model {
    Model {
        served: served("ranker", "uvicorn"),
        labels: Labels::new(["", "", "ranker-7c9", ""]),
        figures: Figures {
            requests: 1320,
            per_second: 44.0,
            p50_ns: Some(108 * MS),
            p99_ns: Some(131 * MS),
            in_flight: Some(5),
            ..Figures::default()
        },
        now: span(1320, sums(1320, [861, 1, 0, 219, 0])),
        before: Some(span(360, sums(360, [4, 1, 0, 217, 0]))),
        verdict: Verdict {
            cause: "readers_busy".into(),
            headline: "waits to be read: 1 reader, busy 96 %".into(),
            focus: Some(Focus {
                component: "queue".into(),
                noun: "wait to be read".into(),
                mean_ns: 86.1 * MS as f64,
                share: 0.797,
                before_ns: Some(0.4 * MS as f64),
            }),
            ruled_out: vec![
                "wait for accept (0.0 ms)".into(),
                "sending by the client (0.1 ms)".into(),
            ],
            advice: Some(
                "one more process or thread that reads requests: 2 would be busy 48 % each".into(),
            ),
            certainty: "1320 of 1320 requests have all times".into(),
            requests: 1320,
            complete: 1320,
            ..Verdict::default()
        },
    }
}

fn llama() -> Model {
    Model {
        served: served("llama-70b", "vllm"),
        figures: Figures {
            requests: 372,
            per_second: 12.4,
            server_errors: 8,
            client_errors: 1,
            p50_ns: Some(812 * MS),
            p99_ns: Some(4100 * MS),
            tokens: Some(Tokens {
                output_per_second: 1234.0,
                ..Tokens::default()
            }),
            ..Figures::default()
        },
        now: span(372, sums(372, [100, 20, 0, 1800, 6200])),
        verdict: Verdict {
            cause: "produces_slowly".into(),
            headline: "fails: 503 (8 of 372); produces slowly".into(),
            fails: vec![inferprobe::api::verdict::Failure {
                status: 503,
                requests: 8,
            }],
            certainty: "372 of 372 requests have all times".into(),
            ..Verdict::default()
        },
        ..Model::default()
    }
}

fn hostile() -> Model {
    Model {
        served: served("<img onerror=x>\u{1b}[2J\u{202e}模型", "torchserve"),
        figures: Figures {
            requests: 1,
            ..Figures::default()
        },
        now: span(1, sums(1, [0, 0, 400, 100, 3])),
        verdict: Verdict {
            cause: "fine".into(),
            headline: "nothing stands out".into(),
            ..Verdict::default()
        },
        ..Model::default()
    }
}

fn live() -> Live {
    Live {
        source: source(),
        span_ms: 30_000,
        probes: Probes {
            state: ProbeState::Attached,
            reason: None,
        },
        totals: Figures {
            requests: 1693,
            per_second: 56.4,
            server_errors: 8,
            client_errors: 1,
            p99_ns: Some(3900 * MS),
            ..Figures::default()
        },
        coverage: Coverage {
            ratio: Some(1.0),
            ..Coverage::default()
        },
        cost: Cost {
            cpus: Some(0.004),
            cpu_seconds: Some(2.0),
            memory_bytes: Some(18 << 20),
        },
        models: vec![ranker(), llama(), hostile()],
        servers: vec![Server::default(), Server::default(), Server::default()],
        host: Host {
            cpu_ratio: Some(0.31),
            memory_ratio: Some(0.4),
            ..Host::default()
        },
        gpus: Gpus {
            readable: true,
            devices: vec![Gpu {
                device: "0".into(),
                busy_ratio: Some(0.93),
                memory_used_bytes: Some(62 << 30),
                memory_total_bytes: Some(80 << 30),
                power_watts: Some(512.0),
                power_limit_watts: Some(700.0),
                temperature_celsius: Some(71.0),
                throttled_by: vec!["sw_power_cap".into()],
                processes: vec![
                    GpuProcess {
                        pid: 99,
                        memory_bytes: Some(1 << 30),
                        ..GpuProcess::default()
                    },
                    GpuProcess {
                        pid: 4211,
                        server: "vllm".into(),
                        model: "llama-70b".into(),
                        busy_ratio: Some(0.9),
                        memory_bytes: Some(61 << 30),
                    },
                ],
                ..Gpu::default()
            }],
        },
        ..Live::default()
    }
}

fn requests() -> Vec<Request> {
    let request = |number: u64, served: Served, status, stages: Option<Stages>| {
        let arrival_ns = NOW_NS - (60 - number) * S / 2;
        let duration_ns = stages.map(|stages| stages.total_ns());
        Request {
            number,
            served,
            status,
            arrival_ns: stages.is_some().then_some(arrival_ns),
            first_read_ns: arrival_ns,
            last_read_ns: arrival_ns,
            last_write_ns: Some(arrival_ns + duration_ns.unwrap_or(30 * MS)),
            stages_ns: stages,
            because: number.is_multiple_of(7).then(|| "inner_queue".into()),
            stream: number.is_multiple_of(3).then(|| Stream {
                first_chunk_ns: Some(180 * MS),
                ..Stream::default()
            }),
            request_bytes: 512,
            response_bytes: 20_000,
            pid: 4211,
            ..Request::default()
        }
    };
    let made = (1..50).map(|number| match number % 3 {
        0 => request(
            number,
            served("llama-70b", "vllm"),
            200,
            Some(sums(number, [1, 1, 0, 40, 140])),
        ),
        1 => request(
            number,
            served("ranker", "uvicorn"),
            200,
            Some(sums(1, [861, 1, 0, 219, 0])),
        ),
        _ if number % 4 == 0 => request(number, served("\u{9b}31m", "torchserve"), 503, None),
        _ => request(
            number,
            served("resnet", "torchserve"),
            200,
            Some(sums(1, [10, 1, 300, 90, 2])),
        ),
    });
    made.collect()
}

fn history() -> History {
    let newest = NOW_NS / 5 / S;
    let window = |index: u64| Window {
        index,
        durations: (0..=index % 7)
            .map(|step| (56 + 4 * step as u8, 1 + 9 * step))
            .collect(),
        ..Window::default()
    };
    History {
        source: source(),
        window_ms: 5000,
        windows: (newest - 50..=newest).map(window).collect(),
        ..History::default()
    }
}

/// A screen in use.
pub(crate) fn state() -> State {
    State {
        target: "http://127.0.0.1:8082".into(),
        live: Some(live()),
        requests: requests().into(),
        history: Some(history()),
        ..State::default()
    }
}

/// An agent that loses bytes and does not answer any more.
pub(crate) fn trouble() -> State {
    let mut state = state();
    state.fault = Some("http://127.0.0.1:8082: cannot connect: Connection refused (os error 111); start the agent there (systemctl start inferprobe)".into());
    if let Some(live) = &mut state.live {
        live.coverage.ratio = Some(0.931);
        live.losses = vec![Loss {
            metric: "inferprobe_records_lost_total".into(),
            server: None,
            reason: "ring_full".into(),
            count: 1204,
        }];
        live.probes = Probes {
            state: ProbeState::Failed,
            reason: Some("the event loop stopped".into()),
        };
    }
    state
}

/// The same with a second replica of one model, which is not slow.
pub(crate) fn replicas(view: View) -> State {
    let mut state = State { view, ..state() };
    let pods = ["ranker-7c9", "ranker-x2k"].map(|pod| Labels::new(["8000", "shop", pod, "server"]));
    let other = Model {
        figures: Figures {
            requests: 300,
            per_second: 10.0,
            p50_ns: Some(22 * MS),
            p99_ns: Some(30 * MS),
            ..Figures::default()
        },
        now: span(300, sums(300, [1, 1, 0, 219, 0])),
        verdict: Verdict {
            cause: "fine".into(),
            headline: "nothing stands out".into(),
            ..Verdict::default()
        },
        ..ranker()
    };
    if let Some(live) = &mut state.live {
        live.models.push(other);
        let replicas = live
            .models
            .iter_mut()
            .filter(|one| one.served.model == "ranker");
        for (model, pod) in replicas.zip(&pods) {
            model.labels = pod.clone();
        }
    }
    let requests = state.requests.iter_mut();
    for request in requests.filter(|one| one.served.model == "ranker") {
        request.labels = pods[request.number as usize % 2].clone();
    }
    state
}
