//! Concludes what may be missing from the metrics because hooks use program types that report less than others.
//!
//! The diagnosis calls it if the probes are attached.
//! Does not depend on: how hooks are attached.

use crate::{
    bpf::{
        attach_mode::{AttachMode, ProgramType},
        hook_id::HookId,
        preemption::Preemption,
        report::{HookReport, RefusalKind},
    },
    doctor::finding::{Finding, Severity, remedy},
    metrics::families,
};

/// Returns what is lost under load or by chance with these hooks; `forced` is the mode of `--attach-mode`.
pub(crate) fn findings(
    hooks: &[HookReport],
    preemption: Preemption,
    forced: Option<AttachMode>,
) -> Vec<Finding> {
    let recv = hooks.iter().find(|report| report.hook == HookId::Recv);
    let program_type = recv.and_then(|report| report.program_type);
    let uses_kprobes = program_type == Some(ProgramType::Kprobe);
    let reports_arrivals = hooks
        .iter()
        .any(|report| report.hook == HookId::Readable && report.program_type.is_some());
    let uses_system_calls = match program_type {
        Some(ProgramType::RawTp) => true,
        // A perf event of system calls, or one of sockets.
        Some(ProgramType::Tracepoint) => !reports_arrivals,
        _ => false,
    };
    if !uses_kprobes && !uses_system_calls {
        return skipped_together(recv, preemption, forced)
            .into_iter()
            .collect();
    }
    let remedy = |otherwise: &str| remedy(forced, || otherwise.to_owned());
    let newer = "run on Linux 5.17 or later, x86-64, or 6.12 or later, arm64";
    let mut findings = vec![Finding {
        severity: Severity::Some,
        what: "requests on more than 4096 watched connections at the same time".into(),
        why: "without BTF-typed programs, connection state is in a table of fixed size".into(),
        remedy: remedy(newer),
    }];
    if uses_kprobes {
        findings.push(Finding {
            severity: Severity::Some,
            what: format!(
                "{} of a request that arrives while another kprobe runs on the same CPU: unknown, or measured from its \
                 next segment",
                families::REQUEST_QUEUE.name,
            ),
            why: "the kernel does not run a kprobe inside another one".into(),
            remedy: remedy(newer),
        });
    }
    if preemption.model.reaches_programs() {
        let inside = match program_type {
            Some(ProgramType::RawTp) => "such a program",
            _ => "a bpf(2) call",
        };
        findings.push(Finding {
            severity: Severity::Some,
            what: format!(
                "a request now and then; {} is the upper bound",
                families::BPF_RECURSION_MISSES.name
            ),
            why: format!(
                "preemption model {}: if a task loses its CPU inside {inside}, the kernel skips programs of this \
                 type on that CPU",
                preemption.model,
            ),
            remedy: remedy("boot with preempt=voluntary"),
        });
    }
    findings
}

/// Returns what is lost because BTF-typed programs are used where a task may lose its CPU inside them, although the kernel
/// has trace events.
fn skipped_together(
    recv: Option<&HookReport>,
    preemption: Preemption,
    forced: Option<AttachMode>,
) -> Option<Finding> {
    let recv = recv?;
    let program_type = recv.program_type?;
    let is_typed = matches!(program_type, ProgramType::TpBtf | ProgramType::Fentry);
    if !is_typed || !preemption.reaches(ProgramType::TpBtf) {
        return None;
    }
    let is_forbidden = recv
        .refused
        .iter()
        .any(|refused| refused.kind == RefusalKind::NotPermitted);
    let permit = match is_forbidden {
        true => {
            "run as root, or grant CAP_DAC_READ_SEARCH, and CAP_SYS_ADMIN if kernel.perf_event_paranoid is 3 or more"
        }
        false => "mount tracefs: `mount -t tracefs tracefs /sys/kernel/tracing`",
    };
    Some(Finding {
        severity: Severity::Some,
        what: format!(
            "a request now and then; {} is the upper bound",
            families::BPF_RECURSION_MISSES.name
        ),
        why: format!(
            "preemption model {}: if tasks lose their CPU inside both copies of a program of type {program_type}, the kernel \
             skips the next event on that CPU",
            preemption.model,
            program_type = program_type.name(),
        ),
        remedy: remedy(forced, || permit.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::{preemption::Model, report::Refused};

    fn attached(program_type: ProgramType) -> [HookReport; 1] {
        [HookReport {
            hook: HookId::Recv,
            program_type: Some(program_type),
            refused: Vec::new(),
        }]
    }

    const fn model(model: Model) -> Preemption {
        Preemption {
            model,
            is_dynamic: false,
            in_tracepoints: false,
        }
    }

    #[test]
    fn btf_typed_programs_have_no_findings() {
        for program_type in [ProgramType::TpBtf, ProgramType::Fentry] {
            assert_eq!(
                findings(&attached(program_type), model(Model::Full), None),
                []
            );
        }
    }

    #[test]
    fn preemptible_tracepoints_are_a_finding_unless_trace_events_are_used() {
        let preemption = Preemption {
            in_tracepoints: true,
            ..model(Model::Lazy)
        };
        let mut hooks = attached(ProgramType::TpBtf);
        let found = findings(&hooks, preemption, None);
        assert_eq!(found.len(), 1);
        assert!(found[0].remedy.contains("mount tracefs"));
        hooks[0].refused.push(Refused {
            program_type: ProgramType::Tracepoint,
            target: "sock/sock_recv_length",
            kind: RefusalKind::NotPermitted,
            reason: "operation not permitted".into(),
        });
        let found = findings(&hooks, preemption, None);
        assert!(found[0].remedy.contains("CAP_DAC_READ_SEARCH"));
        let events = [HookId::Readable, HookId::Recv].map(|hook| HookReport {
            hook,
            ..attached(ProgramType::Tracepoint)[0].clone()
        });
        assert_eq!(findings(&events, preemption, None), []);
        assert_ne!(findings(&events[1..], preemption, None), []);
    }

    #[test]
    fn preemption_adds_a_finding() {
        let count = |known| findings(&attached(ProgramType::Kprobe), model(known), None).len();
        assert_eq!((count(Model::None), count(Model::Lazy)), (2, 3));
        let why = &findings(&attached(ProgramType::RawTp), model(Model::Lazy), None)[1].why;
        assert!(why.contains("inside such a program"), "{why}");
    }

    #[test]
    fn forced_attach_mode_is_the_remedy() {
        let findings = findings(
            &attached(ProgramType::Kprobe),
            model(Model::Lazy),
            Some(AttachMode::Kprobe),
        );
        assert_eq!(findings.len(), 3);
        assert!(
            findings
                .iter()
                .all(|finding| finding.remedy == "leave --attach-mode out")
        );
    }
}
