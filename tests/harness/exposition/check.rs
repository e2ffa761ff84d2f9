//! Checks names, and that the samples of one family are consistent.

use super::{Family, Kind, Sample, parse::number};

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`
pub(super) fn metric_name(name: &str) -> Result<(), String> {
    if well_formed(name, |c| c == ':') {
        return Ok(());
    }
    Err(format!(
        "metric name {name:?} has characters it may not have"
    ))
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, and not starting with two underscores.
pub(super) fn label_name(name: &str) -> Result<(), String> {
    if well_formed(name, |_| false) && !name.starts_with("__") {
        return Ok(());
    }
    Err(format!(
        "label name {name:?} has characters it may not have"
    ))
}

fn well_formed(name: &str, also: impl Fn(char) -> bool) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || also(c);
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// Returns whether a sample called `name` may belong to `family`.
pub(super) fn belongs(family: &Family, name: &str) -> bool {
    match (family.kind, name.strip_prefix(&family.name)) {
        (Kind::Histogram, Some(suffix)) => matches!(suffix, "_bucket" | "_sum" | "_count"),
        (_, Some(suffix)) => suffix.is_empty(),
        (_, None) => false,
    }
}

/// Checks that the family's type allows the labels and the value.
pub(super) fn labels(family: &Family, sample: &Sample) -> Result<(), String> {
    let is_bucket = family.kind == Kind::Histogram && sample.name.ends_with("_bucket");
    if is_bucket != sample.label("le").is_some() {
        return Err(format!("label le of {} belongs to buckets", sample.name));
    }
    let counts = family.kind == Kind::Counter || is_bucket || sample.name.ends_with("_count");
    if family.kind != Kind::Gauge && counts && !(sample.value >= 0.0 && sample.value.is_finite()) {
        return Err(format!("counter {} is {}", sample.name, sample.value));
    }
    Ok(())
}

/// Checks a family whose last sample was read.
pub(super) fn family(family: &Family) -> Result<(), String> {
    if family.kind != Kind::Histogram {
        return Ok(());
    }
    let mut rest = family.samples.as_slice();
    while !rest.is_empty() {
        rest = histogram(family, rest)?;
    }
    Ok(())
}

/// Checks the histogram at the start of `samples`, and returns what follows it.
///
/// Its buckets are in order, and its sum and count come before or after them.
fn histogram<'a>(family: &Family, samples: &'a [Sample]) -> Result<&'a [Sample], String> {
    let name = &family.name;
    let of = format!("{name}{:?}", without_le(&samples[0]));
    let size = samples
        .iter()
        .take_while(|s| same_series(s, &samples[0]))
        .count();
    let (own, rest) = samples.split_at(size);
    let named = |suffix: &str| {
        let full = format!("{name}{suffix}");
        own.iter().filter(move |s| s.name == full)
    };
    let mut previous = (f64::NEG_INFINITY, 0.0);
    for bucket in named("_bucket") {
        let le = number(bucket.label("le").unwrap_or_default())?;
        if le.is_nan() || le <= previous.0 {
            return Err(format!("{of}: bucket {le} after bucket {}", previous.0));
        }
        if bucket.value < previous.1 {
            return Err(format!("{of}: bucket {le} holds less than the one before"));
        }
        previous = (le, bucket.value);
    }
    if previous.0 != f64::INFINITY {
        return Err(format!("{of}: no bucket +Inf"));
    }
    if named("_sum").count() != 1 || named("_count").count() != 1 {
        return Err(format!("{of}: not one sum and one count"));
    }
    for count in named("_count") {
        if count.value != previous.1 {
            return Err(format!(
                "{of}: count {} but bucket +Inf {}",
                count.value, previous.1
            ));
        }
    }
    Ok(rest)
}

fn same_series(a: &Sample, b: &Sample) -> bool {
    without_le(a) == without_le(b)
}

fn without_le(sample: &Sample) -> Vec<&(String, String)> {
    let mut labels: Vec<_> = sample.labels.iter().filter(|l| l.0 != "le").collect();
    labels.sort();
    labels
}

#[cfg(test)]
mod tests {
    use super::super::Exposition;

    fn message(samples: &str) -> String {
        let text = format!("# HELP h H\n# TYPE h histogram\n{samples}");
        match Exposition::parse(&text) {
            Ok(_) => "fine".into(),
            Err(fault) => fault.message,
        }
    }

    #[test]
    fn histograms_are_cumulative_and_whole() {
        let whole = "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
        let cases = [
            (whole.to_owned(), "fine"),
            (
                whole.replace("+Inf\"} 2", "+Inf\"} 0"),
                "h[]: bucket inf holds less",
            ),
            (
                whole.replace("le=\"1\"", "le=\"x\""),
                "\"x\" is not a number",
            ),
            (
                whole.replace("+Inf", "0.5"),
                "h[]: bucket 0.5 after bucket 1",
            ),
            (whole.replace("+Inf", "2"), "h[]: no bucket +Inf"),
            (
                whole.replace("h_count 2", "h_count 3"),
                "h[]: count 3 but bucket +Inf 2",
            ),
            (
                whole.replace("h_sum 3\n", ""),
                "h[]: not one sum and one count",
            ),
            (
                whole.replace("h_sum 3", "h_sum{a=\"1\"} 3"),
                "h[]: not one sum and one count",
            ),
            (whole.replace("h_sum", "h"), "h is outside its family"),
            (whole.replace("{le=\"1\"}", ""), "label le of h_bucket"),
        ];
        for (samples, expected) in cases {
            let message = message(&samples);
            assert!(message.starts_with(expected), "{samples:?}: {message:?}");
        }
    }

    #[test]
    fn each_label_set_is_a_histogram_of_its_own() {
        let one = "h_bucket{a=\"1\",le=\"+Inf\"} 2\nh_sum{a=\"1\"} 3\nh_count{a=\"1\"} 2\n";
        let two = one.replace("a=\"1\"", "a=\"2\"");
        assert_eq!(message(&format!("{one}{two}")), "fine");
        let split = format!("{}{two}", one.replace("h_count{a=\"1\"} 2\n", ""));
        assert!(message(&split).contains("not one sum and one count"));
    }
}
