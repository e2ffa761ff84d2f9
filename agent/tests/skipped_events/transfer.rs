//! The reads and writes of a script, and which of their events are skipped.

use std::ops::Range;

use inferprobe_tests::scripted_server::script::{Script, Step};

/// An event of a connection, with the bytes of its direction.
#[derive(Debug, Clone)]
pub(crate) enum Transfer {
    Read(Range<usize>),
    Write(Range<usize>),
}

/// An event that no hook handles, by the number of its transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skip {
    /// The return of a read or a write.
    Return(usize),
    /// The start of a write.
    Start(usize),
    /// None, but the write starts at its return. That is when its chunks and tokens are taken to be sent if its start is
    /// skipped.
    Late(usize),
}

impl Skip {
    /// Returns what may be known at best without the event.
    pub(crate) fn at_best(self) -> Option<Self> {
        match self {
            Self::Start(number) => Some(Self::Late(number)),
            Self::Return(_) | Self::Late(_) => None,
        }
    }
}

/// The events that a script causes if the client never lets the server wait.
pub(crate) fn transfers(script: &Script) -> Vec<Transfer> {
    let mut all = Vec::new();
    let (mut read, mut written) = (0, 0);
    let mut steps: Vec<&Step> = script.server.iter().rev().collect();
    while let Some(step) = steps.pop() {
        let reads = match step {
            Step::Read { size, until } => Some((*size, *until)),
            Step::Drain { size } => Some((*size, script.sent.len())),
            Step::Write(until) => {
                all.push(Transfer::Write(written..*until));
                written = *until;
                None
            }
            Step::Elsewhere(inner) | Step::Beside(inner) => {
                steps.extend(inner.iter().rev());
                None
            }
            Step::Probe
            | Step::Arrived(_)
            | Step::Work(_)
            | Step::FinishWriting
            | Step::Reset
            | Step::Join => None,
        };
        if let Some((size, until)) = reads {
            while read < until {
                let end = (read + size).min(until);
                all.push(Transfer::Read(read..end));
                read = end;
            }
        }
    }
    all
}
