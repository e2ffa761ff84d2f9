//! Query strings of a scrape, and the model that a JSON body names.

use inferprobe::{
    exporter::query,
    protocol::json_model::{BodyModel, JsonModel},
};
use serde_json::Value;

/// Longest name that is compared, bytes: longer ones are cut.
const NAME_CAP: usize = 256;
/// Longest input whose every beginning is tried.
const EVERY_CUT: usize = 512;

/// A query is read, or refused for an escape that is none.
pub fn name_query(data: &[u8]) {
    let is_escape = |at: usize| {
        let digits = data.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let wrong = (0..data.len()).find(|&at| data[at] == b'%' && !is_escape(at));
    let refused = query::selection(data).err().map(|bad| bad.at);
    assert_eq!(refused, wrong);
}

/// The model is the one that a whole reader of JSON finds, wherever the bytes are cut into pieces. For a body that is cut
/// off it is never another one, unless there are two.
pub fn json_model(data: &[u8]) {
    let read = |pieces: [&[u8]; 2]| {
        let mut scan = JsonModel::default();
        for piece in pieces {
            scan.push(piece);
        }
        scan.verdict()
    };
    let found = read([data, b""]);
    for end in 0..data.len().min(EVERY_CUT) {
        assert_eq!(read([&data[..end], &data[end..]]), found, "pieces at {end}");
        let cut = read([&data[..end], b""]);
        assert!(
            cut == BodyModel::Unknown || cut == found || twice(data),
            "cut at {end}: {cut:?}"
        );
    }
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let Value::Object(members) = value else {
        // What does not begin with a brace names nothing; only white space is no JSON.
        assert_eq!(found, BodyModel::Absent);
        return;
    };
    match members.get("model") {
        None => assert_eq!(found, BodyModel::Absent),
        Some(Value::String(model)) if model.len() > NAME_CAP => {}
        Some(Value::String(model)) if !model.is_empty() => {
            assert_eq!(found, BodyModel::Named(model.clone()));
        }
        Some(_) => assert_eq!(found, BodyModel::Absent),
    }
}

/// Returns whether a body may have two members called `model`, judged by its letters and escapes.
fn twice(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    text.contains('\\') || text.matches("model").count() > 1
}
