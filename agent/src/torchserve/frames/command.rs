//! Reads the frames from frontend to worker: load a model, or predict a batch of requests.
//!
//! The layout is that of ts/protocol/otf_message_handler.py in TorchServe 0.12.0.
//! Does not depend on: sockets, records.

use crate::torchserve::frames::{
    FieldKind, FieldValue, FrameFault, FrameGrammar, FrameStep, MAX_BATCH, WorkerFrameReader,
    text_of,
};

/// Reads the frames from the frontend to a worker.
pub type CommandReader = WorkerFrameReader<CommandGrammar>;

/// A frame from the frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerCommand {
    /// Load a model: the first frame of a worker's life.
    Load {
        /// Name that the model was registered under; `None` if it was not captured.
        model_name: Option<String>,
        /// Most requests in a batch; `None` if the frame was cut off before it.
        batch_size: Option<u32>,
    },
    /// Predict a batch of requests.
    Predict {
        /// The requests, in their order.
        requests: Vec<BatchedRequest>,
        /// Whether the frame is complete; otherwise there may be more requests.
        whole: bool,
    },
}

/// One request of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchedRequest {
    /// UUID from the frontend, `x-request-id` of the HTTP response; `None` if it was not captured.
    pub id: Option<String>,
    /// Whether it has headers: a gRPC request has none.
    pub has_headers: bool,
    /// What it requests.
    pub kind: RequestKind,
}

/// Kind of a request to a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequestKind {
    /// An inference.
    #[default]
    Predict,
    /// An explanation of an inference.
    Explain,
    /// A description of the model by its handler: from the management API, and no inference.
    Describe,
}

/// The next field, and the content of the frame so far.
#[derive(Debug, Default)]
pub struct CommandGrammar {
    next: CommandField,
    command: Option<WorkerCommand>,
}

/// The fields of a frame, in their order.
#[derive(Debug, Clone, Copy, Default)]
enum CommandField {
    #[default]
    Tag,
    LoadName,
    LoadPath,
    LoadBatchSize,
    LoadHandler,
    LoadGpu,
    LoadEnvelope,
    LoadLimit,
    Id,
    HeaderName,
    HeaderValue(RequestHeader),
    ParameterName,
    ParameterType,
    ParameterValue,
}

/// A request header that decides the kind of the request, or any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestHeader {
    Explain,
    Describe,
    Other,
}

impl RequestHeader {
    fn named(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"explain") => Self::Explain,
            Some(b"describe") => Self::Describe,
            _ => Self::Other,
        }
    }
}

impl FrameGrammar for CommandGrammar {
    type Frame = WorkerCommand;

    fn next_field(&self) -> FieldKind {
        let keep = matches!(
            self.next,
            CommandField::LoadName
                | CommandField::Id
                | CommandField::HeaderName
                | CommandField::HeaderValue(RequestHeader::Explain | RequestHeader::Describe)
        );
        match self.next {
            CommandField::Tag | CommandField::LoadLimit => FieldKind::Byte,
            CommandField::LoadBatchSize | CommandField::LoadGpu => FieldKind::Int,
            _ => FieldKind::Text { keep },
        }
    }

    fn on_field(&mut self, field: FieldValue<'_>) -> Result<FrameStep, FrameFault> {
        self.next = match (self.next, field) {
            (CommandField::Tag, FieldValue::Byte(b'L')) => {
                self.command = Some(WorkerCommand::Load {
                    model_name: None,
                    batch_size: None,
                });
                CommandField::LoadName
            }
            (CommandField::Tag, FieldValue::Byte(b'I')) => {
                self.command = Some(WorkerCommand::Predict {
                    requests: Vec::new(),
                    whole: false,
                });
                CommandField::Id
            }
            (CommandField::Tag, FieldValue::Byte(byte)) => return Err(FrameFault::NoCommand(byte)),
            (CommandField::LoadName, FieldValue::Text(name)) => {
                if let Some(WorkerCommand::Load { model_name, .. }) = &mut self.command {
                    *model_name = text_of(name);
                }
                CommandField::LoadPath
            }
            (CommandField::LoadPath, FieldValue::Text(_)) => CommandField::LoadBatchSize,
            (CommandField::LoadBatchSize, FieldValue::Int(size)) => {
                if let Some(WorkerCommand::Load { batch_size, .. }) = &mut self.command {
                    // The frontend uses 1 for an invalid size.
                    *batch_size = Some(u32::try_from(size).map_or(1, |size| size.max(1)));
                }
                CommandField::LoadHandler
            }
            (CommandField::LoadHandler, FieldValue::Text(_)) => CommandField::LoadGpu,
            (CommandField::LoadGpu, FieldValue::Int(_)) => CommandField::LoadEnvelope,
            (CommandField::LoadEnvelope, FieldValue::Text(_)) => CommandField::LoadLimit,
            (CommandField::LoadLimit, FieldValue::Byte(_)) => return Ok(FrameStep::Done),
            (CommandField::Id, FieldValue::Text(id)) => {
                self.begin_request(id)?;
                CommandField::HeaderName
            }
            (CommandField::Id, FieldValue::End) => return Ok(FrameStep::Done),
            (CommandField::HeaderName, FieldValue::Text(name)) => {
                self.set_has_headers();
                CommandField::HeaderValue(RequestHeader::named(name))
            }
            (CommandField::HeaderName, FieldValue::End) => CommandField::ParameterName,
            (CommandField::HeaderValue(header), FieldValue::Text(value)) => {
                self.set_kind(header, value);
                CommandField::HeaderName
            }
            (CommandField::ParameterName, FieldValue::Text(_)) => CommandField::ParameterType,
            (CommandField::ParameterName, FieldValue::End) => CommandField::Id,
            (CommandField::ParameterType, FieldValue::Text(_)) => CommandField::ParameterValue,
            (CommandField::ParameterValue, FieldValue::Text(_)) => CommandField::ParameterName,
            // The reader passes the kind of field that is expected, so this is the end of a list in another place.
            _ => return Err(FrameFault::BadLength(-1)),
        };
        Ok(FrameStep::More)
    }

    fn finish(&mut self, whole: bool) -> Option<WorkerCommand> {
        let mut command = std::mem::take(self).command;
        if let Some(WorkerCommand::Predict { whole: found, .. }) = &mut command {
            *found = whole;
        }
        command
    }
}

impl CommandGrammar {
    fn requests(&mut self) -> Option<&mut Vec<BatchedRequest>> {
        match &mut self.command {
            Some(WorkerCommand::Predict { requests, .. }) => Some(requests),
            _ => None,
        }
    }

    fn begin_request(&mut self, id: Option<&[u8]>) -> Result<(), FrameFault> {
        if let Some(requests) = self.requests() {
            if requests.len() >= MAX_BATCH {
                return Err(FrameFault::LongBatch);
            }
            requests.push(BatchedRequest {
                id: text_of(id),
                ..BatchedRequest::default()
            });
        }
        Ok(())
    }

    fn set_has_headers(&mut self) {
        if let Some(request) = self.requests().and_then(|requests| requests.last_mut()) {
            request.has_headers = true;
        }
    }

    fn set_kind(&mut self, header: RequestHeader, value: Option<&[u8]>) {
        let Some(request) = self.requests().and_then(|requests| requests.last_mut()) else {
            return;
        };
        match header {
            RequestHeader::Explain if value == Some(b"True") => request.kind = RequestKind::Explain,
            RequestHeader::Describe if value == Some(b"True") => {
                request.kind = RequestKind::Describe;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{END, assert_read_however_cut, read, text},
        *,
    };

    const ID: &str = "f043ec09-d650-4c73-8e29-cab71d5c951f";

    fn load() -> Vec<u8> {
        let path = "/tmp/ts/models/c048cd7a0a2b4c61a3cb8a1d3498498c";
        [
            b"L".as_slice(),
            &text("tiny"),
            &text(path),
            &[0, 0, 0, 8],
            &text("tiny_handler.py"),
            &END,
            &text(""),
            &[1],
        ]
        .concat()
    }

    fn loaded() -> WorkerCommand {
        WorkerCommand::Load {
            model_name: Some("tiny".into()),
            batch_size: Some(8),
        }
    }

    /// Returns the bytes of a request that came over HTTP.
    fn rest(id: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut bytes = text(id);
        for (name, value) in headers {
            bytes.extend([text(name), text(value)].concat());
        }
        bytes.extend(END);
        bytes.extend([text("body"), text("application/json")].concat());
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes.extend(END);
        bytes
    }

    fn predict(requests: &[Vec<u8>]) -> Vec<u8> {
        [b"I".as_slice(), &requests.concat(), &END].concat()
    }

    fn asked(id: &str, kind: RequestKind) -> BatchedRequest {
        BatchedRequest {
            id: Some(id.into()),
            has_headers: true,
            kind,
        }
    }

    const HEADERS: [(&str, &str); 4] = [
        ("explain", "False"),
        ("Accept", "*/*"),
        ("Content-Length", "28"),
        ("url_path", ""),
    ];

    #[test]
    fn load_has_model_and_batch_size() {
        assert_read_however_cut::<CommandGrammar>(&load(), &[loaded()]);
    }

    #[test]
    fn batch_over_http_has_id_and_kind_of_each_request() {
        let bytes = predict(&[
            rest(ID, &HEADERS, b"{\"sleep_ms\": 10}"),
            rest(
                "b",
                &[("explain", "True"), ("url_path", "a/b")],
                b"\xff\x00",
            ),
            rest("c", &[("describe", "True"), ("url_path", "")], b""),
        ]);
        let requests = vec![
            asked(ID, RequestKind::Predict),
            asked("b", RequestKind::Explain),
            asked("c", RequestKind::Describe),
        ];
        let whole = true;
        assert_read_however_cut::<CommandGrammar>(
            &bytes,
            &[WorkerCommand::Predict { requests, whole }],
        );
    }

    #[test]
    fn grpc_request_has_no_headers_and_no_content_type() {
        let bytes = [
            b"I\0\0\0\x24f043ec09-d650-4c73-8e29-cab71d5c951f\xff\xff\xff\xff".as_slice(),
            b"\0\0\0\x04data\0\0\0\0\0\0\0\x0a{\"inf\":20}",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
        ]
        .concat();
        let requests = vec![BatchedRequest {
            id: Some(ID.into()),
            ..BatchedRequest::default()
        }];
        let whole = true;
        assert_read_however_cut::<CommandGrammar>(
            &bytes,
            &[WorkerCommand::Predict { requests, whole }],
        );
    }

    #[test]
    fn two_frames_may_share_a_buffer() {
        let bytes = [load(), predict(&[rest(ID, &HEADERS, b"{}")])].concat();
        let requests = vec![asked(ID, RequestKind::Predict)];
        let whole = true;
        let frames = [loaded(), WorkerCommand::Predict { requests, whole }];
        assert_read_however_cut::<CommandGrammar>(&bytes, &frames);
    }

    #[test]
    fn big_body_is_skipped() {
        let body = vec![b'#'; 300_000];
        let bytes = predict(&[rest(ID, &HEADERS, &body), rest("b", &HEADERS, &body)]);
        let first_body = bytes.iter().position(|byte| *byte == b'#').unwrap();
        for (from, missing) in [(0, body.len()), (100, body.len() - 100), (7, 1)] {
            let mut reader = CommandReader::default();
            let mut out = Vec::new();
            let gap = first_body + from;
            reader.feed(&bytes[..gap], &mut out).unwrap();
            reader.skip(missing as u64, &mut out).unwrap();
            reader.feed(&bytes[gap + missing..], &mut out).unwrap();
            let requests = vec![
                asked(ID, RequestKind::Predict),
                asked("b", RequestKind::Predict),
            ];
            let whole = true;
            assert_eq!(out, [WorkerCommand::Predict { requests, whole }]);
        }
    }

    #[test]
    fn id_not_captured_is_unknown() {
        let mut reader = CommandReader::default();
        let mut out = Vec::new();
        let bytes = predict(&[rest(ID, &HEADERS, b"{}")]);
        reader.feed(&bytes[..15], &mut out).unwrap();
        reader.skip(5, &mut out).unwrap();
        reader.feed(&bytes[20..], &mut out).unwrap();
        let requests = vec![BatchedRequest {
            id: None,
            ..asked("", RequestKind::Predict)
        }];
        let whole = true;
        assert_eq!(out, [WorkerCommand::Predict { requests, whole }]);
    }

    #[test]
    fn gap_over_a_length_is_a_fault_and_keeps_the_known_fields() {
        let mut reader = CommandReader::default();
        let mut out = Vec::new();
        let bytes = predict(&[rest(ID, &HEADERS, b"{}")]);
        reader.feed(&bytes[..60], &mut out).unwrap();
        let rest = (bytes.len() - 60) as u64;
        assert_eq!(reader.skip(rest, &mut out), Err(FrameFault::Gap));
        assert_eq!(reader.feed(b"I", &mut out), Err(FrameFault::Gap));
        let Some(WorkerCommand::Predict { requests, whole }) = reader.end() else {
            panic!("the frame had begun");
        };
        assert_eq!((requests[0].id.as_deref(), whole), (Some(ID), false));
        assert!(out.is_empty());
        reader.feed(&load(), &mut out).unwrap();
        assert_eq!(out, [loaded()]);
    }

    #[test]
    fn hostile_bytes_are_a_fault_or_incomplete() {
        let text_then_end = [&text("tiny")[..], &END].concat();
        let cases: [(&[u8], Result<(), FrameFault>); 6] = [
            (b"X", Err(FrameFault::NoCommand(b'X'))),
            (b"I\xff\xff\xff\xfe", Err(FrameFault::BadLength(-2))),
            (b"I\x80\0\0\0", Err(FrameFault::BadLength(i32::MIN))),
            (b"L\xff\xff\xff\xff", Err(FrameFault::BadLength(-1))),
            (
                &[b"L", &text_then_end[..]].concat(),
                Err(FrameFault::BadLength(-1)),
            ),
            (b"I\x7f\xff\xff\xffabc", Ok(())),
        ];
        for (bytes, expected) in cases {
            let (frames, outcome) = read::<CommandGrammar>(bytes);
            assert_eq!(outcome, expected, "{bytes:?}");
            assert!(frames.is_empty());
        }
        let requests = vec![rest("", &[], b""); MAX_BATCH + 1];
        let (_, outcome) = read::<CommandGrammar>(&predict(&requests));
        assert_eq!(outcome, Err(FrameFault::LongBatch));
        let (frames, outcome) = read::<CommandGrammar>(&predict(&requests[1..]));
        assert_eq!((frames.len(), outcome), (1, Ok(())));
    }

    #[test]
    fn long_text_is_unknown_and_invalid_utf8_is_replaced() {
        let long = "i".repeat(257);
        let bytes = predict(&[rest(&long, &[(&long, &long)], b"")]);
        let (frames, _) = read::<CommandGrammar>(&bytes);
        let requests = vec![BatchedRequest {
            has_headers: true,
            ..BatchedRequest::default()
        }];
        let whole = true;
        assert_eq!(frames, [WorkerCommand::Predict { requests, whole }]);

        let mut bytes = load();
        bytes[5] = 0xff;
        let (frames, _) = read::<CommandGrammar>(&bytes);
        let model_name = Some("\u{fffd}iny".into());
        let batch_size = Some(8);
        let expected = WorkerCommand::Load {
            model_name,
            batch_size,
        };
        assert_eq!(frames, [expected]);
    }
}
