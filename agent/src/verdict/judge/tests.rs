use proptest::prelude::*;

use super::*;
use crate::verdict::{
    component::Parts,
    evidence::{Engine, Lacking, Readers, Workers},
};

const MS: u64 = 1_000_000;
const SPAN_NS: u64 = 10_000 * MS;

/// A quick request of which everything is known.
fn quick() -> Parts {
    Parts {
        queue_ns: Some(MS / 10),
        accept_ns: Some(0),
        receive_ns: Some(MS / 10),
        sending_ns: Some(0),
        handler_ns: Some(20 * MS),
        starved_ns: Some(0),
        stream_ns: Some(MS / 10),
        undrained_ns: Some(0),
        ..Parts::default()
    }
}

fn window_of(parts: &Parts, requests: u64) -> Window {
    let mut window = Window::new(SPAN_NS);
    for _ in 0..requests {
        window.add(parts, &parts.components(), 200, false);
    }
    window
}

fn evidence() -> Evidence {
    Evidence {
        readers: Some(Readers {
            threads: 1,
            busy: Some(0.4),
        }),
        workers: None,
        by_limit: Some(0.0),
        own_cpu: Some(0.1),
        ..Evidence::default()
    }
}

fn busy_readers() -> Evidence {
    let readers = Readers {
        threads: 1,
        busy: Some(0.97),
    };
    Evidence {
        readers: Some(readers),
        ..evidence()
    }
}

fn workers(busy: f64) -> Evidence {
    let workers = Workers { processes: 2, busy };
    Evidence {
        workers: Some(workers),
        ..evidence()
    }
}

fn gpu(others: f64, throttled: f64) -> Evidence {
    let gpu = Gpu {
        others: Some(others),
        most_others: Some(others),
        other_pid: Some(7),
        throttled: Some(throttled),
    };
    Evidence {
        gpu: Some(gpu),
        ..evidence()
    }
}

fn own_cpu(share: f64) -> Evidence {
    Evidence {
        own_cpu: Some(share),
        ..evidence()
    }
}

fn limited() -> Evidence {
    Evidence {
        by_limit: Some(0.7),
        ..evidence()
    }
}

/// An engine that works on 8 requests.
fn engine(waiting: f64, kv_cache: f64, preemptions: u64, differing: u32) -> Evidence {
    let engine = Engine {
        readings: 6,
        running: Some(8.0),
        waiting: Some(waiting),
        kv_cache: Some(kv_cache),
        preemptions: Some(preemptions),
        in_flight: Some(8.0 + waiting),
        differing,
    };
    Evidence {
        engine: Some(engine),
        ..evidence()
    }
}

fn cause(parts: &Parts, now: &Evidence, before: &Evidence) -> Cause {
    let usual = window_of(&quick(), 100);
    judge((&window_of(parts, 100), now), Some((&usual, before))).cause
}

/// A slow request, its evidence, that of the window before, and the cause.
fn scenarios() -> Vec<(Parts, Evidence, Evidence, Cause)> {
    let (base, long) = (quick(), Some(90 * MS));
    let most = Some(85 * MS);
    let with = |parts, now, cause| (parts, now, evidence(), cause);
    let readers_busy = Cause::WaitsToBeRead {
        readers: 1,
        busy: 0.97,
    };
    let slow_to_read = Cause::SlowToRead { or_accept: false };
    let unknown = |lacks| Cause::CannotSay {
        lacks,
        requests: None,
    };
    let at_times = Evidence {
        gpu: gpu(0.1, 0.0).gpu.map(|gpu| Gpu {
            most_others: Some(0.6),
            ..gpu
        }),
        ..evidence()
    };
    let hidden_gpu = Evidence {
        gpu: gpu(0.0, 0.0).gpu.map(|gpu| Gpu {
            others: None,
            most_others: None,
            ..gpu
        }),
        ..evidence()
    };
    let inner_queue = Parts {
        handler_ns: long,
        inner_queue_ns: Some(60 * MS),
        worker_ns: Some(20 * MS),
        worker_starved_ns: Some(0),
        ..base
    };
    let slow_work = Parts {
        handler_ns: long,
        ..base
    };
    let slow_stream = Parts {
        stream_ns: long,
        ..base
    };
    let starved = Parts {
        handler_ns: long,
        starved_ns: Some(70 * MS),
        ..base
    };
    let shared = Cause::GpuShared {
        pid: Some(7),
        others: 0.6,
    };
    let idle_workers = Cause::InnerQueue {
        workers: 2,
        busy: 0.1,
    };
    vec![
        with(base, evidence(), Cause::Fine),
        with(
            Parts {
                queue_ns: long,
                ..base
            },
            busy_readers(),
            readers_busy,
        ),
        with(
            Parts {
                queue_ns: long,
                ..base
            },
            evidence(),
            slow_to_read.clone(),
        ),
        with(
            Parts {
                queue_ns: long,
                accept_ns: most,
                ..base
            },
            evidence(),
            Cause::WaitsToBeAccepted,
        ),
        with(
            Parts {
                receive_ns: long,
                sending_ns: most,
                ..base
            },
            evidence(),
            Cause::SlowSender,
        ),
        with(
            Parts {
                receive_ns: long,
                ..base
            },
            evidence(),
            slow_to_read,
        ),
        with(
            Parts {
                stream_ns: long,
                undrained_ns: most,
                ..base
            },
            evidence(),
            Cause::SlowReceiver,
        ),
        with(
            Parts {
                stream_ns: long,
                ..base
            },
            evidence(),
            Cause::ProducesSlowly,
        ),
        with(starved, evidence(), Cause::CpuTaken),
        with(starved, own_cpu(0.8), Cause::CpuOwn { share: 0.8 }),
        with(starved, limited(), Cause::CpuLimit),
        with(inner_queue, workers(1.0), Cause::WorkersBusy { workers: 2 }),
        with(inner_queue, workers(0.1), idle_workers),
        with(slow_work, evidence(), Cause::ServerWork),
        (slow_work, gpu(0.6, 0.0), gpu(0.0, 0.0), shared),
        (slow_work, gpu(0.0, 0.5), gpu(0.0, 0.0), Cause::GpuThrottled),
        (slow_work, gpu(0.6, 0.0), gpu(0.6, 0.0), Cause::ServerWork),
        (
            slow_work,
            evidence(),
            gpu(0.0, 0.0),
            unknown("use of its GPU"),
        ),
        (
            slow_work,
            at_times,
            gpu(0.0, 0.0),
            unknown("how long others used its GPU"),
        ),
        (
            slow_work,
            gpu(0.0, 0.01),
            gpu(0.0, 0.0),
            unknown("how long its GPU was throttled"),
        ),
        (slow_work, gpu(0.0, 0.34), gpu(0.0, 0.31), Cause::ServerWork),
        (
            slow_work,
            gpu(0.6, 0.0),
            evidence(),
            unknown("earlier use of its GPU by others"),
        ),
        (
            slow_work,
            hidden_gpu,
            gpu(0.0, 0.0),
            unknown("use of its GPU by others"),
        ),
        (
            slow_stream,
            at_times,
            gpu(0.0, 0.0),
            unknown("how long others used its GPU"),
        ),
        with(
            slow_work,
            engine(20.0, 0.99, 0, 0),
            Cause::KvCacheFull {
                preemptions: Some(0),
            },
        ),
        with(
            slow_stream,
            engine(0.0, 0.9, 14, 0),
            Cause::KvCacheFull {
                preemptions: Some(14),
            },
        ),
        with(
            slow_work,
            engine(20.0, 0.3, 0, 1),
            Cause::EngineQueue {
                waiting: 20.0,
                running: Some(8.0),
            },
        ),
        with(slow_work, engine(0.1, 0.3, 0, 0), Cause::ServerWork),
        with(slow_work, engine(20.0, 0.99, 9, 5), Cause::ServerWork),
    ]
}

#[test]
fn each_cause_is_found() {
    for (parts, now, before, expected) in scenarios() {
        assert_eq!(cause(&parts, &now, &before), expected, "{parts:?} {now:?}");
    }
}

#[test]
fn readers_that_get_no_cpu_are_not_too_few() {
    let starved = Parts {
        queue_ns: Some(90 * MS),
        starved_ns: Some(15 * MS),
        ..quick()
    };
    assert_eq!(
        cause(&starved, &busy_readers(), &evidence()),
        Cause::CpuTaken
    );
}

#[test]
fn waits_stand_out_without_a_window_before() {
    let waiting = Parts {
        queue_ns: Some(90 * MS),
        ..quick()
    };
    let verdict = judge((&window_of(&waiting, 3), &busy_readers()), None);
    assert_eq!(verdict.cause.name(), "readers_busy");
    let focus = verdict.focus.unwrap();
    assert_eq!((focus.component, focus.before_ns), (Component::Queue, None));
    assert!((0.8..0.82).contains(&focus.share), "{}", focus.share);
    // A long handler is no fault unless it grew.
    let verdict = judge((&window_of(&quick(), 3), &evidence()), None);
    assert_eq!((verdict.cause, verdict.focus), (Cause::Fine, None));
}

#[test]
fn growth_precedes_the_largest_share() {
    let streaming = Parts {
        stream_ns: Some(200 * MS),
        ..quick()
    };
    let waiting = Parts {
        queue_ns: Some(150 * MS),
        ..streaming
    };
    let (now, before) = (window_of(&waiting, 50), window_of(&streaming, 50));
    let evidence = busy_readers();
    let verdict = judge((&now, &evidence), Some((&before, &evidence)));
    let focus = verdict.focus.unwrap();
    assert_eq!(focus.component, Component::Queue);
    assert_eq!(focus.before_ns, Some(1e5));
}

#[test]
fn waits_too_short_to_notice_are_fine() {
    let fast = Parts {
        queue_ns: Some(MS / 2),
        handler_ns: Some(MS / 5),
        ..quick()
    };
    let verdict = judge((&window_of(&fast, 100), &busy_readers()), None);
    assert_eq!(verdict.cause, Cause::Fine);
}

#[test]
fn missing_evidence_is_named() {
    let (base, long) = (quick(), Some(90 * MS));
    let unknown = Evidence::default();
    for (parts, lacks, requests) in [
        (
            Parts {
                queue_ns: long,
                ..base
            },
            "number of readers",
            None,
        ),
        (
            Parts {
                receive_ns: long,
                sending_ns: None,
                ..base
            },
            "arrival of the last byte",
            Some(100),
        ),
        (
            Parts {
                stream_ns: long,
                undrained_ns: None,
                ..base
            },
            "time in which the client had bytes to receive",
            Some(100),
        ),
        (
            Parts {
                handler_ns: long,
                starved_ns: None,
                ..base
            },
            "starved time",
            Some(100),
        ),
        (
            Parts {
                handler_ns: long,
                starved_ns: Some(80 * MS),
                ..base
            },
            "CPU limit of its control group",
            None,
        ),
        (
            Parts {
                handler_ns: long,
                inner_queue_ns: Some(80 * MS),
                ..base
            },
            "busy share of the workers",
            None,
        ),
    ] {
        let expected = Cause::CannotSay { lacks, requests };
        assert_eq!(cause(&parts, &unknown, &unknown), expected);
    }
}

#[test]
fn requests_whose_time_no_reading_tells_of_are_counted() {
    let lacking = Evidence {
        lacking: Lacking {
            limit: Some(12),
            own_cpu: Some(13),
            gpu: Some(34),
        },
        ..Evidence::default()
    };
    let starved = Parts {
        handler_ns: Some(90 * MS),
        starved_ns: Some(80 * MS),
        ..quick()
    };
    let slow_work = Parts {
        starved_ns: Some(0),
        ..starved
    };
    for (parts, lacks, requests) in [
        (starved, "CPU limit of its control group", 12),
        (slow_work, "use of its GPU", 34),
    ] {
        let expected = Cause::CannotSay {
            lacks,
            requests: Some(requests),
        };
        assert_eq!(cause(&parts, &lacking, &gpu(0.0, 0.0)), expected);
    }
}

#[test]
fn requests_without_a_stage_hide_the_cause() {
    let mut window = window_of(&quick(), 88);
    for _ in 0..12 {
        let parts = Parts {
            queue_ns: None,
            ..quick()
        };
        window.add(&parts, &parts.components(), 200, false);
    }
    let verdict = judge((&window, &evidence()), None);
    let expected = Cause::CannotSay {
        lacks: "queue time",
        requests: Some(12),
    };
    assert_eq!((verdict.cause, verdict.complete), (expected, 88));
}

#[test]
fn failures_are_named_beside_the_cause() {
    let mut window = window_of(&quick(), 98);
    let parts = quick();
    window.add(&parts, &parts.components(), 503, false);
    let parts = quick();
    window.add(&parts, &parts.components(), 400, false);
    let verdict = judge((&window, &evidence()), None);
    assert_eq!(
        (verdict.fails, verdict.cause),
        (vec![(503, 1)], Cause::Fine)
    );
    assert_eq!(
        judge((&window_of(&quick(), 5), &evidence()), None).fails,
        []
    );
    let idle = judge((&Window::default(), &evidence()), None);
    assert_eq!((idle.cause, idle.fails), (Cause::Idle, vec![]));
}

proptest! {
    /// Whatever else is mixed in, a verdict is the planted cause, nothing, or that it cannot say.
    #[test]
    fn mixes_never_yield_a_wrong_cause(
        scenario in 0..scenarios().len(),
        slow in 1..200_u64,
        usual in 0..200_u64,
        hidden in 0..7_u8,
        has_before in any::<bool>(),
    ) {
        let (mut parts, mut now, before, planted) = scenarios().swap_remove(scenario);
        match hidden {
            0 => now.readers = None,
            1 => now.by_limit = None,
            2 => parts.starved_ns = None,
            3 => parts.undrained_ns = None,
            4 => parts.sending_ns = None,
            5 => now.own_cpu = None,
            _ => {}
        }
        let mut window = window_of(&parts, slow);
        for _ in 0..usual {
            let parts = quick();
        window.add(&parts, &parts.components(), 200, false);
        }
        let usual = window_of(&quick(), 100);
        let verdict = judge((&window, &now), has_before.then_some((&usual, &before)));
        let is_allowed = verdict.cause == planted
            || matches!(verdict.cause, Cause::Fine | Cause::CannotSay { .. });
        // Without the wait for a CPU, a longer handler is the server's.
        prop_assert!(is_allowed, "{:?} instead of {planted:?}", verdict.cause);
    }
}
