//! Says a verdict in words: what stands out, what that means, what was ruled out, what to try, and how sure it is.
//!
//! Does not depend on: how the verdict was reached.

use std::fmt::Write as _;

use crate::verdict::{
    component::Component,
    judge::{CPU_LIMIT, Cause, Verdict},
    window::Window,
};

/// A component with a smaller share of the duration is ruled out.
const RULED_OUT: f64 = 0.1;

/// Returns the verdict as one phrase.
pub fn headline(verdict: &Verdict) -> String {
    let mut text = String::new();
    if !verdict.fails.is_empty() {
        text.push_str("fails: ");
        for (at, (status, requests)) in verdict.fails.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{status} ({requests} of {})", verdict.requests);
        }
        if matches!(verdict.cause, Cause::Fine) {
            return text;
        }
        text.push_str("; ");
    }
    text.push_str(&cause(&verdict.cause, verdict));
    text
}

fn cause(cause: &Cause, verdict: &Verdict) -> String {
    match cause {
        Cause::Idle => "no request in this window".into(),
        Cause::Fine => "nothing stands out".into(),
        Cause::WaitsToBeAccepted => "waits to be accepted".into(),
        Cause::WaitsToBeRead { readers, busy } => {
            format!(
                "waits to be read: {}, busy {}",
                count(*readers, "reader"),
                percent(*busy)
            )
        }
        Cause::SlowToRead { or_accept: false } => "server is slow to read".into(),
        Cause::SlowToRead { or_accept: true } => "server is slow to accept or read".into(),
        Cause::SlowSender => "client is slow to send".into(),
        Cause::CpuTaken => "CPU taken by other processes".into(),
        Cause::CpuOwn { share } => format!(
            "more busy threads than CPUs: the server itself takes {} of their time",
            percent(*share)
        ),
        Cause::CpuLimit => "CPU limit of its cgroup".into(),
        Cause::WorkersBusy { workers: 1 } => "its one worker is busy".into(),
        Cause::WorkersBusy { workers } => format!("all {workers} workers busy"),
        Cause::InnerQueue { workers, busy } => format!(
            "waits inside the server: {}, busy {}",
            count(*workers, "worker"),
            percent(*busy)
        ),
        Cause::GpuShared { pid, others } => {
            let whom = pid.map_or_else(|| "other processes".into(), |pid| format!("pid {pid}"));
            format!("GPU shared with {whom}: others use {}", percent(*others))
        }
        Cause::GpuThrottled => "GPU throttled".into(),
        Cause::KvCacheFull { preemptions: None } => "KV cache full, as the server says".into(),
        Cause::KvCacheFull {
            preemptions: Some(number),
        } => format!("KV cache full, {number} preemptions, as the server says"),
        Cause::EngineQueue { waiting, running } => {
            let running = running.map_or_else(String::new, |running| format!(", {running:.0} run"));
            format!("waits inside the engine: {waiting:.0} wait{running}, as the server says")
        }
        Cause::ServerWork => "the server works longer than before".into(),
        Cause::ProducesSlowly => "produces slowly".into(),
        Cause::SlowReceiver => "client is slow to receive".into(),
        Cause::CannotSay { lacks, requests } => match requests {
            Some(requests) => {
                format!(
                    "cannot say: {requests} of {} requests lack {lacks}",
                    verdict.requests
                )
            }
            None => format!("cannot say: {lacks} is unknown"),
        },
    }
}

/// Returns what to try next; `None` if the evidence suggests nothing.
pub fn advice(verdict: &Verdict) -> Option<String> {
    Some(match &verdict.cause {
        Cause::WaitsToBeRead { readers, busy } => {
            let more = readers + 1;
            let busy = busy * f64::from(*readers) / f64::from(more);
            format!(
                "one more process or thread that reads requests: {more} would be busy {} each",
                percent(busy)
            )
        }
        Cause::WaitsToBeAccepted => {
            "more threads that accept, or connections that are kept open".into()
        }
        Cause::SlowToRead { .. } => {
            "look for calls that block the event loop, and for long garbage collections".into()
        }
        Cause::SlowSender | Cause::SlowReceiver => {
            "look at the client and the network between".into()
        }
        Cause::CpuTaken => {
            "fewer other processes on this host, or CPUs reserved for the server".into()
        }
        Cause::CpuOwn { .. } => "more CPUs, or fewer threads that compute at once".into(),
        Cause::CpuLimit => "a higher CPU limit".into(),
        Cause::WorkersBusy { workers } => format!("more than {}", count(*workers, "worker")),
        Cause::InnerQueue { .. } => "a shorter batch delay".into(),
        Cause::GpuShared { .. } => "move one of the processes to another GPU".into(),
        Cause::GpuThrottled => "look at power limit and temperature of the GPU".into(),
        Cause::KvCacheFull { .. } => {
            "more memory for the KV cache, shorter contexts, or fewer requests at once".into()
        }
        Cause::EngineQueue { .. } => {
            "another replica, or more requests at once if its KV cache has room".into()
        }
        Cause::CannotSay {
            lacks: CPU_LIMIT, ..
        } => "mount /sys/fs/cgroup where the agent runs".into(),
        Cause::Idle
        | Cause::Fine
        | Cause::ServerWork
        | Cause::ProducesSlowly
        | Cause::CannotSay { .. } => return None,
    })
}

/// Returns the components that a verdict rules out, each with its mean.
pub fn ruled_out(verdict: &Verdict, now: &Window) -> Vec<String> {
    let Some(focus) = verdict.focus else {
        return Vec::new();
    };
    let total_ns = now.sums.total_ns() as f64;
    let others = Component::ALL.into_iter().filter(|component| {
        let share = now.sums[*component] as f64 / total_ns;
        *component != focus.component && share < RULED_OUT
    });
    // A part of the handler's time that is unknown reads as 0: it is not ruled out by that.
    let is_known = |component: &Component| match component {
        Component::Starved => now.starved_known == now.complete,
        Component::Accept => now.accept_unknown == 0,
        Component::InnerQueue | Component::Worker => now.sums[*component] > 0,
        _ => true,
    };
    others
        .filter(is_known)
        .map(|component| {
            let mean_ms = now.sums[component] as f64 / now.complete as f64 / 1e6;
            format!("{} ({mean_ms:.1} ms)", noun(component))
        })
        .collect()
}

/// Returns what the server says of itself, and whether the kernel shows the same; `None` if it was not asked.
pub fn own_word(verdict: &Verdict) -> Option<String> {
    let engine = verdict.engine?;
    let figures = [
        engine.running.map(|number| format!("{number:.1} run")),
        engine.waiting.map(|number| format!("{number:.1} wait")),
        engine
            .kv_cache
            .map(|share| format!("KV cache {}", percent(share))),
        engine
            .preemptions
            .map(|number| format!("{number} preemptions")),
    ];
    let figures: Vec<String> = figures.into_iter().flatten().collect();
    let mut text = figures.join(", ");
    if let Some(in_flight) = engine.in_flight {
        let _ = write!(text, "; the kernel shows {in_flight:.1} requests in flight");
    }
    if engine.differs() {
        text.push_str(": these differ, so the server's word is not used");
    }
    Some(text)
}

/// Returns how many requests the verdict rests on.
pub fn certainty(verdict: &Verdict) -> String {
    format!(
        "{} of {} requests have all times",
        verdict.complete, verdict.requests
    )
}

/// Returns what a component means, as a noun.
pub const fn noun(component: Component) -> &'static str {
    match component {
        Component::Accept => "wait for accept",
        Component::Queue => "wait to be read",
        Component::Receive => "sending by the client",
        Component::Starved => "wait for a CPU",
        Component::InnerQueue => "wait for a worker",
        Component::Worker => "worker",
        Component::Rest => "server's own work",
        Component::Stream => "sending of the response",
    }
}

fn count(number: u32, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use crate::verdict::{component::Parts, evidence::Engine};

    use super::*;

    fn verdict(cause: Cause, fails: Vec<(u16, u64)>) -> Verdict {
        Verdict {
            cause,
            focus: None,
            fails,
            requests: 200,
            complete: 198,
            engine: None,
        }
    }

    #[test]
    fn headline_names_cause_and_figures() {
        let readers = Cause::WaitsToBeRead {
            readers: 1,
            busy: 0.978,
        };
        let hidden = Cause::CannotSay {
            lacks: "queue time",
            requests: Some(40),
        };
        for (cause, fails, expected) in [
            (
                readers.clone(),
                vec![],
                "waits to be read: 1 reader, busy 98 %",
            ),
            (
                Cause::WorkersBusy { workers: 4 },
                vec![],
                "all 4 workers busy",
            ),
            (
                hidden,
                vec![],
                "cannot say: 40 of 200 requests lack queue time",
            ),
            (
                Cause::Fine,
                vec![(503, 3), (500, 1)],
                "fails: 503 (3 of 200), 500 (1 of 200)",
            ),
            (
                readers,
                vec![(503, 3)],
                "fails: 503 (3 of 200); waits to be read: 1 reader, busy 98 %",
            ),
            (
                Cause::GpuShared {
                    pid: Some(7),
                    others: 0.4,
                },
                vec![],
                "GPU shared with pid 7: others use 40 %",
            ),
        ] {
            assert_eq!(headline(&verdict(cause, fails)), expected);
        }
    }

    #[test]
    fn own_word_of_the_server_is_beside_what_the_kernel_shows() {
        let engine = Engine {
            readings: 4,
            running: Some(8.0),
            waiting: Some(3.5),
            kv_cache: Some(0.991),
            preemptions: Some(2),
            in_flight: Some(11.5),
            differing: 0,
        };
        let full = Cause::KvCacheFull {
            preemptions: Some(2),
        };
        let mut verdict = verdict(full, vec![]);
        assert_eq!(own_word(&verdict), None);
        verdict.engine = Some(engine);
        assert_eq!(
            headline(&verdict),
            "KV cache full, 2 preemptions, as the server says"
        );
        let word = "8.0 run, 3.5 wait, KV cache 99 %, 2 preemptions; \
                    the kernel shows 11.5 requests in flight";
        assert_eq!(own_word(&verdict).as_deref(), Some(word));
        verdict.engine = Some(Engine {
            differing: 4,
            ..engine
        });
        let word = format!("{word}: these differ, so the server's word is not used");
        assert_eq!(own_word(&verdict), Some(word));
    }

    #[test]
    fn advice_computes_the_load_of_one_more_reader() {
        let busy = verdict(
            Cause::WaitsToBeRead {
                readers: 1,
                busy: 0.96,
            },
            vec![],
        );
        assert_eq!(
            advice(&busy).as_deref(),
            Some("one more process or thread that reads requests: 2 would be busy 48 % each")
        );
        assert_eq!(advice(&verdict(Cause::Fine, vec![])), None);
    }

    #[test]
    fn unknown_parts_are_not_ruled_out() {
        let mut window = Window::default();
        let parts = Parts {
            queue_ns: Some(90_000_000),
            receive_ns: Some(100_000),
            handler_ns: Some(20_000_000),
            stream_ns: Some(0),
            ..Parts::default()
        };
        window.add(&parts, &parts.components(), 200, false);
        let (evidence, before) = (Default::default(), None);
        let verdict = crate::verdict::judge::judge((&window, &evidence), before);
        let ruled_out = ruled_out(&verdict, &window);
        assert_eq!(
            ruled_out,
            [
                "wait for accept (0.0 ms)",
                "sending by the client (0.1 ms)",
                "sending of the response (0.0 ms)"
            ]
        );
    }
}
