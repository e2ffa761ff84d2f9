//! What is missing from the metrics where a hook is on nothing.
//!
//! Does not know how hooks are attached.

use crate::{
    bpf::{
        attach::NOT_PERMITTED,
        attach_mode::{AttachMode, HookReport, ProgramType},
    },
    doctor::finding::{Finding, OLDER_LISTENERS, Severity, remedy},
    metrics::families,
};

/// A loss for each hook that is on nothing; `rung` is the one kind that they were held to.
pub(crate) fn findings(hooks: &[HookReport], rung: Option<AttachMode>) -> Vec<Finding> {
    let lost = hooks.iter().filter(|report| report.kind.is_none());
    lost.map(|report| {
        let (what, since) = told_by(report.hook);
        Finding {
            severity: Severity::Some,
            what,
            why: format!("hook {} is on nothing", report.hook),
            remedy: remedy(rung, || match since {
                Some(since) if is_forbidden(report) => {
                    format!("run as root, which kprobes take, or on {since} or later")
                }
                Some(since) => format!("run on {since} or later"),
                None => "run on a newer kernel".into(),
            }),
        }
    })
    .collect()
}

/// Whether a kprobe, which this kernel has, was refused for want of permission.
fn is_forbidden(report: &HookReport) -> bool {
    let kprobes = report
        .refused
        .iter()
        .filter(|refused| refused.kind == ProgramType::Kprobe);
    kprobes.map(|refused| &refused.reason).any(|reason| {
        reason == NOT_PERMITTED || reason.contains("run as root") || reason.contains("cannot write")
    })
}

/// What a hook tells, in terms of the metrics, and the first kernel that is sure to have it.
fn told_by(hook: &str) -> (String, Option<&'static str>) {
    match hook {
        "readable" => (from_arrival(), Some("Linux 6.3")),
        "recv" | "send" => ("every figure of requests".into(), Some("Linux 6.3")),
        "send_start" => (
            format!(
                "{}, {} of TCP answers whose first send is longer than 64 KiB; of others they include that send",
                families::REQUEST_HANDLER.name,
                families::HANDLER_TIME.name,
            ),
            Some("Linux 6.16"),
        ),
        "sendfile" => (
            format!(
                "bytes that servers send with sendfile: {} and {} end before them",
                families::REQUEST_DURATION.name,
                families::STREAM_DURATION.name,
            ),
            Some("Linux 6.5"),
        ),
        "state" => (
            format!(
                "when connections close ({}), and TCP listeners that are newer than the agent",
                families::UNFINISHED.name,
            ),
            None,
        ),
        "exec" => (
            "servers that start after the agent, unless their port is watched".into(),
            None,
        ),
        "exit" => (
            format!(
                "when processes end: {} counts those of workers that are gone",
                families::WORKERS.name
            ),
            None,
        ),
        "fork" => (
            format!(
                "what children of servers answer, and when TorchServe's frontend hands requests on ({}, {})",
                families::REQUEST_INNER_QUEUE.name,
                families::QUEUE_TIME.name,
            ),
            None,
        ),
        "unix_release" => (
            "connections over unix sockets beyond the first 4096: state of those that ended is not given back".into(),
            None,
        ),
        "listeners" => (OLDER_LISTENERS.into(), None),
        other => (format!("what the hook {other} tells"), None),
    }
}

/// The families that begin with a request's arrival.
fn from_arrival() -> String {
    let families = [
        &families::REQUEST_QUEUE,
        &families::REQUEST_DURATION,
        &families::STREAM_FIRST_BYTE,
        &families::STREAM_FIRST_CHUNK,
        &families::STREAM_DURATION,
        &families::GEN_AI_FIRST_TOKEN,
        &families::GEN_AI_DURATION,
    ];
    let torchserve = [
        &families::QUEUE_TIME,
        &families::TS_QUEUE_LATENCY,
        &families::TS_INFERENCE_LATENCY,
    ];
    format!(
        "{}; {} of servers other than TorchServe, and of TorchServe where its frontend is not seen to hand a request \
         on: nobody tells when requests arrive",
        families.map(|family| family.name).join(", "),
        torchserve.map(|family| family.name).join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::{attach_mode::Refused, hooks::HOOKS};

    fn lost(hook: &'static str) -> HookReport {
        HookReport {
            hook,
            kind: None,
            refused: vec![Refused {
                kind: ProgramType::TpBtf,
                target: "somewhere",
                reason: "no such tracepoint".into(),
            }],
        }
    }

    #[test]
    fn only_hooks_on_nothing_are_losses() {
        let attached = HookReport {
            kind: Some(ProgramType::Fentry),
            ..lost("recv")
        };
        let losses = findings(&[attached, lost("readable")], None);
        let [loss] = &losses[..] else {
            panic!("{losses:?}");
        };
        assert_eq!(loss.severity, Severity::Some);
        assert!(loss.what.contains("inferprobe_request_queue_seconds"));
        assert_eq!(loss.why, "hook readable is on nothing");
        assert_eq!(loss.remedy, "run on Linux 6.3 or later");
    }

    #[test]
    fn a_kprobe_that_only_root_may_have_is_a_remedy() {
        let mut report = lost("readable");
        report.refused.push(Refused {
            kind: ProgramType::Kprobe,
            target: "sock_def_readable",
            reason: NOT_PERMITTED.into(),
        });
        let losses = findings(&[report], None);
        assert_eq!(
            losses[0].remedy,
            "run as root, which kprobes take, or on Linux 6.3 or later"
        );
    }

    #[test]
    fn what_a_forced_rung_loses_comes_back_without_it() {
        let losses = findings(&[lost("send_start")], Some(AttachMode::Syscall));
        assert_eq!(losses[0].remedy, "leave --rung out");
    }

    #[test]
    fn every_hook_says_what_it_tells() {
        for hook in HOOKS.map(|hook| hook.name) {
            assert!(!told_by(hook).0.contains("what the hook"), "{hook}");
        }
        assert_eq!(told_by("other").0, "what the hook other tells");
    }
}
