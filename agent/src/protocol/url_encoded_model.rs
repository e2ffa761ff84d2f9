//! Finds the model that a form names: the field `model` of an `application/x-www-form-urlencoded` body (URL Standard,
//! section 5).
//!
//! Reads a body piece by piece, wherever it is cut, in constant memory.
//! Does not depend on: heads, which server it is.

use percent_encoding::percent_decode;

use crate::protocol::json_model::BodyModel;

/// Field that names the model.
const FIELD: &[u8] = b"model";
/// Longest field that is kept, bytes, with its name and escapes.
const FIELD_CAP: usize = 2048;

/// Looks for the model in the bytes of a form.
#[derive(Debug, Clone, Default)]
pub struct UrlEncodedModel {
    /// The present field, as far as it was read.
    field: Vec<u8>,
    /// Whether the present field is too long to keep.
    too_long: bool,
    /// Value of the last such field.
    model: Option<String>,
}

impl UrlEncodedModel {
    /// Reads the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut fields = bytes.split(|&byte| byte == b'&');
        self.extend(fields.next().unwrap_or_default());
        for next in fields {
            self.model = self.model_so_far();
            self.field.clear();
            self.too_long = false;
            self.extend(next);
        }
    }

    /// Returns what the bytes so far say; `whole`: no more follow. Of fields with the same name the last counts.
    pub fn verdict(&self, whole: bool) -> BodyModel {
        let model = match whole {
            true => self.model_so_far(),
            false => self.model.clone(),
        };
        match model.filter(|model| !model.is_empty()) {
            Some(model) => BodyModel::Named(model),
            None if whole => BodyModel::Absent,
            None => BodyModel::Unknown,
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = FIELD_CAP - self.field.len();
        self.too_long |= bytes.len() > room;
        self.field
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Returns the model if the present field ends here.
    fn model_so_far(&self) -> Option<String> {
        let value = self.field.strip_prefix(FIELD);
        let value = value.and_then(|rest| rest.strip_prefix(b"="));
        match value {
            Some(value) if !self.too_long => Some(decode(value)),
            _ => self.model.clone(),
        }
    }
}

/// Returns what a value says: a plus is a space.
fn decode(value: &[u8]) -> String {
    let spaced: Vec<u8> = value
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(model: &str) -> BodyModel {
        BodyModel::Named(model.into())
    }

    fn found(body: &[u8], cut: usize, whole: bool) -> BodyModel {
        let mut model = UrlEncodedModel::default();
        let (start, rest) = body.split_at(cut);
        model.push(start);
        model.push(rest);
        model.verdict(whole)
    }

    #[test]
    fn the_last_field_of_that_name_counts_wherever_it_is_cut() {
        for (body, expected) in [
            ("model=m", named("m")),
            ("a=1&model=org%2Fm+1%C3%A9&b=2", named("org/m 1é")),
            ("model=a&language=en&model=b&", named("b")),
            ("a=model=no&submodel=no&model", BodyModel::Absent),
            ("model=", BodyModel::Absent),
            ("", BodyModel::Absent),
        ] {
            for cut in 0..=body.len() {
                assert_eq!(found(body.as_bytes(), cut, true), expected, "{body} {cut}");
            }
        }
    }

    #[test]
    fn a_field_that_was_cut_off_does_not_count() {
        assert_eq!(found(b"model=m", 3, false), BodyModel::Unknown);
        assert_eq!(found(b"model=m&model=n", 3, false), named("m"));
        let long = [&b"model=m&model="[..], &[b'x'; 3 * FIELD_CAP]].concat();
        assert_eq!(found(&long, FIELD_CAP, true), named("m"));
    }
}
