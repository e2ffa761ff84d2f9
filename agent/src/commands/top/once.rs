//! Prints a view once, as text or as the API's JSON.
//!
//! Does not depend on: keys, screens that change.

use anyhow::{Context as _, Result};

use crate::{
    api::history::Wanted,
    cli::View,
    commands::{feed::Feed, print, top::options::Screen},
    screen::{page, state::State, text},
};

/// Prints what `feed` knows now.
pub(super) async fn print(feed: &Feed, mut state: State, screen: &Screen) -> Result<()> {
    state.take_live(feed.live().await?);
    match state.view {
        View::Waterfall | View::Gpu => {}
        View::Requests => state.take_requests(feed.requests(None).await?),
        View::Heat => {
            // Of one model, if the filter leaves only one.
            let models = state.models();
            let only = match (models.as_slice(), state.filter.is_empty()) {
                ([model], false) => Wanted::of(&model.served, &model.labels),
                _ => Wanted::default(),
            };
            state.history = Some(feed.history(&only).await?);
        }
    }
    match screen.is_json() {
        true => print::text(&(text::clean_json(&json(&state)?) + "\n")),
        false => {
            let lines = page::whole(&state, screen.look, print::width());
            print::lines(&lines, screen.look)
        }
    }
}

/// Returns the API's answer that the view shows; models and requests are those that the filter leaves.
fn json(state: &State) -> Result<String> {
    let live = state.live.clone().unwrap_or_default();
    let json = match state.view {
        View::Waterfall | View::Gpu => serde_json::to_string(&crate::api::live::Live {
            models: state.models().into_iter().cloned().collect(),
            ..live
        }),
        View::Requests => {
            let requests = state.requests.iter().filter(|request| state.lists(request));
            serde_json::to_string(&crate::api::requests::Requests {
                source: live.source,
                next: state.after(),
                last: state.after(),
                missed: state.missed,
                requests: requests.cloned().collect(),
            })
        }
        View::Heat => serde_json::to_string(&state.history),
    };
    json.context("write JSON")
}
