//! Writes and reads the file of a recording: a line of JSON that says what it is, then one for each answer of the API.
//!
//! The answers are the API's own, so that a recording shows what the agent showed. Readers ignore keys that they do not
//! know, and a last line that was cut off.
//! Does not depend on: when answers are asked for.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
};

use flate2::bufread::GzDecoder;
use serde::{Deserialize, Serialize};

use crate::api::{self, Labels, Served, history::History, live::Live, requests::Requests};

/// Version of the form.
const VERSION: u32 = 1;
/// Longest line that is read, bytes: the history of a host is about 100 KB, 4,096 requests are 4 MB.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// First bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// Version of the form; the key says what the file is.
    inferprobe_recording: u32,
    /// Version of the API whose answers follow.
    api_version: u32,
    /// Version of the program that wrote it.
    written_by: String,
}

/// A further line: one answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Entry {
    /// What was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    /// Requests that had finished since the entry before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
    /// Windows of a model, or of the host, that were not yet in the file, or not yet over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// Writes a recording. Each line is complete when it is written, so the file can be read at any time.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    /// Number of the newest window, and moment of the newest reading of a GPU, that the file has of each history.
    written: HashMap<(Vec<Served>, Vec<Labels>), (u64, u64)>,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    pub fn new(to: W) -> io::Result<Self> {
        let mut writer = Self {
            to,
            written: HashMap::new(),
        };
        writer.line(&Header {
            inferprobe_recording: VERSION,
            api_version: api::VERSION,
            written_by: env!("CARGO_PKG_VERSION").into(),
        })?;
        Ok(writer)
    }

    /// Adds what was known.
    pub fn live(&mut self, live: Live) -> io::Result<()> {
        self.line(&Entry {
            live: Some(live),
            ..Entry::default()
        })
    }

    /// Adds requests, unless there are none and none was missed.
    pub fn requests(&mut self, requests: Requests) -> io::Result<()> {
        if requests.requests.is_empty() && requests.missed == 0 {
            return Ok(());
        }
        self.line(&Entry {
            requests: Some(requests),
            ..Entry::default()
        })
    }

    /// Adds what the file does not have yet of a history.
    pub fn history(&mut self, mut history: History) -> io::Result<()> {
        let (window, reading_ns) = self
            .written
            .entry((history.served.clone(), history.labels.clone()))
            .or_default();
        // The newest window of the file may have grown.
        history.windows.retain(|one| one.index >= *window);
        history.gpus.retain(|one| one.at_ns > *reading_ns);
        if let Some(newest) = history.windows.last() {
            *window = newest.index;
        }
        if let Some(newest) = history.gpus.last() {
            *reading_ns = newest.at_ns;
        }
        self.line(&Entry {
            history: Some(history),
            ..Entry::default()
        })
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.to.write_all(&text)?;
        self.to.flush()
    }
}

/// Why a file is no recording that can be shown.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("not a recording; `inferprobe record 10m > FILE` makes one")]
    Other,
    /// A later program wrote it.
    #[error("a recording of version {0}, made by a later inferprobe; show it with that one")]
    Later(u32),
    /// A line is damaged.
    #[error("line {line} is damaged: {reason}")]
    Damaged {
        /// Line, counted from 1.
        line: usize,
        /// Reason of the parser.
        reason: String,
    },
    /// It ended before the first answer.
    #[error("the recording is empty: it ended before the first answer of the agent")]
    Empty,
}

/// Passes each entry of a recording to `each`; returns whether the last line was cut off.
pub fn read(from: impl Read, mut each: impl FnMut(Entry)) -> Result<bool, FileError> {
    let mut from = BufReader::new(from);
    let is_gzip = from.fill_buf()?.starts_with(&GZIP);
    if is_gzip {
        lines(BufReader::new(GzDecoder::new(from)), &mut each)
    } else {
        lines(from, &mut each)
    }
}

fn lines(mut from: impl BufRead, each: &mut impl FnMut(Entry)) -> Result<bool, FileError> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut from)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line);
        let is_cut = match read {
            // A compressed file that was cut off ends inside of a block.
            Err(err) if number > 1 && err.kind() == io::ErrorKind::UnexpectedEof => true,
            // What begins like a compressed file may be something else.
            Err(err) if number == 1 && err.kind() != io::ErrorKind::PermissionDenied => {
                return Err(FileError::Other);
            }
            Err(err) => return Err(err.into()),
            Ok(_) if number == 1 && line.is_empty() => return Err(FileError::Other),
            Ok(_) if line.is_empty() => return Ok(false),
            Ok(_) => !line.ends_with(b"\n"),
        };
        if number == 1 {
            check(&line)?;
        } else if is_cut {
            return Ok(true);
        } else {
            let entry = serde_json::from_slice(&line).map_err(|err| FileError::Damaged {
                line: number,
                reason: err.to_string(),
            })?;
            each(entry);
        }
    }
    Ok(false)
}

fn check(line: &[u8]) -> Result<(), FileError> {
    let header: Header = serde_json::from_slice(line).map_err(|_| FileError::Other)?;
    let version = header.inferprobe_recording;
    if version > VERSION || header.api_version > api::VERSION {
        return Err(FileError::Later(version));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::api::{history::Window, requests::Request};

    fn live(now_ns: u64) -> Live {
        let mut live = Live::default();
        live.source.now_ns = now_ns;
        live
    }

    fn history(windows: &[(u64, u64)]) -> History {
        let window = |&(index, requests): &(u64, u64)| Window {
            index,
            requests,
            ..Window::default()
        };
        History {
            windows: windows.iter().map(window).collect(),
            ..History::default()
        }
    }

    fn recording() -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        writer.live(live(1)).unwrap();
        writer.requests(Requests::default()).unwrap();
        let requests = Requests {
            requests: vec![Request {
                number: 7,
                ..Request::default()
            }],
            ..Requests::default()
        };
        writer.requests(requests).unwrap();
        writer.history(history(&[(1, 5), (2, 3)])).unwrap();
        writer.history(history(&[(1, 5), (2, 4), (3, 1)])).unwrap();
        writer.live(live(2)).unwrap();
        file
    }

    fn entries(file: &[u8]) -> Result<(Vec<Entry>, bool), FileError> {
        let mut entries = Vec::new();
        let is_cut = read(file, |entry| entries.push(entry))?;
        Ok((entries, is_cut))
    }

    #[test]
    fn what_is_written_is_read_plain_and_compressed() {
        let file = recording();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&file).unwrap();
        for file in [file, gzip.finish().unwrap()] {
            let (entries, is_cut) = entries(&file).unwrap();
            assert!(!is_cut);
            let [first, requests, _, second_history, last] = entries.as_slice() else {
                panic!("{entries:?}");
            };
            assert_eq!(first.live, Some(live(1)));
            assert_eq!(requests.requests.as_ref().unwrap().requests[0].number, 7);
            // Only what is new, or may have grown.
            let windows = &second_history.history.as_ref().unwrap().windows;
            let windows: Vec<_> = windows
                .iter()
                .map(|one| (one.index, one.requests))
                .collect();
            assert_eq!(windows, [(2, 4), (3, 1)]);
            assert_eq!(last.live, Some(live(2)));
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_read_as_far_as_it_goes() {
        let file = recording();
        let head = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in head..file.len() {
            let (entries, is_cut) = entries(&file[..end]).unwrap();
            assert_eq!(is_cut, file[end - 1] != b'\n', "{end}");
            let lines = file[head..end].split(|byte| *byte == b'\n').count() - 1;
            assert_eq!(entries.len(), lines, "{end}");
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&file).unwrap();
        let gzip = gzip.finish().unwrap();
        let (_, is_cut) = entries(&gzip[..gzip.len() - 9]).unwrap();
        assert!(is_cut);
    }

    #[test]
    fn other_files_are_refused() {
        let later = "{\"inferprobe_recording\":2,\"api_version\":1,\"written_by\":\"9\"}\n";
        let begun = String::from_utf8(recording()).unwrap();
        let damaged = begun.replace("\"live\":{", "\"live\":[");
        let unknown = begun.replace("{\"live\"", "{\"later\":[1],\"live\"");
        for (file, part) in [
            ("", "not a recording"),
            ("\n", "not a recording"),
            ("{}\n", "not a recording"),
            ("{\"conn\":1,\"seq\":0}\n", "not a recording"),
            ("\u{1f}\u{8b}x", "not a recording"),
            (later, "made by a later inferprobe"),
            (&damaged, "line 2 is damaged"),
        ] {
            let err = entries(file.as_bytes()).unwrap_err().to_string();
            assert!(err.contains(part), "{file:?}: {err}");
        }
        assert_eq!(entries(unknown.as_bytes()).unwrap().0.len(), 5);
    }
}
