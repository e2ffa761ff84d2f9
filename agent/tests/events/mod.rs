//! Keeps what came of a connection's records.

use inferprobe::{
    exchange::event::{Event, Sink},
    torchserve::{connection::WorkerSink, exchange::WorkerExchange},
};

/// The events; exchanges of workers are not kept.
#[derive(Default)]
pub(crate) struct Events(pub(crate) Vec<Event>);

impl Sink for Events {
    fn event(&mut self, event: Event) {
        self.0.push(event);
    }
}

impl WorkerSink for Events {
    fn worked(&mut self, _: WorkerExchange) {}
}
