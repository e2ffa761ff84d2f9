//! What may be missing from the metrics where the hooks are on kinds of program that keep less than the best.
//!
//! Does not know how hooks are attached.

use crate::{
    bpf::{
        attach_mode::{AttachMode, HookReport, ProgramType},
        preemption::Preemption,
    },
    doctor::finding::{Finding, Severity, remedy},
    metrics::families,
};

/// What is lost under load or by chance, with the hooks that there are; `rung` is the one kind that they were held to.
pub(crate) fn findings(
    hooks: &[HookReport],
    preemption: Preemption,
    rung: Option<AttachMode>,
) -> Vec<Finding> {
    let recv = hooks.iter().find(|report| report.hook == "recv");
    let kind = recv.and_then(|report| report.kind);
    let by_kprobes = kind == Some(ProgramType::Kprobe);
    if !by_kprobes && !matches!(kind, Some(ProgramType::RawTp | ProgramType::Tracepoint)) {
        return Vec::new();
    }
    let better = |otherwise: &str| remedy(rung, || otherwise.to_owned());
    let newer = "run on Linux 5.17 or later, x86-64, or 6.12 or later, arm64";
    let mut losses = vec![Finding {
        severity: Severity::Some,
        what: "requests on watched connections beyond 4096 at a time".into(),
        why: "without typed programs the state of connections lies in a table".into(),
        remedy: better(newer),
    }];
    if by_kprobes {
        losses.push(Finding {
            severity: Severity::Some,
            what: format!(
                "{} of a request that arrives while another kprobe runs on the same CPU: unknown, or that of its next \
                 segment",
                families::REQUEST_QUEUE.name,
            ),
            why: "the kernel does not run one kprobe within another".into(),
            remedy: better(newer),
        });
    }
    if preemption.reaches_programs() {
        let within = match kind {
            Some(ProgramType::RawTp) => "such a program",
            _ => "a call of bpf(2)",
        };
        losses.push(Finding {
            severity: Severity::Some,
            what: format!(
                "now and then a request: {} counts what it comes from",
                families::BPF_RECURSION_MISSES.name
            ),
            why: format!(
                "preemption is {preemption}, and the kernel runs no program of this kind on a CPU that was taken from a task \
                 within {within}",
            ),
            remedy: better("boot with preempt=voluntary"),
        });
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(kind: ProgramType) -> [HookReport; 1] {
        [HookReport {
            hook: "recv",
            kind: Some(kind),
            refused: Vec::new(),
        }]
    }

    #[test]
    fn typed_programs_keep_everything() {
        for kind in [ProgramType::TpBtf, ProgramType::Fentry] {
            assert_eq!(findings(&on(kind), Preemption::Full, None), []);
        }
    }

    #[test]
    fn kprobes_lose_more_where_a_task_may_lose_its_cpu() {
        let count = |preemption| findings(&on(ProgramType::Kprobe), preemption, None).len();
        assert_eq!((count(Preemption::None), count(Preemption::Lazy)), (2, 3));
        let why = &findings(&on(ProgramType::RawTp), Preemption::Lazy, None)[1].why;
        assert!(why.ends_with("within such a program"), "{why}");
    }

    #[test]
    fn what_a_forced_rung_loses_comes_back_without_it() {
        let losses = findings(
            &on(ProgramType::Kprobe),
            Preemption::Lazy,
            Some(AttachMode::Kprobe),
        );
        assert!(losses.iter().all(|loss| loss.remedy == "leave --rung out"));
    }
}
