//! Reads the frames from worker to frontend: a model is loaded, or the responses to a batch, whole or in parts.
//!
//! The layout is that of ts/protocol/otf_message_handler.py in TorchServe 0.12.0.
//! Does not depend on: sockets, records.

use crate::torchserve::frames::{
    FieldKind, FieldValue, FrameFault, FrameGrammar, FrameStep, MAX_BATCH, WorkerFrameReader,
    text_of,
};

/// Reads the frames from a worker to the frontend.
pub type ReplyReader = WorkerFrameReader<ReplyGrammar>;

/// A frame from a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200, or the error code of the whole batch.
    pub code: i32,
    /// The worker's message; `None` if it was not captured or is long.
    pub message: Option<String>,
    /// One per request of the batch; empty after a load.
    pub responses: Vec<BatchedResponse>,
    /// Whether the frame is complete; otherwise there may be more responses.
    pub whole: bool,
}

/// The response to one request of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchedResponse {
    /// UUID of the request; `None` if it was not captured.
    pub id: Option<String>,
    /// Status code for the client; `None` if the frame was cut off before it, or it is invalid.
    pub http_status: Option<u16>,
    /// Whether more frames of this response follow; `None` if the response is not streamed.
    pub stream_next: Option<bool>,
}

/// The next field, and the content of the frame so far.
#[derive(Debug, Default)]
pub struct ReplyGrammar {
    next: ReplyField,
    reply: Option<Reply>,
}

/// The fields of a frame, in their order.
#[derive(Debug, Clone, Copy, Default)]
enum ReplyField {
    #[default]
    Code,
    Message,
    Id,
    ContentType,
    Status,
    Reason,
    HeaderCount,
    HeaderName {
        left: i32,
    },
    HeaderValue {
        left: i32,
        streams: bool,
    },
    Body,
}

/// Returns the next field, if `left` more headers follow.
fn headers(left: i32) -> ReplyField {
    // Like the frontend, read no headers if the number is negative.
    if left > 0 {
        ReplyField::HeaderName { left }
    } else {
        ReplyField::Body
    }
}

impl FrameGrammar for ReplyGrammar {
    type Frame = Reply;

    fn next_field(&self) -> FieldKind {
        match self.next {
            ReplyField::Code | ReplyField::Status | ReplyField::HeaderCount => FieldKind::Int,
            ReplyField::Message
            | ReplyField::Id
            | ReplyField::HeaderName { .. }
            | ReplyField::HeaderValue { streams: true, .. } => FieldKind::Text { keep: true },
            _ => FieldKind::Text { keep: false },
        }
    }

    fn on_field(&mut self, field: FieldValue<'_>) -> Result<FrameStep, FrameFault> {
        self.next = match (self.next, field) {
            (ReplyField::Code, FieldValue::Int(code)) => {
                self.reply = Some(Reply {
                    code,
                    message: None,
                    responses: Vec::new(),
                    whole: false,
                });
                ReplyField::Message
            }
            (ReplyField::Message, FieldValue::Text(message)) => {
                if let Some(reply) = &mut self.reply {
                    reply.message = text_of(message);
                }
                ReplyField::Id
            }
            (ReplyField::Id, FieldValue::Text(id)) => {
                self.begin_response(id)?;
                ReplyField::ContentType
            }
            (ReplyField::Id, FieldValue::End) => return Ok(FrameStep::Done),
            (ReplyField::ContentType, FieldValue::Text(_)) => ReplyField::Status,
            (ReplyField::Status, FieldValue::Int(status)) => {
                if let Some(response) = self.response() {
                    response.http_status = u16::try_from(status).ok();
                }
                ReplyField::Reason
            }
            (ReplyField::Reason, FieldValue::Text(_)) => ReplyField::HeaderCount,
            (ReplyField::HeaderCount, FieldValue::Int(count)) => headers(count),
            (ReplyField::HeaderName { left }, FieldValue::Text(name)) => {
                let streams = name == Some(b"ts_stream_next");
                ReplyField::HeaderValue { left, streams }
            }
            (ReplyField::HeaderValue { left, streams }, FieldValue::Text(value)) => {
                if streams && let Some(response) = self.response() {
                    response.stream_next = value.map(|value| value == b"true");
                }
                headers(left - 1)
            }
            (ReplyField::Body, FieldValue::Text(_)) => ReplyField::Id,
            // The reader passes the kind of field that is expected, so this is the end of a list in another place.
            _ => return Err(FrameFault::BadLength(-1)),
        };
        Ok(FrameStep::More)
    }

    fn finish(&mut self, whole: bool) -> Option<Reply> {
        let reply = std::mem::take(self).reply?;
        Some(Reply { whole, ..reply })
    }
}

impl ReplyGrammar {
    fn response(&mut self) -> Option<&mut BatchedResponse> {
        self.reply.as_mut()?.responses.last_mut()
    }

    fn begin_response(&mut self, id: Option<&[u8]>) -> Result<(), FrameFault> {
        if let Some(reply) = &mut self.reply {
            if reply.responses.len() >= MAX_BATCH {
                return Err(FrameFault::LongBatch);
            }
            reply.responses.push(BatchedResponse {
                id: text_of(id),
                ..BatchedResponse::default()
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{END, assert_read_however_cut, read, text},
        *,
    };

    const LOADED: &[u8] = b"\0\0\0\xc8\0\0\0\x11loaded model tiny\xff\xff\xff\xff";
    const ONE: &[u8] = b"\0\0\0\xc8\0\0\0\x12Prediction success\
        \0\0\0\x24f043ec09-d650-4c73-8e29-cab71d5c951f\0\0\0\0\0\0\0\xc8\0\0\0\0\0\0\0\0\0\0\0\x03xxx\xff\xff\xff\xff";

    fn reply(code: i32, message: &str, responses: &[BatchedResponse]) -> Reply {
        Reply {
            code,
            message: Some(message.into()),
            responses: responses.to_vec(),
            whole: true,
        }
    }

    fn response(id: &str, status: u16, stream_next: Option<bool>) -> BatchedResponse {
        BatchedResponse {
            id: Some(id.into()),
            http_status: Some(status),
            stream_next,
        }
    }

    fn response_bytes(id: &str, status: i32, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut bytes = [text(id), text("text/plain")].concat();
        bytes.extend(status.to_be_bytes());
        bytes.extend(text("as asked"));
        bytes.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
        for (name, value) in headers {
            bytes.extend([text(name), text(value)].concat());
        }
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn reply_bytes(code: i32, message: &str, responses: &[Vec<u8>]) -> Vec<u8> {
        let code = code.to_be_bytes();
        [&code, &text(message)[..], &responses.concat(), &END].concat()
    }

    #[test]
    fn reply_to_a_load_has_only_a_message() {
        assert_read_however_cut::<ReplyGrammar>(LOADED, &[reply(200, "loaded model tiny", &[])]);
    }

    #[test]
    fn prediction_has_the_id_of_its_request() {
        let id = "f043ec09-d650-4c73-8e29-cab71d5c951f";
        let expected = reply(200, "Prediction success", &[response(id, 200, None)]);
        assert_read_however_cut::<ReplyGrammar>(ONE, &[expected]);
    }

    #[test]
    fn each_request_of_a_batch_has_its_own_status() {
        let bytes = reply_bytes(
            200,
            "Prediction success",
            &[
                response_bytes("a", 200, &[("x", "y")], b"\xff\xff\xff\xff"),
                response_bytes("b", 503, &[("x", ""), ("z", "true")], b""),
            ],
        );
        let responses = [response("a", 200, None), response("b", 503, None)];
        assert_read_however_cut::<ReplyGrammar>(
            &bytes,
            &[reply(200, "Prediction success", &responses)],
        );
    }

    #[test]
    fn streamed_response_has_several_frames() {
        let part = |next: &str| {
            let response = response_bytes("a", 200, &[("ts_stream_next", next)], b"part");
            reply_bytes(200, "Prediction success", &[response])
        };
        let bytes = [part("true"), part("true"), part("false")].concat();
        let frames = [true, true, false].map(|next| {
            let responses = [response("a", 200, Some(next))];
            reply(200, "Prediction success", &responses)
        });
        assert_read_however_cut::<ReplyGrammar>(&bytes, &frames);
    }

    #[test]
    fn failed_batch_has_code_and_message() {
        let failed = response_bytes("a", 507, &[], b"error");
        let bytes = reply_bytes(507, "Out of resources", &[failed]);
        let expected = reply(507, "Out of resources", &[response("a", 507, None)]);
        assert_read_however_cut::<ReplyGrammar>(&bytes, &[expected]);
    }

    #[test]
    fn big_response_is_skipped() {
        let mut reader = ReplyReader::default();
        let mut out = Vec::new();
        let bytes = reply_bytes(
            200,
            "ok",
            &[
                response_bytes("a", 200, &[], &[b'#'; 500_000]),
                response_bytes("b", 201, &[], &[]),
            ],
        );
        let body = bytes.iter().position(|byte| *byte == b'#').unwrap();
        let (seen, missing) = (body + 10, 400_000);
        reader.feed(&bytes[..seen], &mut out).unwrap();
        reader.skip(missing as u64, &mut out).unwrap();
        reader.feed(&bytes[seen + missing..], &mut out).unwrap();
        let responses = [response("a", 200, None), response("b", 201, None)];
        assert_eq!(out, [reply(200, "ok", &responses)]);
    }

    #[test]
    fn frame_cut_off_keeps_the_known_fields() {
        let mut reader = ReplyReader::default();
        let mut out = Vec::new();
        assert_eq!(reader.end(), None);
        reader.feed(&ONE[..70], &mut out).unwrap();
        let cut = reader.end().unwrap();
        assert_eq!((cut.code, cut.whole), (200, false));
        assert_eq!(cut.responses[0].http_status, None);
        assert!(cut.responses[0].id.is_some());
        reader.feed(LOADED, &mut out).unwrap();
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn hostile_numbers_are_a_fault_or_incomplete() {
        let head = b"\0\0\0\xc8\0\0\0\0\0\0\0\x01a\0\0\0\0\0\0\0\xc8\0\0\0\0";
        let with_headers =
            |count: i32, rest: &[u8]| [head, &count.to_be_bytes()[..], rest].concat();
        let cases: [(&[u8], Result<(), FrameFault>, usize); 6] = [
            (
                b"\0\0\0\xc8\xff\xff\xff\xff",
                Err(FrameFault::BadLength(-1)),
                0,
            ),
            (
                b"\0\0\0\xc8\x80\0\0\0",
                Err(FrameFault::BadLength(i32::MIN)),
                0,
            ),
            (b"\0\0\0\xc8\x7f\xff\xff\xffabc", Ok(()), 0),
            (&with_headers(i32::MAX, &[0; 1000]), Ok(()), 0),
            (&with_headers(1, &END), Err(FrameFault::BadLength(-1)), 0),
            (&with_headers(-5, b"\0\0\0\0\xff\xff\xff\xff"), Ok(()), 1),
        ];
        for (bytes, expected, count) in cases {
            let (frames, outcome) = read::<ReplyGrammar>(bytes);
            assert_eq!((outcome, frames.len()), (expected, count), "{bytes:?}");
        }
        let responses = vec![response_bytes("", 200, &[], b""); MAX_BATCH + 1];
        let (_, outcome) = read::<ReplyGrammar>(&reply_bytes(200, "", &responses));
        assert_eq!(outcome, Err(FrameFault::LongBatch));
    }

    #[test]
    fn invalid_status_is_unknown() {
        let bytes = reply_bytes(200, "", &[response_bytes("a", -1, &[], b"")]);
        let (frames, _) = read::<ReplyGrammar>(&bytes);
        assert_eq!(frames[0].responses[0].http_status, None);
    }
}
