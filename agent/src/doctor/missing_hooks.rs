//! Concludes what is missing from the metrics because a hook is not attached.
//!
//! The diagnosis calls it if the probes are attached.
//! Does not depend on: how hooks are attached.

use crate::{
    bpf::{
        attach_mode::{AttachMode, ProgramType},
        hook_id::HookId,
        report::{HookReport, RefusalKind},
    },
    doctor::finding::{Finding, OLDER_LISTENERS, Severity, remedy},
    metrics::families,
};

/// Returns a finding for each hook that is not attached; `forced` is the mode of `--attach-mode`.
pub(crate) fn findings(hooks: &[HookReport], forced: Option<AttachMode>) -> Vec<Finding> {
    let missing = hooks.iter().filter(|report| report.program_type.is_none());
    missing
        .map(|report| Finding {
            severity: Severity::Some,
            what: metrics_of(report.hook),
            why: format!(
                "hook `{}` is not attached: it {}",
                report.hook,
                report.hook.help()
            ),
            remedy: remedy(forced, || match first_kernel(report.hook) {
                Some(kernel) if is_kprobe_forbidden(report) => {
                    format!("run as root, which kprobes need, or on {kernel} or later")
                }
                Some(kernel) => format!("run on {kernel} or later"),
                None => "run on a newer kernel".into(),
            }),
        })
        .collect()
}

/// Returns whether the kernel has a kprobe for the hook, and this process lacks the privilege to use it.
fn is_kprobe_forbidden(report: &HookReport) -> bool {
    report.refused.iter().any(|refused| {
        refused.program_type == ProgramType::Kprobe && refused.kind == RefusalKind::NotPermitted
    })
}

/// Returns the first kernel that is sure to have the hook; `None` if that is not known.
fn first_kernel(hook: HookId) -> Option<&'static str> {
    match hook {
        HookId::Readable | HookId::Recv | HookId::Send => Some("Linux 6.3"),
        HookId::SendStart => Some("Linux 6.16"),
        HookId::Sendfile => Some("Linux 6.5"),
        HookId::Exec
        | HookId::Exit
        | HookId::Fork
        | HookId::State
        | HookId::UnixRelease
        | HookId::Listeners
        | HookId::Accept => None,
    }
}

/// Returns what the hook provides, in terms of the metrics.
fn metrics_of(hook: HookId) -> String {
    match hook {
        HookId::Readable => from_arrival(),
        HookId::Recv | HookId::Send => "all request metrics".into(),
        HookId::SendStart => format!(
            "{}, {} of TCP responses whose first send is longer than 64 KiB; those of other responses include that send",
            families::REQUEST_HANDLER.name,
            families::HANDLER_TIME.name,
        ),
        HookId::Sendfile => format!(
            "bytes that servers send with sendfile: {} and {} end before them",
            families::REQUEST_DURATION.name,
            families::STREAM_DURATION.name,
        ),
        HookId::State => format!(
            "the end of connections ({}), and TCP listeners that start after the agent",
            families::UNFINISHED.name,
        ),
        HookId::Exec => "servers that start after the agent, unless their port is watched".into(),
        HookId::Exit => format!(
            "the end of processes: {} counts workers that have ended",
            families::WORKERS.name
        ),
        HookId::Fork => format!(
            "requests that new children of servers handle, and when TorchServe's frontend dispatches requests ({}, {})",
            families::REQUEST_INNER_QUEUE.name,
            families::QUEUE_TIME.name,
        ),
        HookId::UnixRelease => {
            "connections over unix sockets after the first 4096, because the state of closed ones is not freed".into()
        }
        HookId::Listeners => OLDER_LISTENERS.into(),
        HookId::Accept => families::ACCEPT_WAIT.name.into(),
    }
}

/// Returns the families whose times start at the arrival of a request.
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
        "{}; {} of servers other than TorchServe, and of TorchServe if the dispatch by its frontend is not observed",
        families.map(|family| family.name).join(", "),
        torchserve.map(|family| family.name).join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::report::Refused;

    fn missing(hook: HookId) -> HookReport {
        HookReport {
            hook,
            program_type: None,
            refused: vec![Refused {
                program_type: ProgramType::TpBtf,
                target: "somewhere",
                kind: RefusalKind::Unavailable,
                reason: "no such tracepoint".into(),
            }],
        }
    }

    #[test]
    fn hook_without_programs_is_a_finding() {
        let attached = HookReport {
            program_type: Some(ProgramType::Fentry),
            ..missing(HookId::Recv)
        };
        let findings = findings(&[attached, missing(HookId::Readable)], None);
        let [finding] = &findings[..] else {
            panic!("{findings:?}");
        };
        assert_eq!(finding.severity, Severity::Some);
        assert!(finding.what.contains("inferprobe_request_queue_seconds"));
        assert_eq!(
            finding.why,
            "hook `readable` is not attached: it reports when bytes become readable on a socket; without it, arrival \
             times are unknown"
        );
        assert_eq!(finding.remedy, "run on Linux 6.3 or later");
    }

    #[test]
    fn forbidden_kprobe_makes_root_a_remedy() {
        let mut report = missing(HookId::Readable);
        report.refused.push(Refused {
            program_type: ProgramType::Kprobe,
            target: "sock_def_readable",
            kind: RefusalKind::NotPermitted,
            reason: "operation not permitted".into(),
        });
        let findings = findings(&[report], None);
        assert_eq!(
            findings[0].remedy,
            "run as root, which kprobes need, or on Linux 6.3 or later"
        );
    }

    #[test]
    fn forced_attach_mode_is_the_remedy() {
        let findings = findings(&[missing(HookId::SendStart)], Some(AttachMode::Syscall));
        assert_eq!(findings[0].remedy, "leave --attach-mode out");
    }
}
