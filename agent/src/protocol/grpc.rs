//! Recognises gRPC calls, and finds the model that a request message names.
//!
//! Knows the methods whose messages name a model, and the fields that do; it skips all other fields.
//! Does not depend on: HTTP/2, what methods are for.

use std::{borrow::Cow, io::Read};

use flate2::read::{GzDecoder, ZlibDecoder};

/// Bytes of a request's messages that are enough to find the model.
pub const MESSAGE_CAP: usize = 1024;
/// Bytes of a compressed message that are decompressed at most.
const DECOMPRESSED_CAP: u64 = 4096;
/// Bytes before each message: whether it is compressed, and its length.
pub const PREFIX_LEN: usize = 5;
/// Model of a call whose path was not observed, and whose message names none.
pub const UNKNOWN_MODEL: &str = "unknown";
/// The fields that name model and version, in the messages of TorchServe and of the KServe protocol alike.
const MODEL_NAME: u64 = 1;
const MODEL_VERSION: u64 = 2;
/// The fields of TensorFlow Serving's requests and of their `ModelSpec`, whose name is in field 1
/// (tensorflow_serving/apis/model.proto): the version is a number in a message, or a label.
const MODEL_SPEC: u64 = 1;
const SPEC_VERSION: u64 = 2;
const SPEC_VERSION_LABEL: u64 = 4;

/// The model that a request's content names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// Which part of the request names it.
    pub by: NamedBy,
    /// Model.
    pub model: String,
    /// Version; `None` if the content leaves it to the server.
    pub version: Option<String>,
}

/// Which part of a request names a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// A gRPC message.
    Message,
    /// A JSON body: this counts only for servers that read the model there.
    Body,
}

/// Returns service and method of a path; `None` if it is not a gRPC one.
fn method_of(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    // A service has a package name, with a dot: most plain HTTP paths do not.
    (service.contains('.') && !method.is_empty() && !method.contains(['/', '?']))
        .then_some((service, method))
}

/// Whether a path may be a gRPC one.
pub fn is_call(path: &str) -> bool {
    method_of(path).is_some()
}

/// Whether a request to `path`, whose content begins with `content`, is a gRPC call. An empty `path` was not observed:
/// then the content decides.
pub fn begins_call(path: &str, content: &[u8]) -> bool {
    is_call(path) || (path.is_empty() && message_len(content).is_some())
}

/// Where a method's request messages name the model.
enum Naming {
    /// In fields of their own.
    Plain,
    /// In TensorFlow Serving's `ModelSpec`.
    Spec,
}

/// Returns where the method's request messages name a model; `None` if they name none, or in an unknown way.
fn naming(service: &str, method: &str) -> Option<Naming> {
    match (service, method) {
        (
            "org.pytorch.serve.grpc.inference.InferenceAPIsService",
            "Predictions" | "StreamPredictions" | "StreamPredictions2",
        )
        | (
            "inference.GRPCInferenceService"
            | "org.pytorch.serve.grpc.openinference.GRPCInferenceService",
            "ModelInfer" | "ModelStreamInfer",
        ) => Some(Naming::Plain),
        (
            "tensorflow.serving.PredictionService",
            "Predict" | "PredictStreamed" | "Classify" | "Regress",
        ) => Some(Naming::Spec),
        _ => None,
    }
}

/// Returns the model that the first of a request's messages names; `content` is the beginning of the messages.
///
/// `None` if the method's messages name none, or the name is not within `content`, or compressed in an unknown way.
pub fn model_of(path: &str, content: &[u8]) -> Option<ModelName> {
    if path.is_empty() {
        return model_of_unknown_path(content);
    }
    let (service, method) = method_of(path)?;
    let naming = naming(service, method)?;
    name_in(&first_message(content)?, &naming)
}

/// As [`model_of`], for a call whose path was not observed: [`UNKNOWN_MODEL`] if the message does not look like one that
/// names a model, `None` if there is no message.
fn model_of_unknown_path(content: &[u8]) -> Option<ModelName> {
    message_len(content)?;
    let message = first_message(content).unwrap_or_default();
    let named = name_in(&message, &Naming::Plain).filter(|named| {
        let clean = |text: &str| !text.contains(char::is_control);
        clean(&named.model) && named.version.as_deref().is_none_or(clean) && holds_input(&message)
    });
    Some(named.unwrap_or_else(|| ModelName {
        by: NamedBy::Message,
        model: UNKNOWN_MODEL.to_owned(),
        version: None,
    }))
}

/// Returns model and version from the fields that name them.
fn name_in(message: &[u8], naming: &Naming) -> Option<ModelName> {
    let (model, version) = match naming {
        Naming::Plain => (
            text_field(message, MODEL_NAME)?,
            text_field(message, MODEL_VERSION).map(str::to_owned),
        ),
        Naming::Spec => {
            let spec = bytes_field(message, MODEL_SPEC)?;
            let label = text_field(spec, SPEC_VERSION_LABEL).map(str::to_owned);
            let number = || Some(first_integer(bytes_field(spec, SPEC_VERSION)?)?.to_string());
            (text_field(spec, MODEL_NAME)?, label.or_else(number))
        }
    };
    Some(ModelName {
        by: NamedBy::Message,
        model: model.to_owned(),
        version,
    })
}

/// Whether a message, which may be cut off, has fields of bytes after the name. Inference requests have their input
/// there; requests for metadata have none (inference.proto of TorchServe, grpc_service.proto of KServe).
fn holds_input(mut message: &[u8]) -> bool {
    loop {
        let mut rest = message;
        match varint(&mut rest) {
            Some(tag) if tag & 7 == 2 && tag >> 3 > MODEL_VERSION => return true,
            Some(_) => {}
            None => return false,
        }
        if field(&mut message).is_none() {
            return false;
        }
    }
}

/// Returns the length of the message that content begins with, without its prefix, bytes; `None` if it begins with none.
pub fn message_len(content: &[u8]) -> Option<u32> {
    let [0 | 1, l0, l1, l2, l3] = *content.first_chunk::<PREFIX_LEN>()? else {
        return None;
    };
    Some(u32::from_be_bytes([l0, l1, l2, l3]))
}

/// Returns the first message, as far as it was copied; `None` if it cannot be decompressed, or there is none.
fn first_message(content: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (prefix, rest) = content.split_first_chunk::<PREFIX_LEN>()?;
    let [compressed, l0, l1, l2, l3] = *prefix;
    let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    let message = &rest[..rest.len().min(len)];
    match compressed {
        0 => Some(message.into()),
        1 => decompressed(message).map(Cow::Owned),
        _ => None,
    }
}

/// Returns the beginning of a message that is compressed with `gzip` or `deflate`, which both show by their first bytes
/// (RFC 1952 and RFC 1950).
fn decompressed(message: &[u8]) -> Option<Vec<u8>> {
    let mut decoder: Box<dyn Read> = match message {
        [0x1f, 0x8b, ..] => Box::new(GzDecoder::new(message)),
        [0x78, ..] => Box::new(ZlibDecoder::new(message)),
        _ => return None,
    };
    let mut bytes = Vec::new();
    // A message that is cut off ends in a fault.
    let _ = decoder
        .by_ref()
        .take(DECOMPRESSED_CAP)
        .read_to_end(&mut bytes);
    (!bytes.is_empty()).then_some(bytes)
}

/// Returns the last value of a string field in a message, which may be cut off; `None` also if that is empty.
fn text_field(message: &[u8], number: u64) -> Option<&str> {
    let text = std::str::from_utf8(bytes_field(message, number)?).ok()?;
    (!text.is_empty()).then_some(text)
}

/// Returns the last value of a field of bytes in a message, which may be cut off.
fn bytes_field(message: &[u8], number: u64) -> Option<&[u8]> {
    let mut rest = message;
    let mut found = None;
    while let Some((tag, value)) = field(&mut rest) {
        if tag == number && value.is_some() {
            found = value;
        }
    }
    found
}

/// Returns the integer in field 1 of a message; `None` if the message does not begin with it.
fn first_integer(message: &[u8]) -> Option<u64> {
    const INTEGER_1: u64 = 1 << 3;
    let mut rest = message;
    (varint(&mut rest)? == INTEGER_1).then(|| varint(&mut rest))?
}

/// Removes a whole field from a message; returns its number, and its value if that is bytes. `None` at the end.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let tag = varint(message)?;
    let len = match tag & 7 {
        0 => {
            varint(message)?;
            return Some((tag >> 3, None));
        }
        1 => 8,
        2 => usize::try_from(varint(message)?).ok()?,
        5 => 4,
        // Groups are not in use any more, and the rest means nothing.
        _ => return None,
    };
    let (value, rest) = message.split_at_checked(len)?;
    *message = rest;
    Some((tag >> 3, (tag & 7 == 2).then_some(value)))
}

/// Takes a variable-length integer off a message.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// gRPC status `CANCELLED` (<https://grpc.io/docs/guides/status-codes>).
pub const CANCELLED: u32 = 1;
/// gRPC status `INTERNAL` (<https://grpc.io/docs/guides/status-codes>).
pub const INTERNAL: u32 = 13;

/// Returns the HTTP status that matches a gRPC status, as google/rpc/code.proto maps them; 500 for an unknown one.
pub const fn http_status_of(grpc_status: u32) -> u16 {
    match grpc_status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };

    use super::*;

    const PREDICT: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
    const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

    /// A message after its prefix.
    fn sent(message: &[u8]) -> Vec<u8> {
        let len = u32::try_from(message.len()).unwrap();
        [&[0][..], &len.to_be_bytes(), message].concat()
    }

    fn named(model: &str, version: Option<&str>) -> Option<ModelName> {
        Some(ModelName {
            by: NamedBy::Message,
            model: model.into(),
            version: version.map(str::to_owned),
        })
    }

    #[test]
    fn predictions_name_model_and_version() {
        let message = sent(b"\x0a\x04tiny\x12\x031.0\x1a\x12\x0a\x04data\x12\x0a{\"inf\":20}");
        for path in [
            PREDICT,
            INFER,
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions2",
            "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer",
        ] {
            assert_eq!(model_of(path, &message), named("tiny", Some("1.0")));
        }
        for path in ["/inference.GRPCInferenceService/ModelReady", "/a.B/C", "/"] {
            assert_eq!(model_of(path, &message), None, "{path}");
        }
    }

    #[test]
    fn a_message_cut_off_names_what_it_holds() {
        let message = sent(b"\x0a\x04tiny\x12\x031.0\x1a\x02\x0a\x00");
        for len in 0..message.len() {
            let expected = match len {
                0..11 => None,
                11..16 => named("tiny", None),
                _ => named("tiny", Some("1.0")),
            };
            assert_eq!(model_of(PREDICT, &message[..len]), expected, "{len}");
        }
    }

    #[test]
    fn fields_of_all_kinds_are_passed_over() {
        let before = b"\x38\x96\x01\x41\0\0\0\0\0\0\0\0\x4d\0\0\0\0\x52\x02ab";
        let message = sent(&[&before[..], b"\x0a\x01m\x12\x00"].concat());
        assert_eq!(model_of(INFER, &message), named("m", None));
    }

    #[test]
    fn the_next_message_does_not_speak_for_the_first() {
        let first = sent(b"\x0a\x01a");
        let both = [&first[..], &sent(b"\x12\x012")].concat();
        assert_eq!(model_of(PREDICT, &both), named("a", None));
    }

    #[test]
    fn messages_that_cannot_be_read_name_nothing() {
        for message in [
            // Compressed.
            &b"\x01\0\0\0\x03\x0a\x01m"[..],
            // No text, no name, a group, a length and an integer without an end.
            &sent(b"\x0a\x02\xff\xfe"),
            &sent(b"\x0a\x00"),
            &sent(b"\x0b\x0a\x01m"),
            &sent(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01m"),
            &sent(&[0xff; 40]),
        ] {
            assert_eq!(model_of(PREDICT, message), None, "{message:x?}");
        }
    }

    #[test]
    fn compressed_messages_name_model_and_version_also_when_cut_off() {
        let input: Vec<u8> = (0..9_000_u32)
            .flat_map(|n| n.wrapping_mul(40_503).to_le_bytes())
            .collect();
        let len = [0x3a, 0xa0, 0x99, 0x02];
        let message = [&b"\x0a\x04tiny\x12\x031.0"[..], &len, &input].concat();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&message).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&message).unwrap();
        for compressed in [gzip.finish().unwrap(), zlib.finish().unwrap()] {
            let mut content = sent(&compressed);
            content[0] = 1;
            assert!(content.len() > 20_000);
            for len in [content.len(), MESSAGE_CAP, 400] {
                assert_eq!(
                    model_of(INFER, &content[..len]),
                    named("tiny", Some("1.0")),
                    "{len}"
                );
            }
        }
    }

    #[test]
    fn tensorflow_names_model_and_version_in_a_spec() {
        const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
        for (spec, version) in [
            (&b"\x0a\x04tiny"[..], None),
            (b"\x0a\x04tiny\x12\x02\x08\x03\x1a\x01s", Some("3")),
            (b"\x0a\x04tiny\x22\x06stable", Some("stable")),
            (b"\x0a\x04tiny\x12\x00", None),
        ] {
            let len = u8::try_from(spec.len()).unwrap();
            let message = sent(&[&[0x0a, len], spec, b"\x12\x02\x0a\x00"].concat());
            assert_eq!(model_of(PREDICT, &message), named("tiny", version));
        }
        let metadata = "/tensorflow.serving.PredictionService/GetModelMetadata";
        let message = sent(b"\x0a\x06\x0a\x04tiny");
        assert_eq!(model_of(metadata, &message), None);
    }

    #[test]
    fn a_call_is_told_by_its_path() {
        for (path, expected) in [
            (PREDICT, true),
            ("/my.own.Service/Run", true),
            ("", false),
            ("/", false),
            ("/predictions/m", false),
            ("/v2/models/m/infer", false),
            ("/a.b/", false),
            ("/a.b/c/d", false),
        ] {
            assert_eq!(is_call(path), expected, "{path}");
        }
    }

    #[test]
    fn a_message_whose_path_was_not_seen_names_a_model_where_it_brings_input() {
        let unknown = named(UNKNOWN_MODEL, None);
        for (message, expected) in [
            // TorchServe's and KServe's requests of inference, the second one cut off in its input.
            (
                &b"\x0a\x04tiny\x12\x031.0\x1a\x12\x0a\x04data\x12\x0a{\"inf\":20}"[..],
                named("tiny", Some("1.0")),
            ),
            (b"\x0a\x01m\x2a\xff\x01\x0a\x03", named("m", None)),
            // Questions about a model, about a service, and about a server.
            (b"\x0a\x04tiny\x12\x031.0", unknown.clone()),
            (b"\x0a\x01m\x18\x05\x20\x06", unknown.clone()),
            (b"", unknown.clone()),
            // A model in a message of its own, as TensorFlow's are, and no text.
            (
                b"\x0a\x06\x0a\x04half\x12\x03\x0a\x01x\x1a\x01y",
                unknown.clone(),
            ),
            (b"\x0a\x02\xff\xfe\x1a\x01y", unknown.clone()),
        ] {
            assert_eq!(model_of("", &sent(message)), expected, "{message:x?}");
        }
        assert_eq!(model_of("", b"\x01\0\0\0\x02xy"), unknown);
        for content in [&b""[..], b"\0\0\0\0", b"{\"model\": 1}"] {
            assert_eq!(model_of("", content), None, "{content:x?}");
            assert!(!begins_call("", content));
        }
        assert!(
            begins_call("", &sent(b""))
                && begins_call("/a.B/C", b"")
                && !begins_call("/predict", &sent(b""))
        );
    }
}
