//! What the hooks are on, as words: for the log, and for a label.
//!
//! Knows nothing of how they came to be there.

use std::collections::BTreeMap;

use crate::bpf::attach_mode::{HookReport, ProgramType};

/// Value of the label `kind`.
pub fn kind_name(kind: Option<ProgramType>) -> &'static str {
    kind.map_or("none", ProgramType::name)
}

/// One line: `readable,recv: tp_btf; send_start: none (tp_btf tcp_sendmsg_locked: no such tracepoint)`.
///
/// Hooks on the same kind stand together, in their order; of those that are on nothing it is said why.
pub fn line(hooks: &[HookReport]) -> String {
    let mut together: Vec<(&str, Vec<&str>)> = Vec::new();
    for report in hooks.iter().filter(|report| report.kind.is_some()) {
        let kind = kind_name(report.kind);
        match together.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, hooks)) => hooks.push(report.hook),
            None => together.push((kind, vec![report.hook])),
        }
    }
    let chosen = together
        .into_iter()
        .map(|(kind, hooks)| format!("{}: {kind}", hooks.join(",")));
    let lost = hooks
        .iter()
        .filter(|report| report.kind.is_none())
        .map(|report| match why(report) {
            reasons if reasons.is_empty() => format!("{}: none", report.hook),
            reasons => format!("{}: none ({})", report.hook, reasons.join(", ")),
        });
    chosen.chain(lost).collect::<Vec<_>>().join("; ")
}

/// Why the better kinds failed, each `kind target: reason`; targets of one kind with one reason stand together.
pub fn why(report: &HookReport) -> Vec<String> {
    let mut order = Vec::new();
    let mut targets: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for refused in &report.refused {
        let key = (refused.kind.name(), refused.reason.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
        targets.entry(key).or_default().push(refused.target);
    }
    let words = |key: (&str, &str)| {
        let (kind, reason) = key;
        format!("{kind} {}: {reason}", targets[&key].join(","))
    };
    order.into_iter().map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::attach_mode::Refused;

    fn report(
        hook: &'static str,
        kind: Option<ProgramType>,
        refused: &[(ProgramType, &str)],
    ) -> HookReport {
        HookReport {
            hook,
            kind,
            refused: refused
                .iter()
                .map(|(kind, reason)| Refused {
                    kind: *kind,
                    target: "somewhere",
                    reason: (*reason).into(),
                })
                .collect(),
        }
    }

    #[test]
    fn hooks_on_one_kind_stand_together() {
        let hooks = [
            report("readable", Some(ProgramType::TpBtf), &[]),
            report(
                "recv",
                Some(ProgramType::Fentry),
                &[(ProgramType::TpBtf, "absent")],
            ),
            report("send", Some(ProgramType::TpBtf), &[]),
        ];
        assert_eq!(line(&hooks), "readable,send: tp_btf; recv: fentry");
        assert_eq!(line(&[]), "");
    }

    #[test]
    fn a_lost_hook_says_why() {
        let lost = [
            report("send_start", None, &[(ProgramType::TpBtf, "absent")]),
            report("sendfile", None, &[]),
        ];
        assert_eq!(
            line(&lost),
            "send_start: none (tp_btf somewhere: absent); sendfile: none"
        );
    }

    #[test]
    fn targets_with_one_reason_are_named_once() {
        let refused = [
            (ProgramType::TpBtf, "absent"),
            (ProgramType::Fentry, "EPERM"),
            (ProgramType::Fentry, "EPERM"),
        ];
        assert_eq!(
            why(&report("recv", None, &refused)),
            [
                "tp_btf somewhere: absent",
                "fentry somewhere,somewhere: EPERM"
            ]
        );
    }
}
