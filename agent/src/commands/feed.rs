//! Reads what is shown: from an agent, or from a recording that is played.
//!
//! Does not depend on: how it is shown.

use std::time::Instant;

use anyhow::Result;

use crate::{
    api::{
        history::{History, Wanted},
        live::Live,
        requests::Requests,
    },
    recording::player::Player,
    remote::client::Client,
    screen::state::{KEPT, Playback},
};

/// Where answers come from.
#[derive(Debug)]
pub(super) enum Feed {
    /// A running agent.
    Agent(Box<Client>),
    /// A recording.
    Recording(Player),
}

impl Feed {
    /// Returns what is known now.
    pub(super) async fn live(&self) -> Result<Live> {
        match self {
            Self::Agent(client) => client.live().await,
            Self::Recording(player) => Ok(player.live(Instant::now())),
        }
    }

    /// Returns the requests that finished after request number `after`; the latest ones if that is `None`.
    pub(super) async fn requests(&self, after: Option<u64>) -> Result<Requests> {
        match self {
            Self::Agent(client) => client.requests(after).await,
            Self::Recording(player) => Ok(player.requests(after, KEPT, Instant::now())),
        }
    }

    /// Returns the windows that are wanted.
    pub(super) async fn history(&self, wanted: &Wanted) -> Result<History> {
        match self {
            Self::Agent(client) => client.history(wanted).await,
            Self::Recording(player) => Ok(player.history(wanted, Instant::now())),
        }
    }

    /// Returns where the recording is played; `None` if it is an agent.
    pub(super) fn playback(&self) -> Option<Playback> {
        match self {
            Self::Agent(_) => None,
            Self::Recording(player) => Some(Playback {
                at_ms: player.at_ms(Instant::now()),
                length_ms: player.length_ms(),
            }),
        }
    }

    /// Stops a recording, or plays on.
    pub(super) fn pause(&self, is_paused: bool) {
        if let Self::Recording(player) = self {
            player.pause(is_paused, Instant::now());
        }
    }

    /// Moves a recording forward or back.
    pub(super) fn seek(&self, ms: i64) {
        if let Self::Recording(player) = self {
            player.seek(ms, Instant::now());
        }
    }
}
