//! Concludes what may be missing from the metrics because hooks use program types that report less than others.
//!
//! The diagnosis calls it if the probes are attached.
//! Does not depend on: how hooks are attached.

use crate::{
    bpf::{
        attach_mode::{AttachMode, ProgramType},
        hook_id::HookId,
        preemption::Preemption,
        report::HookReport,
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
    let uses_system_calls = matches!(
        program_type,
        Some(ProgramType::RawTp | ProgramType::Tracepoint)
    );
    if !uses_kprobes && !uses_system_calls {
        return Vec::new();
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
    if preemption.reaches_programs() {
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
                "preemption model {preemption}: if a task loses its CPU inside {inside}, the kernel skips programs of this \
                 type on that CPU",
            ),
            remedy: remedy("boot with preempt=voluntary"),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(program_type: ProgramType) -> [HookReport; 1] {
        [HookReport {
            hook: HookId::Recv,
            program_type: Some(program_type),
            refused: Vec::new(),
        }]
    }

    #[test]
    fn btf_typed_programs_have_no_findings() {
        for program_type in [ProgramType::TpBtf, ProgramType::Fentry] {
            assert_eq!(
                findings(&attached(program_type), Preemption::Full, None),
                []
            );
        }
    }

    #[test]
    fn preemption_adds_a_finding() {
        let count = |preemption| findings(&attached(ProgramType::Kprobe), preemption, None).len();
        assert_eq!((count(Preemption::None), count(Preemption::Lazy)), (2, 3));
        let why = &findings(&attached(ProgramType::RawTp), Preemption::Lazy, None)[1].why;
        assert!(why.contains("inside such a program"), "{why}");
    }

    #[test]
    fn forced_attach_mode_is_the_remedy() {
        let findings = findings(
            &attached(ProgramType::Kprobe),
            Preemption::Lazy,
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
