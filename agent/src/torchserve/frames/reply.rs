//! What a worker answers: that a model is loaded, or the answers to a batch, whole or in parts.
//!
//! Layout: ts/protocol/otf_message_handler.py of TorchServe 0.12.0.

use crate::torchserve::frames::{
    FieldKind, FieldValue, FrameFault, FrameGrammar, FrameStep, MAX_BATCH, WorkerFrameReader,
    text_of,
};

/// Reads what a worker sends to the frontend.
pub type ReplyReader = WorkerFrameReader<ReplyGrammar>;

/// A frame from a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200, or what the whole batch failed with.
    pub code: i32,
    /// Why, in words; `None` when it was not captured or is long.
    pub message: Option<String>,
    /// One for each request of the batch; none when a model was loaded.
    pub responses: Vec<BatchedResponse>,
    /// Whether the frame came to its end; else there may be more answers.
    pub whole: bool,
}

/// The answer to one request of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchedResponse {
    /// The request's UUID; `None` when it was not captured.
    pub id: Option<String>,
    /// Status code that the client will see; `None` when the frame was cut off before it, or it is none.
    pub http_status: Option<u16>,
    /// Whether more frames of this answer follow; `None` when the answer is not streamed.
    pub stream_next: Option<bool>,
}

/// How far a frame was read, and what it said so far.
#[derive(Debug, Default)]
pub struct ReplyGrammar {
    at: ReplyField,
    reply: Option<Reply>,
}

/// The item that comes next.
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

/// The place after `left` more headers.
fn headers(left: i32) -> ReplyField {
    // The frontend, too, reads none where the number is below zero.
    if left > 0 {
        ReplyField::HeaderName { left }
    } else {
        ReplyField::Body
    }
}

impl FrameGrammar for ReplyGrammar {
    type Frame = Reply;

    fn want(&self) -> FieldKind {
        match self.at {
            ReplyField::Code | ReplyField::Status | ReplyField::HeaderCount => FieldKind::Int,
            ReplyField::Message
            | ReplyField::Id
            | ReplyField::HeaderName { .. }
            | ReplyField::HeaderValue { streams: true, .. } => FieldKind::Text { keep: true },
            _ => FieldKind::Text { keep: false },
        }
    }

    fn step(&mut self, item: FieldValue<'_>) -> Result<FrameStep, FrameFault> {
        self.at = match (self.at, item) {
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
            // Each place gets the kind that it wants: what is left is the end of a list that is none.
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
    fn a_load_is_answered_with_a_message_alone() {
        assert_read_however_cut::<ReplyGrammar>(LOADED, &[reply(200, "loaded model tiny", &[])]);
    }

    #[test]
    fn a_prediction_names_its_request() {
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
    fn a_streamed_response_comes_in_several_frames() {
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
    fn a_failed_batch_tells_its_code_and_why() {
        let failed = response_bytes("a", 507, &[], b"error");
        let bytes = reply_bytes(507, "Out of resources", &[failed]);
        let expected = reply(507, "Out of resources", &[response("a", 507, None)]);
        assert_read_however_cut::<ReplyGrammar>(&bytes, &[expected]);
    }

    #[test]
    fn a_big_response_need_not_be_captured() {
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
    fn a_frame_cut_off_gives_what_was_known() {
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
    fn hostile_numbers_are_a_fault_or_are_waited_for() {
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
    fn a_status_that_is_none_is_unknown() {
        let bytes = reply_bytes(200, "", &[response_bytes("a", -1, &[], b"")]);
        let (frames, _) = read::<ReplyGrammar>(&bytes);
        assert_eq!(frames[0].responses[0].http_status, None);
    }
}
