//! Asks for news every second, for a screen in another thread, and only for what that shows.
//!
//! Does not depend on: how news are shown.

use std::{
    sync::mpsc::{SendError, Sender},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    api::{
        history::{self, History},
        live::Live,
        requests::Requests,
    },
    commands::feed::Feed,
    screen::state::Playback,
};

/// Time between two questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time between two questions for the history.
const HISTORY_INTERVAL: Duration = Duration::from_secs(5);

/// What the screen shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whether it shows requests.
    pub(super) requests: bool,
    /// The windows that it shows; `None`: none.
    pub(super) history: Option<history::Wanted>,
    /// Whether it shows no news.
    pub(super) frozen: bool,
}

/// What the screen asks for.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// It shows something else.
    Show(Wanted),
    /// Move in the recording, ms.
    Seek(i64),
}

/// What the screen gets.
#[derive(Debug)]
pub(super) enum News {
    /// What is known now, and where the recording is played.
    Live(Box<Live>, Option<Playback>),
    /// Requests that followed.
    Requests(Box<Requests>),
    /// The last minutes.
    History(Box<History>),
    /// Why there are no news.
    Fault(String),
    /// The program is to end.
    End,
}

/// Asks until the screen is gone, or a signal asks for the end.
pub(super) async fn run(feed: Feed, mut orders: UnboundedReceiver<Order>, news: Sender<News>) {
    let mut worker = Worker {
        feed,
        news,
        wanted: Wanted::default(),
        started_ns: None,
        after: None,
        history_at: None,
    };
    let ended = async {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ];
        let signals = kinds.map(signal);
        let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hang_up)] = signals else {
            // Without a handler a signal ends the program as it is.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    };
    let asked = async {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => worker.obey(order),
                    None => return,
                },
                _ = ticks.tick() => {}
            }
            if worker.ask().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = ended => {}
        () = asked => {}
    }
    // The screen may be gone already.
    let _ = worker.news.send(News::End);
}

struct Worker {
    feed: Feed,
    news: Sender<News>,
    wanted: Wanted,
    /// Start of the run whose requests were asked for last.
    started_ns: Option<u64>,
    /// Number of the latest request of it that was asked for.
    after: Option<u64>,
    /// When the history was asked for.
    history_at: Option<Instant>,
}

impl Worker {
    fn obey(&mut self, order: Order) {
        match order {
            Order::Seek(ms) => self.feed.seek(ms),
            Order::Show(wanted) => {
                if wanted.frozen != self.wanted.frozen {
                    self.feed.pause(wanted.frozen);
                }
                if wanted.history != self.wanted.history {
                    self.history_at = None;
                }
                self.wanted = wanted;
            }
        }
    }

    /// Asks for what the screen shows; an error means that it is gone.
    async fn ask(&mut self) -> Result<(), SendError<News>> {
        if self.wanted.frozen {
            return Ok(());
        }
        match self.answers().await {
            Ok(answers) => answers.into_iter().try_for_each(|one| self.news.send(one)),
            Err(err) => self.news.send(News::Fault(format!("{err:#}"))),
        }
    }

    async fn answers(&mut self) -> anyhow::Result<Vec<News>> {
        let live = self.feed.live().await?;
        let started_ns = Some(live.source.started_ns);
        if self.started_ns != started_ns {
            self.started_ns = started_ns;
            self.after = None;
            self.history_at = None;
        }
        let mut answers = vec![News::Live(Box::new(live), self.feed.playback())];
        if self.wanted.requests {
            let requests = self.feed.requests(self.after).await?;
            if Some(requests.source.started_ns) == started_ns {
                self.after = Some(requests.next);
                answers.push(News::Requests(Box::new(requests)));
            }
        }
        let is_due = self
            .history_at
            .is_none_or(|at| at.elapsed() >= HISTORY_INTERVAL);
        if let Some(wanted) = &self.wanted.history
            && is_due
        {
            let history = self.feed.history(wanted).await?;
            self.history_at = Some(Instant::now());
            answers.push(News::History(Box::new(history)));
        }
        Ok(answers)
    }
}
