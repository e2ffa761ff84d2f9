//! Holds a recording, and says what was known at a moment of it.
//!
//! Does not depend on: a clock, how the file is written.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Read,
};

use crate::{
    api::{
        Labels, Served, Source,
        history::{History, Wanted, Window},
        live::Live,
        requests::{Request, Requests},
    },
    identity::REPLICA_LABELS,
    recording::file::{self, FileError},
};

/// What a history is about: who served, and where that runs; empty: the host.
type Of = (Vec<Served>, Vec<Labels>);

/// A recording.
#[derive(Debug, Clone)]
pub struct Recording {
    /// What was known, oldest first; never empty.
    lives: Vec<Live>,
    /// Finished requests, oldest first.
    requests: Vec<Request>,
    /// Each history, by what it is about.
    histories: BTreeMap<Of, History>,
    /// Requests that had finished, and were no longer kept when they were asked for.
    pub missed: u64,
    /// Whether the file was cut off.
    pub is_cut: bool,
}

impl Recording {
    /// Reads a recording, compressed or not.
    pub fn read(from: impl Read) -> Result<Self, FileError> {
        let mut lives: Vec<Live> = Vec::new();
        let mut requests: BTreeMap<u64, Request> = BTreeMap::new();
        let mut histories: BTreeMap<Of, History> = BTreeMap::new();
        let mut missed = 0;
        let is_cut = file::read(from, |entry| {
            lives.extend(entry.live);
            if let Some(answer) = entry.requests {
                missed += answer.missed;
                requests.extend(answer.requests.into_iter().map(|one| (one.number, one)));
            }
            if let Some(history) = entry.history {
                add(&mut histories, history);
            }
        })?;
        if lives.is_empty() {
            return Err(FileError::Empty);
        }
        let histories = find_places(&lives, &mut requests, histories);
        Ok(Self {
            lives,
            requests: requests.into_values().collect(),
            histories,
            missed,
            is_cut,
        })
    }

    /// Returns how long it is, ms.
    pub fn length_ms(&self) -> u64 {
        self.ms(self.last())
    }

    fn first(&self) -> &Live {
        &self.lives[0]
    }

    fn last(&self) -> &Live {
        &self.lives[self.lives.len() - 1]
    }

    fn ms(&self, live: &Live) -> u64 {
        let begun_ns = self.first().source.now_ns;
        live.source.now_ns.saturating_sub(begun_ns) / 1_000_000
    }

    /// Returns what was known `at_ms` after its start.
    pub fn live(&self, at_ms: u64) -> &Live {
        let after = self.lives.partition_point(|live| self.ms(live) <= at_ms);
        &self.lives[after.saturating_sub(1)]
    }

    /// Returns at most `limit` requests after request number `after` that had finished by then; the latest ones if that is
    /// `None`.
    pub fn requests(&self, at_ms: u64, after: Option<u64>, limit: usize) -> Requests {
        let source = &self.live(at_ms).source;
        let finished = self
            .requests
            .partition_point(|request| request.sample.at_ns <= source.now_ns);
        let finished = &self.requests[..finished];
        let last = finished.last().map_or(0, |request| request.number);
        let unseen = match after {
            None => &finished[finished.len().saturating_sub(limit)..],
            Some(after) => {
                let seen = finished.partition_point(|request| request.number <= after);
                let unseen = &finished[seen..];
                &unseen[..unseen.len().min(limit)]
            }
        };
        Requests {
            source: source.clone(),
            next: unseen.last().map_or(last, |request| request.number),
            last,
            missed: 0,
            requests: unseen.to_vec(),
        }
    }

    /// Returns the windows that are wanted and were over by then; at the end also the last one.
    pub fn history(&self, at_ms: u64, wanted: &Wanted) -> History {
        let source = &self.live(at_ms).source;
        let is_end = at_ms >= self.length_ms();
        let now_ms = source.now_ns / 1_000_000;
        let from = wanted.from.unwrap_or(0);
        let mut sum = History {
            source: source.clone(),
            window_ms: self.window_ms(),
            ..History::default()
        };
        let mut windows: BTreeMap<u64, Window> = BTreeMap::new();
        for ((served, labels), history) in
            self.histories.iter().filter(|(of, _)| is_meant(of, wanted))
        {
            sum.served.extend(served.iter().cloned());
            sum.labels.extend(labels.iter().cloned());
            let known = history.windows.iter().filter(|window| {
                let is_over = (window.index + 1) * sum.window_ms <= now_ms;
                window.index >= from && (is_end || is_over)
            });
            for window in known {
                windows.entry(window.index).or_default().merge(window);
            }
            let first_ns = from * sum.window_ms * 1_000_000;
            let readings = history.gpus.iter();
            sum.gpus.extend(
                readings.filter(|reading| (first_ns..=source.now_ns).contains(&reading.at_ns)),
            );
        }
        sum.windows = windows.into_values().collect();
        sum
    }

    fn window_ms(&self) -> u64 {
        let mut histories = self.histories.values();
        histories.next().map_or(0, |history| history.window_ms)
    }

    /// Returns when and by whom its first answer was made.
    pub fn source(&self) -> &Source {
        &self.first().source
    }
}

/// Whether a history is one that is wanted: that of the host if nothing says which.
fn is_meant((served, labels): &Of, wanted: &Wanted) -> bool {
    let [served] = served.as_slice() else {
        return served.is_empty() && wanted.is_whole();
    };
    let names = [&*served.model, &*served.version, &*served.server];
    let replica = match labels.as_slice() {
        [labels] => REPLICA_LABELS.map(|name| labels.get(name)),
        // Of all replicas together: it tells nothing of one.
        _ if wanted.replica.iter().any(Option::is_some) => return false,
        _ => Default::default(),
    };
    !wanted.is_whole() && wanted.is_of(names, replica)
}

/// Recordings of earlier agents do not say where the server of a request or a history runs. It is known all the same if
/// the model was served in only one place.
fn find_places(
    lives: &[Live],
    requests: &mut BTreeMap<u64, Request>,
    histories: BTreeMap<Of, History>,
) -> BTreeMap<Of, History> {
    let mut places: HashMap<&Served, HashSet<&Labels>> = HashMap::new();
    for model in lives.iter().flat_map(|live| &live.models) {
        places
            .entry(&model.served)
            .or_default()
            .insert(&model.labels);
    }
    let only = |served: &Served| match places.get(served) {
        Some(places) if places.len() == 1 => places.iter().next().copied(),
        _ => None,
    };
    for request in requests.values_mut().filter(|one| one.labels.is_empty()) {
        request.labels = only(&request.served).cloned().unwrap_or_default();
    }
    let placed = histories
        .into_iter()
        .map(|((served, mut labels), mut history)| {
            if let ([one], []) = (served.as_slice(), labels.as_slice()) {
                labels.extend(only(one).cloned());
                history.labels.clone_from(&labels);
            }
            ((served, labels), history)
        });
    placed.collect()
}

/// Adds windows and readings to the history that they continue. Of a window that comes again, the later one counts.
fn add(histories: &mut BTreeMap<Of, History>, history: History) {
    let of = (history.served.clone(), history.labels.clone());
    let Some(known) = histories.get_mut(&of) else {
        histories.insert(of, history);
        return;
    };
    if let Some(first) = history.windows.first() {
        known.windows.retain(|window| window.index < first.index);
    }
    known.windows.extend(history.windows);
    known.gpus.extend(history.gpus);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{
            history::{GpuReading, Window},
            live::Model,
        },
        recording::file::Writer,
    };

    const S: u64 = 1_000_000_000;

    fn source(now_ns: u64) -> Source {
        Source {
            now_ns,
            ..Source::default()
        }
    }

    fn recording() -> Recording {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        for at_s in 100..=110 {
            writer
                .live(Live {
                    source: source(at_s * S),
                    span_ms: at_s,
                    ..Live::default()
                })
                .unwrap();
            let mut request = Request {
                number: at_s,
                ..Request::default()
            };
            request.sample.at_ns = at_s * S - 1;
            writer
                .requests(Requests {
                    missed: u64::from(at_s == 105),
                    requests: vec![request],
                    ..Requests::default()
                })
                .unwrap();
            if at_s % 5 == 0 {
                let windows = (19..=at_s / 5).map(|index| Window {
                    index,
                    requests: at_s,
                    ..Window::default()
                });
                writer
                    .history(History {
                        window_ms: 5000,
                        windows: windows.collect(),
                        gpus: vec![GpuReading {
                            at_ns: at_s * S,
                            ..GpuReading::default()
                        }],
                        ..History::default()
                    })
                    .unwrap();
            }
        }
        Recording::read(file.as_slice()).unwrap()
    }

    #[test]
    fn only_what_was_known_by_then_is_shown() {
        let recording = recording();
        assert_eq!(recording.length_ms(), 10_000);
        for (at_ms, span_ms) in [
            (0, 100),
            (999, 100),
            (1000, 101),
            (4500, 104),
            (99_000, 110),
        ] {
            assert_eq!(recording.live(at_ms).span_ms, span_ms, "{at_ms}");
        }
        let numbers = |at_ms, after| -> Vec<u64> {
            let answer = recording.requests(at_ms, after, 100);
            assert_eq!(
                answer.next,
                answer.requests.last().map_or(answer.last, |one| one.number)
            );
            answer
                .requests
                .iter()
                .map(|request| request.number)
                .collect()
        };
        assert_eq!(numbers(2000, None), [100, 101, 102]);
        assert_eq!(numbers(2000, Some(101)), [102]);
        assert_eq!(numbers(2000, Some(102)), [0; 0]);
        assert_eq!(numbers(99_000, None).len(), 11);
        let limited = |after| {
            let answer = recording.requests(99_000, after, 2);
            let numbers: Vec<u64> = answer.requests.iter().map(|one| one.number).collect();
            (numbers, answer.next, answer.last)
        };
        assert_eq!(limited(None), (vec![109, 110], 110, 110));
        assert_eq!(limited(Some(101)), (vec![102, 103], 103, 110));
        assert_eq!((recording.missed, recording.is_cut), (1, false));
    }

    #[test]
    fn windows_are_whole_and_the_last_one_is_there_at_the_end() {
        let recording = recording();
        let windows = |at_ms| -> Vec<(u64, u64)> {
            let history = recording.history(at_ms, &Wanted::default());
            history
                .windows
                .iter()
                .map(|one| (one.index, one.requests))
                .collect()
        };
        assert_eq!(windows(0), [(19, 100)]);
        assert_eq!(windows(5000), [(19, 100), (20, 105)]);
        assert_eq!(
            windows(10_000),
            [(19, 100), (20, 105), (21, 110), (22, 110)]
        );
        assert_eq!(recording.history(5000, &Wanted::default()).gpus.len(), 2);
        let from = Wanted {
            from: Some(21),
            ..Wanted::default()
        };
        assert_eq!(recording.history(10_000, &from).windows.len(), 2);
        let other = Wanted::of(&Served::default(), &Labels::default());
        let other = recording.history(5000, &other);
        assert_eq!((other.windows.len(), other.window_ms), (0, 5000));
    }

    fn at(port: &str) -> Labels {
        Labels::new([port, "", "", ""])
    }

    /// Records two seconds of a model that is served at these ports; an earlier agent does not write where.
    fn replicas(ports: &[&str], is_earlier: bool) -> Recording {
        let served = Served {
            model: "m".into(),
            ..Served::default()
        };
        let live = |at_s| Live {
            source: source(at_s * S),
            models: ports
                .iter()
                .map(|port| Model {
                    served: served.clone(),
                    labels: at(port),
                    ..Model::default()
                })
                .collect(),
            ..Live::default()
        };
        let written = |port: &str| {
            if is_earlier {
                Labels::default()
            } else {
                at(port)
            }
        };
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        writer.live(live(100)).unwrap();
        for (number, port) in (1..).zip(ports) {
            let requests = vec![Request {
                number,
                served: served.clone(),
                labels: written(port),
                ..Request::default()
            }];
            let requests = Requests {
                requests,
                ..Requests::default()
            };
            writer.requests(requests).unwrap();
            let history = History {
                window_ms: 5000,
                served: vec![served.clone()],
                labels: match is_earlier {
                    true => Vec::new(),
                    false => vec![at(port)],
                },
                windows: vec![Window {
                    index: 19,
                    requests: number,
                    ..Window::default()
                }],
                ..History::default()
            };
            writer.history(history).unwrap();
        }
        writer.live(live(101)).unwrap();
        let text = String::from_utf8(file).unwrap();
        let text = match is_earlier {
            true => text
                .replace("\"labels\":{},", "")
                .replace("\"labels\":[],", ""),
            false => text,
        };
        Recording::read(text.as_bytes()).unwrap()
    }

    fn requests_of(recording: &Recording, labels: &Labels) -> u64 {
        let served = Served {
            model: "m".into(),
            ..Served::default()
        };
        let history = recording.history(1000, &Wanted::of(&served, labels));
        history.windows.iter().map(|window| window.requests).sum()
    }

    #[test]
    fn replicas_keep_their_own_requests_and_windows() {
        let recording = replicas(&["8001", "8002", "8003"], false);
        for (number, port) in (1..).zip(["8001", "8002", "8003"]) {
            assert_eq!(requests_of(&recording, &at(port)), number, "{port}");
        }
        assert_eq!(requests_of(&recording, &at("8004")), 0);
        let together = Wanted {
            model: Some("m".into()),
            ..Wanted::default()
        };
        let together = recording.history(1000, &together);
        assert_eq!(
            (together.windows[0].requests, together.labels.len()),
            (6, 3)
        );
        let requests = recording.requests(1000, None, 9).requests;
        let ports: Vec<&str> = requests.iter().map(|one| one.labels.get("port")).collect();
        assert_eq!(ports, ["8001", "8002", "8003"]);
    }

    #[test]
    fn an_earlier_recording_tells_of_a_replica_only_if_there_is_one() {
        let alone = replicas(&["8001"], true);
        assert_eq!(requests_of(&alone, &at("8001")), 1);
        assert_eq!(alone.requests(1000, None, 9).requests[0].labels, at("8001"));
        let several = replicas(&["8001", "8002"], true);
        assert_eq!(requests_of(&several, &at("8001")), 0);
        let requests = several.requests(1000, None, 9).requests;
        assert!(requests.iter().all(|one| one.labels.is_empty()));
        let together = Wanted {
            model: Some("m".into()),
            ..Wanted::default()
        };
        assert!(!several.history(1000, &together).windows.is_empty());
    }

    #[test]
    fn a_recording_without_an_answer_is_refused() {
        let mut file = Vec::new();
        Writer::new(&mut file).unwrap();
        let err = Recording::read(file.as_slice()).unwrap_err();
        assert!(matches!(err, FileError::Empty), "{err}");
    }
}
