//! Counts what was lost or left unfinished, by server and reason, and logs the first few of each reason and minute.
//!
//! A line says when, which process and port, which direction, how many bytes, and why. It never has payload.
//! Does not depend on: where losses come from.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use inferprobe_ebpf::abi::DropReason;
use tracing::info;

use crate::{
    discovery::procfs,
    exchange::event::{Loss, Place, Unfinished},
    identity::{Instance, Replica},
    metrics::{Metrics, families, family::Family},
    pipeline::drops::Dropped,
};

/// Time in which a reason is logged [`LINES`] times at most, ns.
const WINDOW_NS: u64 = 60_000_000_000;
/// Lines of one reason in a window.
const LINES: u32 = 3;
/// Servers that are remembered as declared; beyond it, all are declared again.
const DECLARED_CAP: usize = 4_096;

/// What was lost, or left unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Records, bytes or a connection.
    Lost(Loss),
    /// A request.
    Unfinished(Unfinished),
}

impl What {
    const fn family(self) -> &'static Family {
        match self {
            Self::Lost(_) => &families::RECORDS_LOST,
            Self::Unfinished(_) => &families::UNFINISHED,
        }
    }

    /// The reason's name, which is also one of the metrics.
    const fn reason(self) -> &'static str {
        match self {
            Self::Lost(loss) => loss.name(),
            Self::Unfinished(unfinished) => unfinished.name(),
        }
    }

    const fn help(self) -> &'static str {
        match self {
            Self::Lost(loss) => loss.help(),
            Self::Unfinished(unfinished) => unfinished.help(),
        }
    }
}

/// The counters, and what was logged lately.
#[derive(Debug)]
pub struct Losses {
    metrics: Arc<Metrics>,
    windows: HashMap<&'static str, Window>,
    /// Servers whose counters are exported.
    declared: HashSet<Instance>,
}

/// The lines of one reason.
#[derive(Debug, Default)]
struct Window {
    began_ns: u64,
    lines: u32,
    /// Losses since the latest line.
    unlogged: u64,
}

impl Window {
    /// Counts a loss at `now_ns`; returns how many before it have no line, or `None` if it gets none either.
    fn admit(&mut self, now_ns: u64) -> Option<u64> {
        if self.lines == 0 || now_ns.saturating_sub(self.began_ns) >= WINDOW_NS {
            self.began_ns = now_ns;
            self.lines = 0;
        }
        if self.lines == LINES {
            self.unlogged += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unlogged))
    }
}

impl Losses {
    /// Counts in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            windows: HashMap::new(),
            declared: HashSet::new(),
        }
    }

    /// Exports every reason of `server` as 0, until something is lost.
    pub fn declare(&mut self, server: &Instance) {
        if self.declared.contains(server) {
            return;
        }
        if self.declared.len() >= DECLARED_CAP {
            self.declared.clear();
        }
        self.declared.insert(server.clone());
        let losses = Loss::ALL.map(What::Lost);
        let unfinished = Unfinished::ALL.map(What::Unfinished);
        for what in losses.into_iter().chain(unfinished) {
            self.metrics.lost(what.family(), server, what.reason(), 0);
        }
        // Those of no server are totals that are kept elsewhere.
        if &*server.server != procfs::UNKNOWN {
            for reason in DropReason::OF_PROCESSES {
                self.metrics
                    .lost(&families::RECORDS_LOST, server, reason.name(), 0);
            }
        }
    }

    /// Counts a loss of `server`, and logs it if its reason was logged seldom enough; `place` says where it is, if that is
    /// known.
    pub fn count(&mut self, what: What, server: &Instance, place: Option<Place>, now_ns: u64) {
        let reason = what.reason();
        self.metrics.lost(what.family(), server, reason, 1);
        let window = self.windows.entry(reason).or_default();
        let Some(unlogged) = window.admit(now_ns) else {
            return;
        };
        let peer = place.map(|place| place.peer);
        info!(
            reason,
            server = %server.server,
            pid = peer.map(|peer| peer.tgid),
            port = peer.and_then(|peer| peer.local_port),
            peer_port = peer.and_then(|peer| peer.peer_port),
            conn = peer.map(|peer| peer.cookie),
            direction = place.map(|place| place.direction),
            bytes = place.map(|place| place.bytes),
            at_ns = place.map(|place| place.at_ns),
            unlogged,
            "{}: {}",
            match what {
                What::Lost(_) => "lost",
                What::Unfinished(_) => "request unfinished",
            },
            what.help()
        );
    }

    /// Declares these replicas again if they come back.
    pub fn forget(&mut self, replicas: &HashSet<Replica>) {
        self.declared
            .retain(|server| !replicas.contains(&server.replica));
    }

    /// Counts what the programs in the kernel lost at `server`, and logs it like [`Losses::count`]. If they do not know the
    /// server, it is only logged.
    pub fn count_dropped(&mut self, dropped: Dropped, server: Option<&Instance>, now_ns: u64) {
        let Dropped { reason, count, of } = dropped;
        if let Some(server) = server {
            self.metrics
                .lost(&families::RECORDS_LOST, server, reason.name(), count);
        }
        let window = self.windows.entry(reason.name()).or_default();
        if let Some(unlogged) = window.admit(now_ns) {
            info!(
                reason = reason.name(),
                server = server.map(|server| display(&server.server)),
                pid = of.map(|loser| loser.tgid),
                port = of.map(|loser| loser.port).filter(|&port| port != 0),
                count,
                unlogged,
                "lost: {}",
                reason.help()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exchange::{event::Latest, fixtures},
        identity::{Container, ShownLabels},
        metrics::{Format, Selection},
    };

    fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
        let text = metrics.encode(&Selection::named([name]), Format::Text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn every_reason_of_a_server_is_exported_as_zero_and_then_counted() {
        let metrics = Arc::new(Metrics::new("vm"));
        let mut losses = Losses::new(metrics.clone());
        let container = Container {
            pod: "p".into(),
            ..Container::default()
        };
        let server = Instance {
            server: "vllm".into(),
            replica: Replica::new(Some(80), &container, ShownLabels::ALL),
        };
        losses.declare(&server);
        let family = "inferprobe_records_lost_total";
        let declared = lines(&metrics, family);
        let reasons = Loss::ALL.len() + DropReason::OF_PROCESSES.len();
        assert_eq!(declared.len(), reasons);
        assert!(declared.iter().all(|line| line.ends_with(" 0")));
        let place = Place::of_silence(fixtures::exchange().peer, 5, Latest::default());
        for now_ns in 0..100 {
            losses.count(What::Lost(Loss::NotHttp), &server, Some(place), now_ns);
        }
        losses.count(What::Unfinished(Unfinished::Reset), &server, None, 100);
        losses.declare(&server);
        let expected = r#"inferprobe_records_lost_total{server="vllm",port="80",namespace="",pod="p",container="",reason="not_http"} 100"#;
        assert!(lines(&metrics, family).contains(&expected.to_owned()));
        let expected = r#"inferprobe_requests_unfinished_total{server="vllm",port="80",namespace="",pod="p",container="",reason="reset"} 1"#;
        let family = "inferprobe_requests_unfinished_total";
        assert!(lines(&metrics, family).contains(&expected.to_owned()));
    }

    #[test]
    fn a_reason_has_three_lines_a_minute_which_count_the_others() {
        let mut window = Window::default();
        let mut admitted = Vec::new();
        for second in 0..130_u64 {
            if let Some(unlogged) = window.admit(second * 1_000_000_000) {
                admitted.push((second, unlogged));
            }
        }
        assert_eq!(
            admitted,
            [
                (0, 0),
                (1, 0),
                (2, 0),
                (60, 57),
                (61, 0),
                (62, 0),
                (120, 57),
                (121, 0),
                (122, 0)
            ]
        );
    }
}
