//! gRPC: what a method is for, and the model that a request message names.
//!
//! Knows the methods of inference servers and the two fields of their messages that matter; of all else in a message
//! only where it ends.

use crate::{latency::Purpose, protocol::route::Route};

/// Bytes of a request's messages that are enough to find the model.
pub const MESSAGE_CAP: usize = 256;
/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_LEN: usize = 5;
/// The fields that name model and version, in the messages of TorchServe and of the KServe protocol alike.
const MODEL_NAME: u64 = 1;
const MODEL_VERSION: u64 = 2;

/// The model that a request's content names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// What of the request names it.
    pub by: NamedBy,
    /// Model.
    pub model: String,
    /// Version; `None` where the content leaves it to the server.
    pub version: Option<String>,
}

/// What of a request names a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// A message of gRPC.
    Message,
    /// A JSON body: it does so only for servers that read it there.
    Body,
}

/// Service and method of a path; `None` if it is not one of gRPC.
fn method_of(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    // A service stands in a package: that tells it from most paths of plain HTTP.
    (service.contains('.') && !method.is_empty() && !method.contains(['/', '?']))
        .then_some((service, method))
}

/// Reads the purpose off a path; `None` if it is not one of gRPC. The model is for its messages to say.
///
/// `predicts_only_by_path` as [`crate::protocol::route::classify`] has it.
pub fn classify(
    path: &str,
    named: Option<&ModelName>,
    predicts_only_by_path: bool,
) -> Option<Route> {
    let (service, method) = method_of(path)?;
    let inference = names_model(service, method)
        || match service {
            "tensorflow.serving.PredictionService" => method != "GetModelMetadata",
            _ => !predicts_only_by_path && !is_admin(service),
        };
    let named = named.filter(|_| inference);
    Some(Route {
        purpose: if inference {
            Purpose::Inference
        } else {
            Purpose::Admin
        },
        model: named.map(|named| named.model.clone()),
        version: named.and_then(|named| named.version.clone()),
    })
}

/// Whether the method's request messages name a model where we look.
fn names_model(service: &str, method: &str) -> bool {
    match service {
        "org.pytorch.serve.grpc.inference.InferenceAPIsService" => matches!(
            method,
            "Predictions" | "StreamPredictions" | "StreamPredictions2"
        ),
        "inference.GRPCInferenceService"
        | "org.pytorch.serve.grpc.openinference.GRPCInferenceService" => {
            matches!(method, "ModelInfer" | "ModelStreamInfer")
        }
        _ => false,
    }
}

/// Whether a service is about a server, or between servers; what its methods of inference are is told before.
fn is_admin(service: &str) -> bool {
    const PACKAGES: [&str; 6] = [
        "grpc.",
        "inference.",
        "opentelemetry.",
        "org.pytorch.serve.",
        "ray.rpc.",
        "tensorflow.serving.",
    ];
    PACKAGES.iter().any(|package| service.starts_with(package))
}

/// The model that the first of a request's messages names, whose first bytes, as many as were kept, are `content`.
///
/// `None` where the method's messages name none, or none that can be seen: it lies behind what was kept, or is compressed.
pub fn model_of(path: &str, content: &[u8]) -> Option<ModelName> {
    let (service, method) = method_of(path)?;
    if !names_model(service, method) {
        return None;
    }
    let message = first_message(content)?;
    let text = |number| string_field(message, number).filter(|text| !text.is_empty());
    Some(ModelName {
        by: NamedBy::Message,
        model: text(MODEL_NAME)?.to_owned(),
        version: text(MODEL_VERSION).map(str::to_owned),
    })
}

/// The first message, as far as it can be seen; `None` where it is compressed or not there.
fn first_message(content: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = content.split_first_chunk::<PREFIX_LEN>()?;
    let [0, l0, l1, l2, l3] = *prefix else {
        return None;
    };
    let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    Some(&rest[..rest.len().min(len)])
}

/// The last value that a message, which may be cut off, gives a string field.
fn string_field(message: &[u8], number: u64) -> Option<&str> {
    let mut rest = message;
    let mut found = None;
    while let Some((tag, value)) = field(&mut rest) {
        if tag == number
            && let Some(value) = value
        {
            found = std::str::from_utf8(value).ok();
        }
    }
    found
}

/// Takes a whole field off a message: its number, and its value if that is bytes. `None` at the end.
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

#[cfg(test)]
mod tests {
    use super::*;

    const PREDICT: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
    const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

    /// A message behind its prefix.
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
    fn methods_tell_inference_from_the_rest() {
        let inference = [
            PREDICT,
            INFER,
            "/tensorflow.serving.PredictionService/Predict",
            "/my.own.Service/Run",
        ];
        let admin = [
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping",
            "/org.pytorch.serve.grpc.management.ManagementAPIsService/RegisterModel",
            "/inference.GRPCInferenceService/ServerReady",
            "/tensorflow.serving.PredictionService/GetModelMetadata",
            "/tensorflow.serving.ModelService/GetModelStatus",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/ray.rpc.CoreWorkerService/PushTask",
        ];
        let purpose = |path, only| classify(path, None, only).map(|route| route.purpose);
        for path in inference {
            assert_eq!(purpose(path, false), Some(Purpose::Inference), "{path}");
        }
        for path in admin {
            assert_eq!(purpose(path, false), Some(Purpose::Admin), "{path}");
        }
        assert_eq!(purpose(PREDICT, true), Some(Purpose::Inference));
        assert_eq!(purpose("/my.own.Service/Run", true), Some(Purpose::Admin));
        for path in [
            "",
            "/",
            "/predictions/m",
            "/v2/models/m/infer",
            "/a.b/",
            "/a.b/c/d",
        ] {
            assert_eq!(purpose(path, false), None, "{path}");
        }
    }

    #[test]
    fn a_route_takes_the_name_of_inference_alone() {
        let name = named("m", Some("2"));
        let route = classify(INFER, name.as_ref(), false).unwrap();
        assert_eq!(
            (route.model.as_deref(), route.version.as_deref()),
            (Some("m"), Some("2"))
        );
        let ready = "/inference.GRPCInferenceService/ModelReady";
        assert_eq!(classify(ready, name.as_ref(), false).unwrap().model, None);
    }
}
