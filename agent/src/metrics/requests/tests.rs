use super::*;
use crate::{
    exchange::generation::Unknown,
    identity::{Hop, Replica, ShownLabels},
    metrics::encode::{Format, Selection},
    observation::{Stages, tokens::Time},
    protocol::{genai::Operation, generation::usage::Usage},
    torchserve::timing::{WorkEnd, WorkerTiming},
};

const KNOWN: Stages = Stages {
    queue_ns: Some(2_900_500),
    receive_ns: 100_000,
    handler_ns: Some(36_024_999),
    stream_ns: Some(0),
    unsplit_ns: None,
};

pub(super) fn observation(model: &str, status: u16) -> Observation {
    Observation {
        identity: Identity {
            model: model.into(),
            version: "default".into(),
            server: "torchserve".into(),
            replica: Replica::default(),
        },
        purpose: Purpose::Inference,
        model_source: ModelSource::Path,
        status,
        protocol: Protocol::Http,
        stages: KNOWN,
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

/// The samples of one family, without HELP and TYPE.
pub(super) fn lines(requests: &Requests, name: &str) -> Vec<String> {
    let mut samples = Samples::new(ShownLabels::ALL);
    requests.collect("vm", &mut samples);
    let text = samples.encode(&Selection::named([name]), Format::Text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

fn after(observations: &[Observation]) -> Requests {
    let mut requests = Requests::new();
    for observation in observations {
        requests.observe(observation);
    }
    requests
}

#[test]
fn every_response_counts_in_its_class_and_the_rest_is_5xx() {
    let admin = Observation {
        purpose: Purpose::Admin,
        ..observation("", 200)
    };
    let statuses = [200, 204, 404, 429, 302, 101, 503, 999];
    let mut given: Vec<_> = statuses.map(|status| observation("tiny", status)).into();
    given.push(admin);
    let requests = after(&given);
    for (name, count) in [
        ("Requests2XX", "3.0"),
        ("Requests4XX", "2.0"),
        ("Requests5XX", "4.0"),
    ] {
        let expected = format!("{name}{{Level=\"Host\",Hostname=\"vm\"}} {count}");
        assert_eq!(lines(&requests, name), [expected]);
    }
}

#[test]
fn sources_of_the_model_are_counted_by_server() {
    let guessed = Observation {
        model_source: ModelSource::CommandLine,
        ..observation("tiny", 200)
    };
    let other = observation("other", 500);
    let requests = after(&[guessed.clone(), other.clone(), other, guessed]);
    assert_eq!(
        lines(&requests, "inferprobe_model_source_total"),
        [
            r#"inferprobe_model_source_total{server="torchserve",source="path",port="",namespace="",pod="",container=""} 2"#,
            r#"inferprobe_model_source_total{server="torchserve",source="command_line",port="",namespace="",pod="",container=""} 2"#,
        ]
    );
}

#[test]
fn internal_requests_count_in_no_other_family() {
    let internal = Observation {
        purpose: Purpose::Internal,
        ..observation("tiny", 200)
    };
    let requests = after(&[internal.clone(), internal]);
    assert_eq!(
        lines(&requests, "inferprobe_inner_requests_total"),
        [
            r#"inferprobe_inner_requests_total{server="torchserve",port="",namespace="",pod="",container=""} 2"#
        ]
    );
    for name in [
        "inferprobe_requests_total",
        "Requests2XX",
        "inferprobe_admin_requests_total",
    ] {
        assert!(lines(&requests, name).is_empty(), "{name}");
    }
}

#[test]
fn request_that_was_sent_on_counts_once_in_torchserves_families() {
    let mut sent_on = observation("tiny", 200);
    sent_on.identity.server = "gateway".into();
    sent_on.hop.is_nearest = false;
    let mut nearest = observation("tiny", 200);
    nearest.hop.gateway = Some("gateway".into());
    let requests = after(&[sent_on, nearest]);
    assert_eq!(
        lines(&requests, "inferprobe_requests_total"),
        ["gateway", "torchserve"].map(|server| format!(
            r#"inferprobe_requests_total{{model="tiny",version="default",server="{server}",code="200",port="",namespace="",pod="",container=""}} 1"#
        ))
    );
    assert_eq!(
        lines(&requests, "inferprobe_gateway_requests_total"),
        [
            r#"inferprobe_gateway_requests_total{server="torchserve",gateway="gateway",port="",namespace="",pod="",container=""} 1"#
        ]
    );
    for (name, labels) in [
        (
            "ts_inference_requests_total",
            r#"model_name="tiny",model_version="default",hostname="vm""#,
        ),
        ("Requests2XX", r#"Level="Host",Hostname="vm""#),
    ] {
        let expected = format!("{name}{{{labels}}} 1.0");
        assert_eq!(lines(&requests, name), [expected]);
    }
}

#[test]
fn an_unknown_queue_counts_as_unknown_and_in_no_histogram() {
    let mut unqueued = observation("tiny", 200);
    unqueued.stages.queue_ns = None;
    unqueued.starved_ns = Some(1_000);
    let requests = after(&[observation("tiny", 200), unqueued]);
    let count_of = |name: &str| {
        let found = lines(&requests, name);
        let count = found.iter().find(|line| line.contains("_count")).cloned();
        count.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(count_of("inferprobe_request_queue_seconds"), "1");
    assert_eq!(count_of("inferprobe_request_handler_seconds"), "2");
    assert_eq!(count_of("inferprobe_request_duration_seconds"), "1");
    assert_eq!(
        lines(&requests, "inferprobe_request_stage_unknown_total"),
        [
            r#"inferprobe_request_stage_unknown_total{stage="handler"} 0"#,
            r#"inferprobe_request_stage_unknown_total{stage="inner_queue"} 0"#,
            r#"inferprobe_request_stage_unknown_total{stage="queue"} 1"#,
            r#"inferprobe_request_stage_unknown_total{stage="starved"} 1"#,
            r#"inferprobe_request_stage_unknown_total{stage="stream"} 0"#,
            r#"inferprobe_request_stage_unknown_total{stage="worker"} 0"#,
        ]
    );
    assert_eq!(
        lines(&requests, "ts_inference_latency_microseconds"),
        [
            r#"ts_inference_latency_microseconds{model_name="tiny",model_version="default",hostname="vm"} 39025.499"#
        ]
    );
    assert_eq!(
        lines(&requests, "QueueTime"),
        [r#"QueueTime{Level="Host",Hostname="vm"} 2.0"#]
    );
}

#[test]
fn the_inner_hop_has_histograms_of_its_own_and_counts_what_is_unknown() {
    let timing = WorkerTiming {
        internal_queue_ns: Some(5_000_000),
        worker_ns: None,
        starved_ns: None,
        latency_ns: 9,
        relay_ns: Some(7),
        end: WorkEnd::Predicted,
    };
    let with = |status, worker_side| Observation {
        worker_side,
        ..observation("tiny", status)
    };
    let requests = after(&[
        with(200, WorkerSide::Observed(timing)),
        with(200, WorkerSide::NotObserved),
        with(503, WorkerSide::NotObserved),
    ]);
    let sum = lines(&requests, "inferprobe_request_inner_queue_seconds");
    assert!(sum.iter().any(|line| line.ends_with("} 0.005")), "{sum:?}");
    assert!(lines(&requests, "inferprobe_request_worker_seconds").is_empty());
    let unknown = lines(&requests, "inferprobe_request_stage_unknown_total");
    for (stage, count) in [("inner_queue", 1), ("worker", 2)] {
        let expected =
            format!(r#"inferprobe_request_stage_unknown_total{{stage="{stage}"}} {count}"#);
        assert!(unknown.contains(&expected), "{unknown:?}");
    }
}

fn stream() -> Stream {
    Stream {
        first_byte_ns: Some(1_000_000),
        first_chunk_ns: Some(40_000_000),
        duration_ns: Some(100_000_000),
        chunks: Some(3),
        gaps_ns: vec![20_000_000, 40_000_000],
        gaps_unknown: 0,
        mean_gap_ns: Some(30_000_000),
        is_event_stream: true,
    }
}

fn tokens() -> Tokens {
    Tokens {
        usage: Usage {
            input: Some(7),
            output: Some(3),
        },
        usage_unknown: None,
        first: Time::Known(50_000_000),
        gap: Time::Known(30_000_000),
        is_one_value: false,
    }
}

fn sum_of(requests: &Requests, name: &str) -> Option<String> {
    let found = lines(requests, name);
    let sum = found.iter().find(|line| line.contains("_sum"))?;
    Some(sum.rsplit(' ').next().unwrap().to_owned())
}

#[test]
fn a_stream_adds_its_times_and_its_chunks() {
    let streamed = Observation {
        stream: Some(Box::new(stream())),
        ..observation("llm", 200)
    };
    let requests = after(&[streamed]);
    for (name, sum) in [
        ("inferprobe_stream_time_to_first_byte_seconds", "0.001"),
        ("inferprobe_stream_time_to_first_chunk_seconds", "0.04"),
        ("inferprobe_stream_chunk_gap_seconds", "0.06"),
        ("inferprobe_stream_duration_seconds", "0.1"),
        ("inferprobe_stream_chunks", "3.0"),
    ] {
        assert_eq!(sum_of(&requests, name).as_deref(), Some(sum), "{name}");
    }
    let name = "gen_ai_server_time_to_first_token_seconds";
    assert_eq!(sum_of(&requests, name), None);
}

#[test]
fn unknown_values_of_a_stream_are_counted_by_name() {
    let unknown = Stream {
        first_byte_ns: None,
        first_chunk_ns: None,
        duration_ns: None,
        chunks: None,
        gaps_unknown: 7,
        ..stream()
    };
    let with = |status| Observation {
        stream: Some(Box::new(unknown.clone())),
        ..observation("llm", status)
    };
    let requests = after(&[with(200), with(500)]);
    let unknown = lines(&requests, "inferprobe_stream_unknown_total");
    let counts = unknown.iter().map(|line| line.rsplit(' ').next().unwrap());
    assert_eq!(
        counts.collect::<Vec<_>>(),
        ["7", "1", "1", "0", "0", "1", "1", "0"]
    );
    let name = "inferprobe_stream_chunks";
    assert_eq!(sum_of(&requests, name), None);
}

#[test]
fn a_language_model_has_the_names_of_the_conventions() {
    let request = |status, stream| Observation {
        operation: Some(Operation::Chat),
        stream,
        tokens: Some(tokens()),
        ..observation("llm", status)
    };
    let unpieced = Stream {
        gaps_ns: Vec::new(),
        is_event_stream: false,
        ..stream()
    };
    let requests = after(&[
        request(200, Some(Box::new(stream()))),
        request(200, Some(Box::new(unpieced))),
        request(200, None),
        request(429, Some(Box::new(stream()))),
    ]);
    let common = r#"model="llm",version="default",server="torchserve",gen_ai_operation_name="chat",gen_ai_provider_name="torchserve",gen_ai_request_model="llm""#;
    let replica = r#"port="",namespace="",pod="",container="""#;
    for (family, expected) in [
        (
            "gen_ai_server_time_to_first_token_seconds",
            &[format!("{{{common},{replica}}} 1")][..],
        ),
        (
            "gen_ai_server_time_per_output_token_seconds",
            &[format!("{{{common},{replica}}} 1")],
        ),
        (
            "gen_ai_server_request_duration_seconds",
            &[
                format!(r#"{{{common},error_type="",{replica}}} 3"#),
                format!(r#"{{{common},error_type="429",{replica}}} 1"#),
            ],
        ),
    ] {
        let found = lines(&requests, family);
        let counts = found.iter().filter_map(|line| line.split_once("_count"));
        let counts: Vec<_> = counts.map(|(_, labels)| labels).collect();
        assert_eq!(counts, expected, "{family}");
    }
    let name = "gen_ai_server_time_per_output_token_seconds";
    assert_eq!(sum_of(&requests, name).as_deref(), Some("0.03"));
}

#[test]
fn stated_tokens_add_up_and_the_others_are_counted_by_reason() {
    let request = |status, operation, tokens| Observation {
        operation,
        stream: Some(Box::new(stream())),
        tokens: Some(tokens),
        ..observation("llm", status)
    };
    let unstated = Tokens {
        usage: Usage::default(),
        usage_unknown: Some(Unknown::NotStated),
        gap: Time::Unknown,
        ..tokens()
    };
    let one_value = Tokens {
        is_one_value: true,
        first: Time::Unknown,
        ..tokens()
    };
    let requests = after(&[
        request(200, Some(Operation::Chat), tokens()),
        request(200, None, tokens()),
        request(200, Some(Operation::Chat), unstated),
        request(200, Some(Operation::Chat), one_value),
        request(200, Some(Operation::Chat), Tokens::UNREAD),
        request(429, Some(Operation::Chat), tokens()),
    ]);
    let values = |name| {
        let found = lines(&requests, name);
        let found = found.iter().map(|line| {
            let (labels, value) = line.rsplit_once("} ").unwrap();
            let (labels, _) = labels.split_once(",port=").unwrap_or((labels, ""));
            let label = labels.rsplit('"').nth(1).unwrap();
            format!("{label} {value}")
        });
        found.collect::<Vec<_>>()
    };
    assert_eq!(values("inferprobe_tokens_total"), ["input 21", "output 9"]);
    let unknown = [
        "compressed 0",
        "not_copied 0",
        "not_stated 1",
        "unknown_form 1",
    ];
    assert_eq!(values("inferprobe_usage_unknown_total"), unknown);
    let unknown = values("inferprobe_stream_unknown_total");
    assert!(
        unknown.contains(&"time_to_first_token 1".to_owned()),
        "{unknown:?}"
    );
    assert!(
        unknown.contains(&"time_per_output_token 2".to_owned()),
        "{unknown:?}"
    );
    let name = "gen_ai_server_time_to_first_token_seconds";
    assert_eq!(sum_of(&requests, name).as_deref(), Some("0.1"));
}

#[test]
fn ten_thousand_models_keep_the_series_few_and_the_counts_whole() {
    let mut requests = Requests::new();
    for index in 0..10_000 {
        requests.observe(&observation(&format!("m{index}"), 200));
    }
    let counts = lines(&requests, "inferprobe_requests_total");
    assert_eq!(counts.len(), 201);
    let of_other = r#"model="other",version="other",server="torchserve",code="200",port="",namespace="",pod="",container=""} 9800"#;
    assert!(counts.iter().any(|line| line.ends_with(of_other)));
    let redirected = lines(&requests, "inferprobe_label_overflow_total");
    let expected = r#"inferprobe_label_overflow_total{label="model"} 9800"#;
    assert!(redirected.iter().any(|line| line == expected));
}

#[test]
fn codes_are_limited() {
    let mut requests = Requests::new();
    for status in (100..1000).chain([200]) {
        requests.observe(&observation("tiny", status));
    }
    let counts = lines(&requests, "inferprobe_requests_total");
    assert_eq!(counts.len(), MAX_CODES + 1);
    let of_other = r#"code="other",port="",namespace="",pod="",container=""} 869"#;
    assert!(counts[0].ends_with(of_other), "{}", counts[0]);
}

#[test]
fn a_hostile_model_name_is_escaped() {
    let requests = after(&[observation("a\"b\\c\nd", 200)]);
    let counts = lines(&requests, "inferprobe_requests_total");
    assert!(counts[0].contains(r#"model="a\"b\\c\nd""#), "{}", counts[0]);
}
