//! Keeps the latest finished requests with all their moments, packed, in bounded memory.
//!
//! Does not depend on: windows, verdicts.

use std::collections::VecDeque;

use crate::{
    api::{
        Labels, Served,
        requests::{Request, Stream, Tokens, Worker},
        stages::Stages,
    },
    exchange::Exchange,
    history::sample::Sample,
    observation::{Observation, Protocol},
    torchserve::exchange::WorkerExchange,
};

/// Requests that are kept.
pub const KEPT: usize = 4096;
/// Bytes that they may take, packed: names are the clients' choice.
const KEPT_BYTES: usize = 2_000_000;
/// Chunks of a streamed response whose times are kept.
const GAPS: usize = 63;

/// The latest finished requests.
#[derive(Debug, Default)]
pub struct Finished {
    packed: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Number of the latest request.
    last: u64,
    scratch: Vec<u8>,
}

/// The requests that a reader has not seen yet.
#[derive(Debug, PartialEq)]
pub struct Unseen {
    /// The requests, oldest first.
    pub requests: Vec<Request>,
    /// How many are no longer kept.
    pub missed: u64,
    /// Number of the latest request.
    pub last: u64,
}

impl Finished {
    /// Adds a request, and gives it its number.
    pub fn add(&mut self, mut request: Request) {
        self.last += 1;
        request.number = self.last;
        self.scratch.clear();
        let scratch = std::mem::take(&mut self.scratch);
        let packed = postcard::to_extend(&request, scratch).expect("a request can be packed");
        while self.packed.len() >= KEPT
            || (self.bytes + packed.len() > KEPT_BYTES && !self.packed.is_empty())
        {
            let oldest = self.packed.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| oldest.len());
        }
        self.bytes += packed.len();
        self.packed.push_back(packed.as_slice().into());
        self.scratch = packed;
    }

    /// Returns at most `limit` requests after number `after`; the latest ones if that is `None`.
    pub fn after(&self, after: Option<u64>, limit: usize) -> Unseen {
        let first = self.last - self.packed.len() as u64 + 1;
        let from = match after {
            // A number of an earlier run of the agent.
            Some(after) if after > self.last => first,
            Some(after) => after + 1,
            None => first.max((self.last + 1).saturating_sub(limit as u64)),
        };
        let skipped = from.saturating_sub(first) as usize;
        let packed = self.packed.iter().skip(skipped).take(limit);
        Unseen {
            requests: packed.filter_map(|packed| unpack(packed)).collect(),
            missed: first.saturating_sub(from),
            last: self.last,
        }
    }
}

fn unpack(packed: &[u8]) -> Option<Request> {
    postcard::from_bytes(packed).ok()
}

/// Describes a finished request.
pub fn describe(
    exchange: &Exchange,
    worker: Option<&WorkerExchange>,
    observation: &Observation,
    sample: &Sample,
) -> Request {
    let Exchange {
        peer,
        request,
        response,
    } = exchange;
    let identity = &observation.identity;
    let last_read_ns = exchange.read_before_end_ns();
    let components = sample.parts.components();
    Request {
        number: 0,
        served: Served::of(identity),
        labels: Labels::of(&identity.replica),
        model_source: observation.model_source.name().into(),
        conn: peer.cookie,
        seq: request.index,
        pid: peer.tgid,
        local_port: peer.local_port,
        peer_port: peer.peer_port,
        method: request.method.clone(),
        status: observation.status,
        grpc_status: match observation.protocol {
            Protocol::Grpc(status) => status,
            Protocol::Http | Protocol::Unread => None,
        },
        arrival_ns: request.arrival_ns,
        accepted_ns: peer.accepted_ns.filter(|_| request.index == 0),
        first_read_ns: request.first_read_ns,
        last_read_ns,
        first_write_ns: (!response.first_write_bounded && response.first_write_ns >= last_read_ns)
            .then_some(response.first_write_ns),
        last_write_ns: response.last_write_ns,
        stages_ns: components.ok().as_ref().map(Stages::from),
        because: observation.because.map(|because| because.name().into()),
        request_bytes: request.bytes,
        response_bytes: response.bytes,
        gateway: observation.hop.gateway.as_deref().map(str::to_owned),
        worker: worker.map(|worker| Worker {
            pid: worker.peer.tgid,
            dispatched_ns: worker.dispatched_ns,
            arrival_ns: worker.arrival_ns,
            last_read_ns: worker.last_read_ns,
            first_write_ns: worker.first_write_ns,
            last_write_ns: worker.last_write_ns,
            reply_read_ns: worker.reply_read_ns,
        }),
        stream: response
            .chunks
            .as_deref()
            .zip(observation.stream.as_deref())
            .map(|(chunks, stream)| Stream {
                first_chunk_ns: chunks.first_ns(),
                chunks: stream.chunks,
                mean_gap_ns: stream.mean_gap_ns,
                gaps_us: match stream.gaps_unknown {
                    0 => stream.gaps_ns.iter().take(GAPS).map(us).collect(),
                    _ => Vec::new(),
                },
            }),
        tokens: observation.tokens.map(|tokens| Tokens {
            input: tokens.usage.input,
            output: tokens.usage.output,
            first_ns: tokens.first.known_ns(),
            gap_ns: tokens.gap.known_ns(),
        }),
        sample: *sample,
    }
}

fn us(ns: &u64) -> u32 {
    u32::try_from(ns / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(model: &str) -> Request {
        Request {
            served: Served {
                model: model.into(),
                ..Served::default()
            },
            stream: Some(Stream {
                gaps_us: vec![1, 2, 3],
                ..Stream::default()
            }),
            ..Request::default()
        }
    }

    fn numbers(unseen: &Unseen) -> Vec<u64> {
        unseen.requests.iter().map(|row| row.number).collect()
    }

    #[test]
    fn reader_gets_each_request_once_and_learns_what_it_missed() {
        let mut finished = Finished::default();
        assert!(numbers(&finished.after(None, 10)).is_empty());
        for _ in 0..5 {
            finished.add(request("m"));
        }
        assert_eq!(numbers(&finished.after(None, 2)), [4, 5]);
        assert_eq!(numbers(&finished.after(Some(0), 2)), [1, 2]);
        let unseen = finished.after(Some(2), 10);
        assert_eq!((numbers(&unseen), unseen.missed), (vec![3, 4, 5], 0));
        assert_eq!(unseen.requests[0].served.model, "m");
        assert!(numbers(&finished.after(Some(5), 10)).is_empty());
        // Of an earlier run.
        assert_eq!(numbers(&finished.after(Some(99), 10)).len(), 5);
        for _ in 0..KEPT {
            finished.add(request("m"));
        }
        let unseen = finished.after(Some(3), 1);
        assert_eq!((numbers(&unseen), unseen.missed), (vec![6], 2));
        assert_eq!(unseen.last, 5 + KEPT as u64);
    }

    #[test]
    fn long_names_do_not_take_more_memory() {
        let mut finished = Finished::default();
        let long = "x".repeat(4096);
        for _ in 0..KEPT {
            finished.add(request(&long));
            assert!(finished.bytes <= KEPT_BYTES);
        }
        assert!(finished.packed.len() > 300, "{}", finished.packed.len());
    }

    /// Streams of language models in pods have the longest rows that are common.
    #[test]
    fn as_many_streams_of_pods_are_kept_as_are_promised() {
        let mut finished = Finished::default();
        let mut row = request("meta-llama/Llama-3.3-70B-Instruct");
        row.labels = Labels::new([
            "8000",
            "inference-prod",
            "llama-70b-vllm-6c9d8f7b5d-x2k4q",
            "vllm-openai",
        ]);
        for moment in [&mut row.arrival_ns, &mut row.last_write_ns] {
            *moment = Some(90 * 86_400_000_000_000);
        }
        (row.first_read_ns, row.last_read_ns) = (90 << 43, 90 << 43);
        row.stream = Some(Stream {
            gaps_us: vec![31_000; GAPS],
            ..Stream::default()
        });
        for _ in 0..KEPT {
            finished.add(row.clone());
        }
        assert_eq!(
            finished.packed.len(),
            KEPT,
            "{}",
            finished.bytes / finished.packed.len()
        );
    }

    #[test]
    fn packed_request_is_what_it_was() {
        let mut row = request("m");
        row.arrival_ns = Some(u64::MAX);
        row.stages_ns = Some(Stages {
            queue: 7,
            ..Stages::default()
        });
        row.tokens = Some(Tokens::default());
        row.worker = Some(Worker::default());
        row.because = Some("queue".into());
        row.labels = Labels::new(["8000", "", "vllm-0", ""]);
        let mut finished = Finished::default();
        finished.add(row.clone());
        row.number = 1;
        assert_eq!(finished.after(None, 1).requests, [row]);
    }
}
