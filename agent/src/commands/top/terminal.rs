//! Draws on the terminal and reads keys until the user quits, and leaves the terminal as it was.
//!
//! Does not depend on: what is drawn, what keys do.

use std::{
    io::{stdin, stdout},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, Event},
        execute,
        terminal::{EnterAlternateScreen, enable_raw_mode},
    },
    text::Text,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Signal, getpid, kill_process},
};
use tokio::{runtime::Runtime, sync::mpsc::UnboundedSender};

use crate::{
    api::history,
    cli::View,
    commands::{
        feed::Feed,
        top::{
            keys::{self, Act},
            worker::{self, News, Order, Wanted},
        },
    },
    screen::{look::Look, page, state::State},
};

/// Longest time until a key or an answer is seen.
const LOOK: Duration = Duration::from_millis(100);
/// Height of the terminal from which requests are listed below the models.
const TALL: u16 = 30;

/// Shows `feed` until the user quits.
pub(super) fn show(runtime: Runtime, feed: Feed, state: State, look: Look) -> Result<()> {
    let (orders, to_worker) = tokio::sync::mpsc::unbounded_channel();
    let (to_screen, news) = mpsc::channel();
    let asking = thread::Builder::new()
        .name("news".into())
        .spawn(move || runtime.block_on(worker::run(feed, to_worker, to_screen)))
        .context("start the thread that asks for news")?;
    // This also has a panic leave the terminal as it was.
    let shown = ratatui::try_init()
        .context("prepare the terminal")
        .and_then(|mut terminal| {
            let mut screen = Screen {
                state,
                look,
                orders,
                wanted: Wanted::default(),
            };
            screen.run(&mut terminal, &news)
        });
    let restored = ratatui::try_restore().context("leave the terminal as it was");
    // Its end ends ssh, if there is one.
    let joined = asking.join();
    shown.and(restored)?;
    joined.map_err(|_| anyhow::anyhow!("the thread that asks for news panicked"))
}

struct Screen {
    state: State,
    look: Look,
    orders: UnboundedSender<Order>,
    wanted: Wanted,
}

impl Screen {
    fn run(&mut self, terminal: &mut DefaultTerminal, news: &Receiver<News>) -> Result<()> {
        let mut is_changed = true;
        loop {
            if is_changed {
                self.draw(terminal)?;
            }
            is_changed = false;
            wait_for_input()?;
            while event::poll(Duration::ZERO).context("look for a key")? {
                match event::read().context("read a key")? {
                    Event::Key(key) => match keys::press(&mut self.state, key) {
                        Some(Act::Quit) => return Ok(()),
                        Some(Act::Suspend) => suspend(terminal)?,
                        Some(Act::Seek(ms)) => self.order(Order::Seek(ms)),
                        None => {}
                    },
                    Event::Resize(..) => {}
                    _ => continue,
                }
                is_changed = true;
            }
            for one in news.try_iter() {
                is_changed = true;
                match one {
                    News::Live(live, playback) => {
                        self.state.take_live(*live);
                        self.state.playback = playback;
                    }
                    News::Requests(requests) => self.state.take_requests(*requests),
                    News::History(history) => self.state.history = Some(*history),
                    News::Fault(fault) => self.state.fault = Some(fault),
                    News::End => return Ok(()),
                }
            }
        }
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal) -> Result<()> {
        let size = terminal.size().context("read the terminal's size")?;
        let state = &self.state;
        let wanted = Wanted {
            requests: state.view == View::Requests
                || (state.view == View::Waterfall && size.height >= TALL),
            history: (state.view == View::Heat).then(|| match &state.chosen {
                Some(chosen) => history::Wanted::of(&chosen.served, &chosen.labels),
                None => history::Wanted::default(),
            }),
            frozen: state.frozen,
        };
        if wanted != self.wanted {
            self.wanted = wanted.clone();
            self.order(Order::Show(wanted));
        }
        let (state, look) = (&self.state, self.look);
        let drawn = terminal.draw(|frame| {
            let area = frame.area();
            let (width, height) = (usize::from(area.width), usize::from(area.height));
            let lines = page::screen(state, look, width, height);
            frame.render_widget(Text::from(lines), area);
        });
        drawn.context("draw on the terminal")?;
        Ok(())
    }

    fn order(&self, order: Order) {
        // A worker that is gone has sent the end, which comes next.
        let _ = self.orders.send(order);
    }
}

/// Returns when the terminal has input, or after [`LOOK`]. A terminal that is gone is an error: crossterm would read
/// its end for ever.
fn wait_for_input() -> Result<()> {
    let stdin = stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let timeout = Timespec::try_from(LOOK).context("wait for a key")?;
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error).context("wait for a key"),
    }
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    ensure!(!fds[0].revents().intersects(gone), "the terminal is gone");
    Ok(())
}

/// Stops the program as the shell does, until the user continues it.
fn suspend(terminal: &mut DefaultTerminal) -> Result<()> {
    ratatui::try_restore().context("leave the terminal as it was")?;
    kill_process(getpid(), Signal::TSTP).context("stop")?;
    enable_raw_mode().context("prepare the terminal")?;
    execute!(stdout(), EnterAlternateScreen).context("prepare the terminal")?;
    terminal.clear().context("clear the terminal")
}
