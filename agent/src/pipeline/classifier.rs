//! Finds the server and the route of each exchange, and joins the two hops of TorchServe's requests.
//!
//! Comes after the connections and before the recorder.
//! Does not depend on: the kernel, the connections.

use std::{collections::BTreeMap, sync::Arc};

use tracing::{info, warn};

use crate::{
    catalogue::memo::RouteMemo,
    catalogue::{
        RequestInfo,
        route::{ModelSource, Purpose, Route},
    },
    discovery::{procfs, registry::Registry, trials::Trials},
    exchange::{
        Exchange, Peer, Request,
        byte_accounting::{ByteCounts, ServingSocket},
        event::{Event, Latest, Loss, Place, Sink, TlsEvent},
    },
    identity::{Hop, Identity, Instance, Replica, Server},
    metrics::LiveWorker,
    pipeline::{
        drops::Dropped,
        gateways::{Answered, Gateways},
        losses::{Losses, What},
        recorder::Recorder,
    },
    protocol::{grpc, target},
    torchserve::{
        connection::WorkerSink,
        exchange::WorkerExchange,
        join::{FrontendExchange, HopJoiner},
        worker::{self, Worker, WorkerId},
    },
};

/// Status code of a response that agrees to another protocol.
const SWITCHING_PROTOCOLS: u16 = 101;

/// What is known of the processes, and the requests whose other hop is still to come.
pub struct Classifier {
    /// Processes that are watched.
    pub(super) registry: Registry,
    /// What the latest requests were for.
    routes: RouteMemo,
    /// Listeners that are undecided.
    pub(super) trials: Trials,
    gateways: Gateways,
    /// Responses of processes that send requests themselves, until the requests that they sent are known.
    held: Vec<FrontendExchange>,
    joiner: HopJoiner,
    /// Time of the events to come, ns.
    pub(super) now_ns: u64,
    /// Where measurements go.
    pub(super) recorder: Recorder,
    pub(super) losses: Losses,
    /// Where the losses of the events to come are.
    place: Option<Place>,
}

impl Classifier {
    /// Starts at `now_ns`, with nothing to join.
    pub fn new(registry: Registry, recorder: Recorder, now_ns: u64) -> Self {
        let mut losses = Losses::new(recorder.metrics.clone());
        losses.declare(&unknown());
        Self {
            registry,
            routes: RouteMemo::default(),
            trials: Trials::default(),
            gateways: Gateways::default(),
            held: Vec::new(),
            joiner: HopJoiner::default(),
            now_ns,
            recorder,
            losses,
            place: None,
        }
    }

    /// Records the responses that have waited long enough for their other hop, after the connections had their tick.
    pub fn tick(&mut self) {
        self.release();
        let registry = &self.registry;
        self.joiner.tick(
            self.now_ns,
            |pid| registry.model_of_worker(pid),
            &mut self.recorder,
        );
        self.count_unpaired();
        self.recorder.flush_log(self.now_ns);
    }

    /// Records every response that still waits: nothing more will come.
    pub fn finish(&mut self) {
        self.release();
        self.joiner.finish(&mut self.recorder);
        self.count_unpaired();
        self.recorder.flush_log(self.now_ns);
    }

    /// Records bytes of a server.
    pub fn on_bytes(&mut self, (pid, port): ServingSocket, counts: ByteCounts) {
        if self.undecided_port(pid, port).is_some() {
            return;
        }
        let server = self.registry.server(pid, port).instance();
        self.losses.declare(&server);
        self.recorder.metrics.carried(&server, counts);
    }

    /// Forgets a process that ended.
    pub fn on_process_exit(&mut self, pid: u32) {
        self.registry.exited(pid);
        self.gateways.exited(pid);
        self.recorder.metrics.worker_ended(pid);
        self.joiner.dispatch_times.remove_worker(pid);
    }

    /// Records that a frontend's thread dispatched a frame to a worker at `at_ns`.
    pub fn on_dispatch(&mut self, worker: WorkerId, at_ns: u64) {
        self.joiner.dispatch_times.on_dispatch(worker, at_ns);
    }

    /// Exports a worker whose model is loaded, since `loaded_ns` if that was observed.
    pub fn add_worker(&mut self, pid: u32, worker: Worker, loaded_ns: Option<u64>) {
        self.joiner.dispatch_times.add_worker(pid, worker.id);
        let worker = LiveWorker {
            load_ns: loaded_ns.and_then(|loaded_ns| worker.load_ns(loaded_ns)),
            name: worker.name,
            // Only its frontend connects to its listener.
            identity: Identity {
                replica: self.registry.server(pid, None).replica,
                ..worker.identity
            },
        };
        self.registry.loaded(pid, &worker.identity.model);
        self.recorder.metrics.worker_loaded(pid, worker);
    }

    fn on_exchange(&mut self, exchange: Exchange) {
        let is_grpc = exchange.is_grpc();
        let peer = exchange.peer;
        self.registry.serves(peer.tgid, peer.local_port);
        let status = exchange.response.status;
        let (server, mut route) = self.classify(peer, &exchange.request, is_grpc, status);
        if route.by_body && route.model.is_none() {
            let generation = exchange.response.generation.as_deref();
            route.model = generation.and_then(|found| Some(found.model()?.to_owned()));
            route.model_source = route.model.as_ref().map(|_| ModelSource::ResponseBody);
        }
        let mut hop = Hop::ONLY;
        if let Some((client, sender)) = self.sender(peer) {
            if sender.as_ref().is_some_and(|sender| server.is_same(sender)) {
                route = Route::of(Purpose::Internal);
            } else if route.purpose == Purpose::Inference {
                let model = model_of(&route, &server);
                let at_ns = exchange.request.first_read_ns;
                hop = Hop {
                    gateway: sender.map(|sender| sender.name),
                    is_nearest: self.gateways.sent(client, at_ns, &model),
                };
            }
        }
        let frontend_exchange = FrontendExchange {
            exchange,
            server,
            route,
            hop,
        };
        let is_inference = frontend_exchange.route.purpose == Purpose::Inference;
        if is_inference && lacks_model(&frontend_exchange) {
            let place = self.place;
            self.lose(What::Lost(Loss::BodyCut), place);
        }
        if is_inference && self.gateways.has_sent(peer.tgid) {
            self.held.push(frontend_exchange);
            return;
        }
        self.joiner
            .on_response(frontend_exchange, self.now_ns, &mut self.recorder);
    }

    /// Returns the other process at the client's end of a connection, and the server that it is, if it is one.
    fn sender(&mut self, peer: Peer) -> Option<(u32, Option<Server>)> {
        let client = peer.client.filter(|&client| client != peer.tgid)?;
        Some((client, self.registry.sender(client)))
    }

    /// Returns what an open request will count under; `None` if it is no inference of a client.
    pub fn identify_open(&mut self, peer: Peer, request: &Request) -> Option<Identity> {
        let (server, route) = self.classify(peer, request, request.is_call(), 0);
        let sender = self.sender(peer).and_then(|(_, sender)| sender);
        let is_internal = sender.is_some_and(|sender| server.is_same(&sender));
        let counts = route.purpose == Purpose::Inference && !is_internal;
        counts.then(|| Identity::new(server, route))
    }

    /// Forgets what requests were for: the catalogue is another one.
    pub fn forget_routes(&mut self) {
        self.routes = RouteMemo::default();
    }

    /// Forgets containers that ended long ago.
    pub fn forget_replicas(&mut self) {
        let running = self.registry.replicas();
        let forgotten = self.recorder.metrics.forget_replicas(&running);
        if forgotten.is_empty() {
            return;
        }
        self.losses.forget(&forgotten);
        if let Some(history) = &self.recorder.history {
            history.models().forget(&forgotten);
            history.trends().forget_replicas(&forgotten);
        }
    }

    /// Exports how many requests each identity has open.
    pub fn set_in_flight(&self, open: &BTreeMap<Identity, u64>) {
        self.recorder.metrics.set_in_flight(open);
    }

    /// Sets how many connections are open at each serving socket.
    pub fn set_connections(&mut self, open: BTreeMap<ServingSocket, u64>) {
        let mut of_servers = BTreeMap::new();
        for ((pid, port), count) in open {
            if self.undecided_port(pid, port).is_none() {
                let server = self.registry.server(pid, port).instance();
                *of_servers.entry(server).or_default() += count;
            }
        }
        self.recorder.metrics.set_connections(&of_servers);
    }

    /// Records the responses that were held back: by now, the requests that their processes sent on are known.
    fn release(&mut self) {
        for mut held in std::mem::take(&mut self.held) {
            let Exchange {
                peer,
                request,
                response,
            } = &held.exchange;
            let answered = Answered {
                from_ns: request.first_read_ns,
                to_ns: response.last_write_ns.unwrap_or(self.now_ns),
                model: model_of(&held.route, &held.server),
            };
            held.hop.is_nearest &= self.gateways.answered(peer.tgid, answered);
            self.joiner
                .on_response(held, self.now_ns, &mut self.recorder);
        }
    }

    fn on_accept(&mut self, peer: Peer, wait_ns: u64) {
        let server = self.registry.server(peer.tgid, peer.local_port);
        if !server.is_internal {
            self.recorder.metrics.accepted(&server.instance(), wait_ns);
        }
    }

    fn on_tls(&mut self, peer: Peer, event: TlsEvent) {
        let server = self.registry.server(peer.tgid, peer.local_port);
        if !server.is_internal {
            self.recorder.metrics.tls(&server.instance(), event);
        }
    }

    fn on_abandoned(&mut self, peer: Peer, request: &Request) {
        let (server, route) = self.classify(peer, request, request.is_call(), 0);
        if !server.is_frontend || route.purpose != Purpose::Inference {
            return;
        }
        let identity = Identity::new(server, route);
        if request.is_call() {
            self.joiner.on_abandoned_grpc(identity, &mut self.recorder);
        } else {
            self.joiner
                .on_abandoned(identity, request.last_read_ns, self.now_ns);
        }
    }

    /// Finds the server of a request and what the request is for; `status` is that of its response, or 0.
    fn classify(
        &mut self,
        peer: Peer,
        request: &Request,
        is_grpc: bool,
        status: u16,
    ) -> (Server, Route) {
        let server = self.registry.server(peer.tgid, peer.local_port);
        if request.method.is_empty() && !is_grpc {
            // The head was not copied. Only a frontend sends requests to a worker.
            let purpose = match self.registry.is_worker(peer.tgid) {
                true => Purpose::Internal,
                false => Purpose::Inference,
            };
            return (server, Route::of(purpose));
        }
        let info = info_of(peer, request, is_grpc, status);
        let registry = &self.registry;
        let route = self
            .routes
            .route(&server, info, || registry.route(&server, info));
        (server, route)
    }

    /// Returns the port if requests to it are only looked at: neither its process nor the port itself is watched.
    fn undecided_port(&self, pid: u32, port: Option<u16>) -> Option<u16> {
        let port = port.filter(|&port| self.trials.covers(port))?;
        (!self.registry.is_watched(pid)).then_some(port)
    }

    /// Lets an exchange of an undecided listener decide about it; returns whether it is an inference server, which is
    /// watched from this request on.
    fn decides(&mut self, port: u16, exchange: &Exchange) -> bool {
        let Exchange {
            peer,
            request,
            response,
        } = exchange;
        let status = match response.grpc_status {
            Some(status) => grpc::http_status_of(status),
            None => response.status,
        };
        let info = info_of(*peer, request, exchange.is_grpc(), status);
        let shows = self.registry.shows(info, status);
        if !self.trials.on_request(port, peer.tgid, shows) {
            return false;
        }
        let why = format!(
            "it responded {status} to {} {}",
            request.method,
            target::path_of(&request.target)
        );
        info!(pid = peer.tgid, port, why, "inference server found");
        self.registry.discovered(peer.tgid, &why)
    }

    /// Counts a loss of the connection that is being processed; of no known server, if there is none.
    pub(super) fn lose(&mut self, what: What, place: Option<Place>) {
        let server = match place.map(|place| place.peer) {
            Some(peer) => self.registry.server(peer.tgid, peer.local_port).instance(),
            None => unknown(),
        };
        self.losses.count(what, &server, place, self.now_ns);
    }

    /// Counts what the programs in the kernel lost at a server; returns `false` if they do not know at which.
    pub fn on_dropped(&mut self, dropped: Dropped) -> bool {
        let server = dropped.of.and_then(|loser| {
            let port = (loser.port != 0).then_some(loser.port);
            let server = self.registry.server(loser.tgid, port).instance();
            (&*server.server != procfs::UNKNOWN).then_some(server)
        });
        self.losses
            .count_dropped(dropped, server.as_ref(), self.now_ns);
        server.is_some()
    }

    /// Counts the replies that the join could not pair.
    fn count_unpaired(&mut self) {
        for peer in std::mem::take(&mut self.recorder.unpaired) {
            let place = Place::of_silence(peer, self.now_ns, Latest::default());
            self.lose(What::Lost(Loss::ReplyUnpaired), Some(place));
        }
    }

    /// Exports the worker `pid`, which loaded the model `loaded` at `loaded_ns`.
    fn on_model_loaded(&mut self, pid: u32, loaded: Option<&str>, loaded_ns: u64) {
        let sees = self.registry.sees_processes();
        match sees.then(|| worker::identify(pid, loaded)).flatten() {
            Some(worker) => self.add_worker(pid, worker, Some(loaded_ns)),
            None => warn!(
                pid,
                "TorchServe worker not exported: its model and version are unknown"
            ),
        }
    }
}

/// The server of what belongs to none that is known.
fn unknown() -> Instance {
    Instance {
        server: procfs::UNKNOWN.into(),
        replica: Replica::default(),
    }
}

/// The parts of a request that decide its purpose; `status` is that of its response, or 0.
fn info_of(peer: Peer, request: &Request, is_grpc: bool, status: u16) -> RequestInfo<'_> {
    RequestInfo {
        method: &request.method,
        target: &request.target,
        is_grpc,
        is_upgraded: status == SWITCHING_PROTOCOLS,
        on_unix: peer.local_port.is_none(),
        user_agent: request.user_agent.as_deref(),
        named: request.named.as_deref(),
    }
}

/// Whether a body that was not searched to its end may name another model than the one that the request counts under.
fn lacks_model(frontend_exchange: &FrontendExchange) -> bool {
    let FrontendExchange {
        exchange, route, ..
    } = frontend_exchange;
    route.by_body && route.model.is_none() && exchange.request.content_cut
}

/// The model of a request, as its labels will name it.
fn model_of(route: &Route, server: &Server) -> Arc<str> {
    let named = route.model.as_deref().map(Arc::from);
    named.unwrap_or_else(|| server.model.clone())
}

impl Sink for Classifier {
    fn event(&mut self, event: Event) {
        let peer = self.place.map(|place| place.peer);
        let undecided = peer.and_then(|peer| self.undecided_port(peer.tgid, peer.local_port));
        if let Some(port) = undecided {
            let Event::Finished(exchange) = &event else {
                return;
            };
            if !self.decides(port, exchange) {
                return;
            }
        }
        match event {
            Event::Finished(exchange) => self.on_exchange(exchange),
            Event::Abandoned(peer, request) => self.on_abandoned(peer, &request),
            Event::Accepted(peer, wait_ns) => self.on_accept(peer, wait_ns),
            Event::Tls(peer, event) => self.on_tls(peer, event),
            Event::Unfinished(reason) => self.lose(What::Unfinished(reason), self.place),
            Event::Lost(loss) => self.lose(What::Lost(loss), self.place),
        }
    }

    fn enter(&mut self, place: Place) {
        self.place = Some(place);
    }
}

impl WorkerSink for Classifier {
    fn worked(&mut self, worked: WorkerExchange) {
        if let Some(load) = worked.load() {
            if let Some(loaded_ns) = load.loaded_ns {
                self.on_model_loaded(worked.peer.tgid, load.model, loaded_ns);
            }
            return;
        }
        let model: Option<Arc<str>> = self.registry.model_of_worker(worked.peer.tgid);
        self.joiner
            .on_worker_exchange(worked, model.as_ref(), self.now_ns, &mut self.recorder);
        self.count_unpaired();
    }
}
