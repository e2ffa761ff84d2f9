//! Chooses text format and compression from the headers of a scrape.
//!
//! Pure functions of header values, which `respond` calls.
//! Does not depend on: connections.

use crate::metrics::Format;

/// Returns the text format for these `Accept` values: OpenMetrics if it is named and plain text is not preferred.
pub(crate) fn format<'a>(accept: impl IntoIterator<Item = &'a str>) -> Format {
    let (mut openmetrics_q, mut text_q) = (0.0_f32, 0.0_f32);
    for item in items(accept) {
        match item.value {
            // Version 0.0.1 is a draft with other rules.
            value
                if value.eq_ignore_ascii_case("application/openmetrics-text")
                    && item.version.is_none_or(|version| version == "1.0.0") =>
            {
                openmetrics_q = openmetrics_q.max(item.q);
            }
            value
                if ["text/plain", "text/*", "*/*"]
                    .iter()
                    .any(|text| value.eq_ignore_ascii_case(text)) =>
            {
                text_q = text_q.max(item.q);
            }
            _ => {}
        }
    }
    if openmetrics_q > 0.0 && openmetrics_q >= text_q {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// Returns whether these `Accept-Encoding` values allow gzip; its own name wins over `*`.
pub(crate) fn gzip<'a>(accept_encoding: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut named_q, mut any_q) = (None, 0.0);
    for item in items(accept_encoding) {
        if item.value.eq_ignore_ascii_case("gzip") || item.value.eq_ignore_ascii_case("x-gzip") {
            named_q = Some(item.q);
        } else if item.value == "*" {
            any_q = item.q;
        }
    }
    named_q.unwrap_or(any_q) > 0.0
}

struct Item<'a> {
    value: &'a str,
    version: Option<&'a str>,
    /// Quality, 0 to 1; a malformed one counts as 0.
    q: f32,
}

fn items<'a>(values: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = Item<'a>> {
    values
        .into_iter()
        .flat_map(|value| value.split(','))
        .map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let value = parts.next().unwrap_or_default();
            let (mut version, mut q) = (None, 1.0);
            for part in parts {
                let (key, argument) = part.split_once('=').unwrap_or((part, ""));
                let argument = argument.trim_matches('"');
                if key.eq_ignore_ascii_case("q") {
                    let parsed = argument.parse::<f32>().ok();
                    q = parsed.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
                } else if key.eq_ignore_ascii_case("version") {
                    version = Some(argument);
                }
            }
            Item { value, version, q }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_chosen_if_named() {
        let prometheus_2_42 = "application/openmetrics-text;version=1.0.0,\
             application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (&[][..], Format::Text),
            (&[""], Format::Text),
            (&["*/*"], Format::Text),
            (&["application/json"], Format::Text),
            (&[prometheus_2_42], Format::OpenMetrics),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (
                &["Application/OpenMetrics-Text; version=\"1.0.0\""],
                Format::OpenMetrics,
            ),
            (
                &["application/openmetrics-text;version=0.0.1"],
                Format::Text,
            ),
            (&["application/openmetrics-text;q=0"], Format::Text),
            (&["application/openmetrics-text;q=x"], Format::Text),
            (&["application/openmetrics-text;q=NaN"], Format::Text),
            (
                &["application/openmetrics-text;q=0.3,text/plain;q=0.9"],
                Format::Text,
            ),
            (
                &["text/plain", "application/openmetrics-text"],
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(format(accept.iter().copied()), expected, "{accept:?}");
        }
    }

    #[test]
    fn gzip_is_chosen_if_accepted() {
        for (accept, expected) in [
            ("", false),
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("identity", false),
            ("br", false),
        ] {
            assert_eq!(gzip([accept]), expected, "{accept:?}");
        }
        assert!(!gzip([]));
    }
}
