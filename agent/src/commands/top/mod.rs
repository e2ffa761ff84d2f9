//! Runs `inferprobe top`: shows an agent, or the recording that comes with this version, on a screen or once.
//!
//! `options` are the checked ones, `terminal` draws and reads keys, `keys` is what they do, `worker` asks for news, `once`
//! prints.
//! Does not depend on: how a screen is drawn.

mod keys;
mod once;
pub mod options;
mod terminal;
mod worker;

use std::{io::Cursor, time::Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use crate::{
    cli::TopArgs,
    commands::{feed::Feed, runtime, top::options::Screen},
    recording::{content::Recording, player::Player},
    remote::{client::Client, target::Target},
    screen::state::State,
    usage::UsageError,
};

/// The recording that comes with this version, made by `cargo xtask pictures`.
const DEMO: &[u8] = include_bytes!("demo.jsonl.gz");

/// A checked command.
#[derive(Debug)]
pub struct Request {
    /// The agent; `None`: the recording.
    target: Option<Target>,
    screen: Screen,
}

impl Request {
    /// Checks the command line.
    pub fn check(args: &TopArgs) -> Result<Self, UsageError> {
        let target = match args.demo {
            true => None,
            false => Some(Target::parse(
                "URL",
                args.url.as_deref(),
                args.remote.as_deref(),
            )?),
        };
        Ok(Self {
            target,
            screen: Screen::check(&args.screen),
        })
    }
}

/// Shows until the user quits, or prints once.
pub fn run(request: Request) -> Result<()> {
    let Request { target, screen } = request;
    let runtime = runtime::new()?;
    let (name, feed) = match target {
        Some(target) => {
            let name = target.to_string();
            let client = runtime.block_on(Client::connect(target))?;
            (name, Feed::Agent(Box::new(client)))
        }
        None => {
            let recording = Recording::read(Cursor::new(DEMO))
                .context("read the recording that comes with this version")?;
            let player = Player::new(recording, true, Instant::now());
            if screen.is_once() {
                player.end();
            }
            ("demo".to_owned(), Feed::Recording(player))
        }
    };
    show(runtime, feed, name, &screen, None)
}

/// Shows `feed` as the options say; `page` is where browsers find it.
pub(super) fn show(
    runtime: Runtime,
    feed: Feed,
    target: String,
    screen: &Screen,
    page: Option<String>,
) -> Result<()> {
    let mut state = State {
        target,
        page,
        ..screen.state()
    };
    if screen.is_once() {
        return runtime.block_on(once::print(&feed, state, screen));
    }
    // What is wrong from the start is said on the terminal as it is.
    state.take_live(runtime.block_on(feed.live())?);
    terminal::show(runtime, feed, state, screen.look)
}
