//! Reports to the service manager when the agent is ready, and when it stops (`sd_notify`).
//!
//! Without a manager that waits for it, nothing happens.
//! Does not depend on: what the agent does before.

use sd_notify::NotifyState;
use tracing::warn;

/// Reports that the agent serves metrics; `status` is what `systemctl status` shows.
pub(super) fn ready(status: &str) {
    report(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that the agent stops.
pub(super) fn stopping() {
    report(&[NotifyState::Stopping]);
}

fn report(states: &[NotifyState<'_>]) {
    if let Err(err) = sd_notify::notify(states) {
        warn!(%err, "service manager not reached: it may take the agent for one that does not start");
    }
}
