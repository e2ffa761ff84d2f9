//! From records to metrics: pairs, names and counts what the kernel told, with no kernel at hand.
//!
//! Everything on the way is decided elsewhere; here it is called in order. Does not know where records come from.

pub mod connections;
pub mod event_loop;

use std::{io, sync::Arc};

use inferprobe_ebpf::abi::ProgressSlot;
use tracing::warn;

use crate::{
    catalogue::{
        RequestInfo,
        route::{Purpose, Route},
    },
    discovery::registry::Registry,
    exchange::{
        Exchange, Peer, Request,
        event::{Event, Loss, Unfinished},
    },
    identity::{Identity, Server},
    metrics::{LiveWorker, Metrics},
    observation::Observation,
    pipeline::connections::ConnectionTable,
    request_log::RequestLog,
    torchserve::{
        exchange::WorkerExchange,
        join::{FrontendExchange, HopJoiner, Joined},
        timing::WorkerSide,
        worker::{self, Worker, WorkerId},
    },
};

/// What is known between two records, and what comes of it.
pub struct Pipeline {
    /// Who is watched.
    pub registry: Registry,
    table: ConnectionTable,
    hop_joiner: HopJoiner,
    /// When the latest turn began: what is told in between is no older.
    now_ns: u64,
    metrics: Arc<Metrics>,
    log: Option<RequestLog>,
    outcomes: Vec<Event>,
    settled: Vec<Joined>,
}

impl Pipeline {
    /// Nothing was told yet, at `now_ns`.
    pub fn new(
        registry: Registry,
        table: ConnectionTable,
        metrics: Arc<Metrics>,
        log: Option<RequestLog>,
        now_ns: u64,
    ) -> Self {
        metrics.declare_lost(&Loss::ALL.map(Loss::name));
        metrics.declare_unfinished(&Unfinished::ALL.map(Unfinished::name));
        Self {
            registry,
            table,
            hop_joiner: HopJoiner::default(),
            now_ns,
            metrics,
            log,
            outcomes: Vec::new(),
            settled: Vec::new(),
        }
    }

    /// Begins a turn at `now_ns`.
    pub fn begin_turn(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Takes in an entry of the record ring.
    pub fn take(&mut self, entry: &[u8]) {
        self.table.take(entry, &mut self.outcomes);
        if !self.outcomes.is_empty() {
            self.settle();
        }
    }

    /// Looks after what is under way: `progress` gives what the kernel holds back of a connection.
    pub fn tick(&mut self, progress: impl FnMut(u64, u32) -> Option<ProgressSlot>) {
        self.table.tick(self.now_ns, progress, &mut self.outcomes);
        self.settle();
        for ((pid, port), tally) in self.table.coverage.take() {
            let server = self.registry.server(pid, port);
            self.metrics.carried(&server.name, tally);
        }
        let registry = &self.registry;
        self.hop_joiner.tick(
            self.now_ns,
            |pid| registry.model_of_worker(pid),
            &mut self.settled,
            &mut self.outcomes,
        );
        self.settle();
        self.flush_log();
    }

    /// Counts what waits, since nothing more will come.
    pub fn finish(&mut self) {
        self.hop_joiner.finish(&mut self.settled);
        self.settle();
        self.flush_log();
    }

    /// Notes that a watched process ended.
    pub fn exited(&mut self, pid: u32) {
        self.registry.exited(pid);
        self.table.process_ended(pid);
        self.metrics.worker_ended(pid);
        self.hop_joiner.dispatch_times.remove_worker(pid);
    }

    /// Notes that a frontend's thread handed a frame on at `at_ns`.
    pub fn dispatched(&mut self, worker: WorkerId, at_ns: u64) {
        self.hop_joiner.dispatch_times.on_dispatch(worker, at_ns);
    }

    /// Exports a worker that has its model loaded: since `loaded_ns`, where that was seen.
    pub fn introduce(&mut self, pid: u32, worker: Worker, loaded_ns: Option<u64>) {
        self.hop_joiner.dispatch_times.add_worker(pid, worker.id);
        let worker = LiveWorker {
            load_ns: loaded_ns.and_then(|loaded_ns| worker.load_ns(loaded_ns)),
            name: worker.name,
            identity: worker.identity,
        };
        self.registry.loaded(pid, &worker.identity.model);
        self.metrics.worker_loaded(pid, worker);
    }

    /// Names what came out, and counts what need not wait.
    fn settle(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        for outcome in outcomes.drain(..) {
            match outcome {
                Event::Finished(exchange) => self.answered(exchange),
                Event::Worked(worked) => self.worked(worked),
                Event::Abandoned(peer, request) => self.abandoned(peer, &request),
                Event::Accepted(peer, wait_ns) => self.accepted(peer, wait_ns),
                Event::Unfinished(reason) => self.metrics.unfinished(reason.name()),
                Event::Lost(loss) => self.metrics.lost(loss.name(), 1),
            }
        }
        // What was lost on the way came in between.
        outcomes.append(&mut self.outcomes);
        self.outcomes = outcomes;
        let mut settled = std::mem::take(&mut self.settled);
        for settled in settled.drain(..) {
            match settled {
                Joined::Response(answered, inner, worker) => {
                    self.count(*answered, inner, worker.as_deref());
                }
                Joined::Abandoned(request) => {
                    let observation = Observation::of_abandoned(request);
                    self.metrics.observe_abandoned(&observation);
                }
            }
        }
        self.settled = settled;
    }

    fn answered(&mut self, exchange: Exchange) {
        let is_grpc = exchange.is_grpc();
        let (server, route) = self.classify(exchange.peer, &exchange.request, is_grpc);
        let answered = FrontendExchange {
            exchange,
            server,
            route,
        };
        self.hop_joiner
            .on_response(answered, self.now_ns, &mut self.settled);
    }

    fn accepted(&mut self, peer: Peer, wait_ns: u64) {
        let server = self.registry.server(peer.tgid, peer.local_port);
        if !server.is_internal {
            self.metrics.accepted(&server.name, wait_ns);
        }
    }

    fn abandoned(&mut self, peer: Peer, request: &Request) {
        let (server, route) = self.classify(peer, request, request.is_call());
        if !server.is_frontend || route.purpose != Purpose::Inference {
            return;
        }
        let identity = Identity::new(server, route);
        if request.is_call() {
            self.hop_joiner
                .on_abandoned_grpc(identity, &mut self.settled);
        } else {
            self.hop_joiner
                .on_abandoned(identity, request.last_read_ns, self.now_ns);
        }
    }

    /// Who was asked, and for what.
    fn classify(&mut self, peer: Peer, request: &Request, is_grpc: bool) -> (Server, Route) {
        let server = self.registry.server(peer.tgid, peer.local_port);
        if request.method.is_empty() && !is_grpc {
            // Nothing tells what it was for, but that workers are asked by their hop_joiner alone.
            let purpose = match self.registry.is_worker(peer.tgid) {
                true => Purpose::Internal,
                false => Purpose::Inference,
            };
            return (server, Route::of(purpose));
        }
        let asked = RequestInfo {
            method: &request.method,
            target: &request.target,
            is_grpc,
            on_unix: peer.local_port.is_none(),
            named: request.named.as_deref(),
        };
        let route = self.registry.route(&server, asked);
        (server, route)
    }

    fn worked(&mut self, worked: WorkerExchange) {
        if let Some(load) = worked.load() {
            if let Some(loaded_ns) = load.loaded_ns {
                self.worker_loaded(worked.peer.tgid, load.model, loaded_ns);
            }
            return;
        }
        let model = self.registry.model_of_worker(worked.peer.tgid);
        self.hop_joiner.on_worker_exchange(
            worked,
            model.as_ref(),
            self.now_ns,
            &mut self.settled,
            &mut self.outcomes,
        );
    }

    /// Exports a worker that loaded the model `loaded`, at `loaded_ns`.
    fn worker_loaded(&mut self, pid: u32, loaded: Option<&str>, loaded_ns: u64) {
        let sees = self.registry.sees_processes();
        match sees.then(|| worker::identify(pid, loaded)).flatten() {
            Some(worker) => self.introduce(pid, worker, Some(loaded_ns)),
            None => warn!(
                pid,
                "TorchServe worker not exported: its model and version are unknown"
            ),
        }
    }

    fn count(
        &mut self,
        answered: FrontendExchange,
        inner: WorkerSide,
        worker: Option<&WorkerExchange>,
    ) {
        let FrontendExchange {
            exchange,
            server,
            route,
        } = answered;
        let observation = Observation::new(&exchange, server, route, inner);
        self.metrics.observe(&observation);
        if observation.purpose == Purpose::Internal {
            return;
        }
        if let Some(log) = &mut self.log
            && let Err(err) = log.write(&exchange, worker, &observation)
        {
            self.end_log(&err);
        }
    }

    fn flush_log(&mut self) {
        if let Some(log) = &mut self.log
            && let Err(err) = log.flush()
        {
            self.end_log(&err);
        }
    }

    fn end_log(&mut self, err: &io::Error) {
        warn!(%err, "request log ended");
        self.log = None;
    }
}
