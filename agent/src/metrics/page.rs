//! Parses the samples of the Prometheus text format, version 0.0.4, strictly.
//!
//! `autoscale` and the API pick the samples that they need.
//! Does not depend on: the meaning of a family.

/// Label names and unescaped values, in the order of the line.
pub type Labels = Vec<(String, String)>;

/// One sample line.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Metric name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Value.
    pub value: f64,
}

impl Sample {
    /// Whether it has this label with this value.
    pub fn has(&self, label: &str, value: &str) -> bool {
        let mut labels = self.labels.iter();
        labels.any(|(name, own)| name == label && own == value)
    }
}

/// A line that breaks the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {rule}")]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// Rule that it breaks.
    pub rule: &'static str,
}

/// Returns every sample of a page, in its order.
pub fn parse(page: &str) -> Result<Vec<Sample>, Fault> {
    let mut samples = Vec::new();
    if !page.is_empty() && !page.ends_with('\n') {
        let line = page.lines().count();
        return Err(Fault {
            line,
            rule: "the page is cut off",
        });
    }
    for (index, line) in page.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let sample = sample(line).map_err(|rule| Fault {
            line: index + 1,
            rule,
        })?;
        samples.push(sample);
    }
    Ok(samples)
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let (name, rest) = name(line).ok_or("no metric name")?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let mut words = rest
        .strip_prefix(' ')
        .ok_or("no space before the value")?
        .split(' ');
    let value = words.next().and_then(value).ok_or("no value")?;
    let timestamp = words.next();
    if timestamp.is_some_and(|word| word.parse::<i64>().is_err()) || words.next().is_some() {
        return Err("more than a value and a timestamp");
    }
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Returns the labels, and the rest after their closing brace.
fn labels(mut text: &str) -> Result<(Labels, &str), &'static str> {
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (label, rest) = name(text).ok_or("no label name")?;
        let rest = rest.strip_prefix("=\"").ok_or("no value of a label")?;
        let (value, rest) = quoted(rest)?;
        labels.push((label.to_owned(), value));
        // A comma may follow the last label, as TorchServe writes it.
        text = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None if rest.starts_with('}') => rest,
            None => return Err("no comma between labels"),
        };
    }
}

/// Returns an unescaped label value, and the rest after its closing quote.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match rest.next() {
                Some((_, '\\')) => '\\',
                Some((_, '"')) => '"',
                Some((_, 'n')) => '\n',
                _ => return Err("no such escape"),
            }),
            c => value.push(c),
        }
    }
    Err("a label value without its end")
}

/// Returns a name and the rest.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')))
        .unwrap_or(text.len());
    let starts = text.starts_with(|c: char| !c.is_ascii_digit());
    (end > 0 && starts).then(|| text.split_at(end))
}

fn value(word: &str) -> Option<f64> {
    match word {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ if word.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')) => None,
        _ => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let page = "# HELP a b\n# TYPE a gauge\n\na 1\na:b_2{} -2.5E-3 1795320846000\n\
                    c{x=\"1\",y=\"a\\\\b\\\"c\\nd,}é\",} +Inf\n";
        let samples = parse(page).unwrap();
        let [plain, stamped, labelled] = samples.as_slice() else {
            panic!("{samples:?}");
        };
        assert_eq!((plain.name.as_str(), plain.value), ("a", 1.0));
        assert_eq!((stamped.name.as_str(), stamped.value), ("a:b_2", -0.0025));
        assert!(stamped.labels.is_empty());
        assert!(labelled.has("x", "1") && labelled.has("y", "a\\b\"c\nd,}é"));
        assert!(!labelled.has("x", "2") && !labelled.has("z", "1"));
        assert_eq!(labelled.value, f64::INFINITY);
    }

    #[test]
    fn a_line_that_breaks_the_format_is_refused_with_its_number() {
        for (line, rule) in [
            ("{x=\"1\"} 1", "no metric name"),
            ("1a 1", "no metric name"),
            ("<html>", "no metric name"),
            ("a", "no space before the value"),
            ("a{x=\"1\"}1", "no space before the value"),
            ("a  1", "no value"),
            ("a x", "no value"),
            ("a infinity", "no value"),
            ("a 1 x", "more than a value and a timestamp"),
            ("a 1 2 3", "more than a value and a timestamp"),
            ("a{x=\"1\"y=\"2\"} 1", "no comma between labels"),
            ("a{=\"1\"} 1", "no label name"),
            ("a{x} 1", "no value of a label"),
            ("a{x=\"\\t\"} 1", "no such escape"),
            ("a{x=\"1} 1", "a label value without its end"),
        ] {
            let fault = parse(&format!("b 1\n{line}\n")).unwrap_err();
            assert_eq!(fault, Fault { line: 2, rule }, "{line}");
        }
    }

    #[test]
    fn a_page_cut_anywhere_inside_a_line_is_refused() {
        let page = "a{x=\"1\",y=\"\\\\\"} 12\n";
        for end in 1..page.len() {
            parse(&page[..end]).unwrap_err();
        }
        assert_eq!(parse("").unwrap(), []);
    }
}
