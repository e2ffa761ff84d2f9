//! One try at attaching the probes, with the self-test, that leaves nothing behind.
//!
//! Does not know what follows from it.

use serde::{Serialize, Serializer};

use crate::bpf::{
    attach_mode::{AttachMode, HookReport, Refused},
    loader::{Probes, SELF_TEST},
    options::Wanted,
    preflight,
    report::kind_name,
};

/// What came of the try.
#[derive(Debug, Clone, Serialize)]
pub struct Probing {
    /// Why nothing is attached; `None` if it is.
    pub refusal: Option<String>,
    /// What each hook is on; none where it was not tried.
    #[serde(serialize_with = "serialize_hooks")]
    pub hooks: Vec<HookReport>,
    /// What the self-test said.
    pub self_test: SelfTest,
}

/// What the self-test said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SelfTest {
    /// The exchange with itself came back as it was.
    Passed,
    /// It did not.
    Failed {
        /// What was wrong.
        reason: String,
    },
    /// There was nothing to test.
    NotRun,
}

/// Attaches the probes as the agent would, exchanges a request with itself, and detaches them.
pub(crate) fn attempt(rung: Option<AttachMode>) -> Probing {
    let wanted = Wanted {
        payload: true,
        accept_wait: false,
        rung,
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

/// What the self-test said where nothing is attached.
fn failure(hooks: &[HookReport]) -> SelfTest {
    let all = hooks.iter().flat_map(|report| &report.refused);
    match all.rev().find(|refused| refused.target == SELF_TEST) {
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
        hook: report.hook,
        kind: kind_name(report.kind),
        refused: report.refused.iter().map(Attempt::from).collect(),
    }))
}

impl<'a> From<&'a Refused> for Attempt<'a> {
    fn from(refused: &'a Refused) -> Self {
        Self {
            kind: refused.kind.name(),
            target: refused.target,
            reason: &refused.reason,
        }
    }
}
