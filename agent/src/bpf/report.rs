//! Reports what each hook is attached to, and formats that for the log and for labels.
//!
//! The loader makes the reports; `serve` logs and exports them, the doctor draws findings from them.
//! Does not depend on: how hooks are attached.

use std::collections::BTreeMap;

use crate::bpf::{attach_mode::ProgramType, hook_id::HookId};

/// Outcome for one hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookReport {
    /// The hook.
    pub hook: HookId,
    /// Type of its attached programs; `None` if it is not attached.
    pub program_type: Option<ProgramType>,
    /// Program types that were tried before, in fallback order.
    pub refused: Vec<Refused>,
}

impl HookReport {
    /// Value of the label `kind`.
    pub fn kind_label(&self) -> &'static str {
        self.program_type.map_or("none", ProgramType::name)
    }

    /// Why earlier program types failed, each as `type targets: reason`; targets with the same reason share an entry.
    pub fn reasons(&self) -> Vec<String> {
        let mut order = Vec::new();
        let mut targets: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for refused in &self.refused {
            let key = (refused.program_type.name(), refused.reason.as_str());
            if !order.contains(&key) {
                order.push(key);
            }
            targets.entry(key).or_default().push(refused.target);
        }
        let entry = |key: (&str, &str)| {
            let (program_type, reason) = key;
            format!("{program_type} {}: {reason}", targets[&key].join(","))
        };
        order.into_iter().map(entry).collect()
    }
}

/// A program type that a hook could not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The program type.
    pub program_type: ProgramType,
    /// Function or tracepoint that the program was for.
    pub target: &'static str,
    /// Kind of the refusal.
    pub kind: RefusalKind,
    /// Reason, as one line.
    pub reason: String,
}

/// Kind of a refusal, as far as the agent or the doctor acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The process lacks a privilege.
    NotPermitted,
    /// The programs were attached, and the self-test failed.
    SelfTestFailed,
    /// The kernel lacks something, the verifier rejected the program, or it was not tried.
    Unavailable,
}

/// Formats all reports as one line: `readable,recv: tp_btf; send_start: none (tp_btf tcp_sendmsg_locked: no such tracepoint)`.
///
/// Hooks with the same program type share an entry. Hooks that are not attached come last, each with the reasons.
pub fn line(hooks: &[HookReport]) -> String {
    let mut by_type: Vec<(&str, Vec<&str>)> = Vec::new();
    for report in hooks.iter().filter(|report| report.program_type.is_some()) {
        let kind = report.kind_label();
        match by_type.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, hooks)) => hooks.push(report.hook.name()),
            None => by_type.push((kind, vec![report.hook.name()])),
        }
    }
    let attached = by_type
        .into_iter()
        .map(|(kind, hooks)| format!("{}: {kind}", hooks.join(",")));
    let missing = hooks
        .iter()
        .filter(|report| report.program_type.is_none())
        .map(|report| match report.reasons() {
            reasons if reasons.is_empty() => format!("{}: none", report.hook),
            reasons => format!("{}: none ({})", report.hook, reasons.join(", ")),
        });
    attached.chain(missing).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(
        hook: HookId,
        program_type: Option<ProgramType>,
        refused: &[(ProgramType, &str)],
    ) -> HookReport {
        HookReport {
            hook,
            program_type,
            refused: refused
                .iter()
                .map(|(program_type, reason)| Refused {
                    program_type: *program_type,
                    target: "somewhere",
                    kind: RefusalKind::Unavailable,
                    reason: (*reason).into(),
                })
                .collect(),
        }
    }

    #[test]
    fn line_groups_hooks_by_program_type() {
        let hooks = [
            report(HookId::Readable, Some(ProgramType::TpBtf), &[]),
            report(
                HookId::Recv,
                Some(ProgramType::Fentry),
                &[(ProgramType::TpBtf, "absent")],
            ),
            report(HookId::Send, Some(ProgramType::TpBtf), &[]),
        ];
        assert_eq!(line(&hooks), "readable,send: tp_btf; recv: fentry");
        assert_eq!(line(&[]), "");
    }

    #[test]
    fn line_gives_the_reasons_of_a_missing_hook() {
        let missing = [
            report(HookId::SendStart, None, &[(ProgramType::TpBtf, "absent")]),
            report(HookId::Sendfile, None, &[]),
        ];
        assert_eq!(
            line(&missing),
            "send_start: none (tp_btf somewhere: absent); sendfile: none"
        );
    }

    #[test]
    fn targets_with_the_same_reason_share_an_entry() {
        let refused = [
            (ProgramType::TpBtf, "absent"),
            (ProgramType::Fentry, "EPERM"),
            (ProgramType::Fentry, "EPERM"),
        ];
        assert_eq!(
            report(HookId::Recv, None, &refused).reasons(),
            [
                "tp_btf somewhere: absent",
                "fentry somewhere,somewhere: EPERM"
            ]
        );
    }
}
