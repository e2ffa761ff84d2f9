//! Attaches the probes once, with the self-test, and detaches them again.
//!
//! Uses the same loader as `serve`.
//! Does not depend on: the findings.

use serde::{Serialize, Serializer};

use crate::{
    bpf::{
        attach_mode::AttachMode,
        loader::Probes,
        options::Wanted,
        preflight,
        report::{HookReport, RefusalKind, Refused},
    },
    config::body_limit::BodyLimit,
};

/// Outcome of attaching the probes.
#[derive(Debug, Clone, Serialize)]
pub struct Probing {
    /// Why the probes cannot be attached; `None` if they can.
    pub refusal: Option<String>,
    /// Outcome of each hook; empty if none was tried.
    #[serde(serialize_with = "serialize_hooks")]
    pub hooks: Vec<HookReport>,
    /// Outcome of the self-test.
    pub self_test: SelfTest,
}

/// Outcome of the self-test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SelfTest {
    /// The record of the test request was correct.
    Passed,
    /// The record was missing or wrong.
    Failed {
        /// What was wrong with it.
        reason: String,
    },
    /// The probes were not attached.
    NotRun,
}

/// Attaches the probes as `serve` would, runs the self-test, and detaches them.
pub(crate) fn attempt(attach_mode: Option<AttachMode>) -> Probing {
    let wanted = Wanted {
        payload: true,
        copied_bytes: BodyLimit::default().copied_bytes(),
        accept_wait: false,
        plaintext: false,
        attach_mode,
    };
    if let Err(obstacle) = preflight::check(wanted.accept_wait) {
        return Probing {
            refusal: Some(obstacle.to_string()),
            hooks: Vec::new(),
            self_test: SelfTest::NotRun,
        };
    }
    match Probes::attach(wanted) {
        Ok((probes, _)) => Probing {
            refusal: None,
            hooks: probes.hooks().to_vec(),
            self_test: SelfTest::Passed,
        },
        Err(err) => {
            let hooks = err.hooks();
            Probing {
                refusal: Some(err.to_string()),
                self_test: failure(&hooks),
                hooks,
            }
        }
    }
}

/// Returns the outcome of the self-test if the probes could not be attached.
fn failure(hooks: &[HookReport]) -> SelfTest {
    let all = hooks.iter().flat_map(|report| &report.refused);
    match all
        .rev()
        .find(|refused| refused.kind == RefusalKind::SelfTestFailed)
    {
        Some(refused) => SelfTest::Failed {
            reason: refused.reason.clone(),
        },
        None => SelfTest::NotRun,
    }
}

#[derive(Serialize)]
struct Hook<'a> {
    hook: &'a str,
    kind: &'a str,
    refused: Vec<Attempt<'a>>,
}

#[derive(Serialize)]
struct Attempt<'a> {
    kind: &'a str,
    target: &'a str,
    reason: &'a str,
}

fn serialize_hooks<S: Serializer>(hooks: &[HookReport], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(hooks.iter().map(|report| Hook {
        hook: report.hook.name(),
        kind: report.kind_label(),
        refused: report.refused.iter().map(Attempt::from).collect(),
    }))
}

impl<'a> From<&'a Refused> for Attempt<'a> {
    fn from(refused: &'a Refused) -> Self {
        Self {
            kind: refused.program_type.name(),
            target: refused.target,
            reason: &refused.reason,
        }
    }
}
