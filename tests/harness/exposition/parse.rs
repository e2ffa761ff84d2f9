//! Parses the lines of the text format, and checks their order.
//!
//! For the consistency of a family's samples, see `check.rs`.

use std::{collections::HashSet, iter::Peekable, str::Chars};

use super::{Exposition, Family, Fault, Kind, Sample, check};

type Labels = Vec<(String, String)>;

/// Parses a whole page.
pub(super) fn page(text: &str) -> Result<Exposition, Fault> {
    let mut reader = Reader::default();
    for (index, line) in text.split('\n').enumerate() {
        reader
            .line(line)
            .map_err(|message| fault(index + 1, message))?;
    }
    let last = text.lines().count();
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(fault(last, "the last line has no line feed".into()));
    }
    reader.finish().map_err(|message| fault(last, message))
}

fn fault(line: usize, message: String) -> Fault {
    Fault { line, message }
}

#[derive(Default)]
struct Reader {
    families: Vec<Family>,
    names: HashSet<String>,
    series: HashSet<(String, Labels)>,
    help: Option<(String, String)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.ends_with('\r') {
            return Err("a carriage return ends the line".into());
        }
        if line.is_empty() {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            return self.help_line(rest);
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            return self.type_line(rest);
        }
        if line.starts_with('#') {
            return Err(format!("a comment that is neither HELP nor TYPE: {line:?}"));
        }
        self.sample_line(line)
    }

    fn help_line(&mut self, rest: &str) -> Result<(), String> {
        let (name, text) = rest.split_once(' ').ok_or("HELP without a text")?;
        check::metric_name(name)?;
        self.close_family()?;
        if !self.names.insert(name.to_owned()) {
            return Err(format!("a second HELP for {name}"));
        }
        let mut chars = text.chars();
        let mut help = String::new();
        while let Some(c) = chars.next() {
            help.push(match c {
                '\\' => escape(chars.next(), false)?,
                c => c,
            });
        }
        self.help = Some((name.to_owned(), help));
        Ok(())
    }

    fn type_line(&mut self, rest: &str) -> Result<(), String> {
        let (name, kind) = rest.split_once(' ').ok_or("TYPE without a type")?;
        let kind = match kind {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            other => return Err(format!("type {other:?} of {name}")),
        };
        let (_, help) = self
            .help
            .take_if(|(helped, _)| helped == name)
            .ok_or_else(|| format!("TYPE of {name} does not follow its HELP"))?;
        self.families.push(Family {
            name: name.to_owned(),
            help,
            kind,
            samples: Vec::new(),
        });
        Ok(())
    }

    fn sample_line(&mut self, line: &str) -> Result<(), String> {
        if let Some((name, _)) = &self.help {
            return Err(format!("{name} has a HELP but no TYPE"));
        }
        let sample = sample(line)?;
        let family = self
            .families
            .last_mut()
            .filter(|family| check::belongs(family, &sample.name))
            .ok_or_else(|| format!("{} is outside its family", sample.name))?;
        check::labels(family, &sample)?;
        let mut labels = sample.labels.clone();
        labels.sort();
        if !self.series.insert((sample.name.clone(), labels)) {
            return Err(format!("a second sample of {line:?}"));
        }
        family.samples.push(sample);
        Ok(())
    }

    /// Checks the family that has just ended.
    fn close_family(&mut self) -> Result<(), String> {
        if let Some((name, _)) = &self.help {
            return Err(format!("{name} has a HELP but no TYPE"));
        }
        self.families.last().map_or(Ok(()), check::family)
    }

    fn finish(mut self) -> Result<Exposition, String> {
        self.close_family()?;
        Ok(Exposition {
            families: self.families,
        })
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let name_end = line.find(['{', ' ']).ok_or("a sample without a value")?;
    let (name, rest) = line.split_at(name_end);
    check::metric_name(name)?;
    let mut chars = rest.chars().peekable();
    let labels = match chars.peek() {
        Some('{') => labels(&mut chars)?,
        _ => Labels::new(),
    };
    let rest: String = chars.collect();
    let rest = rest
        .strip_prefix(' ')
        .ok_or("no single space before the value")?;
    let (value, timestamp) = match rest.split_once(' ') {
        Some((value, timestamp)) => (value, Some(timestamp)),
        None => (rest, None),
    };
    if timestamp.is_some_and(|timestamp| timestamp.parse::<i64>().is_err()) {
        return Err(format!("timestamp {timestamp:?} is not a whole number"));
    }
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: number(value)?,
    })
}

/// Reads `{name="value",...}`; a comma before the closing brace is allowed by the format.
fn labels(chars: &mut Peekable<Chars<'_>>) -> Result<Labels, String> {
    let mut labels = Labels::new();
    chars.next();
    loop {
        if chars.next_if_eq(&'}').is_some() {
            return Ok(labels);
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && *c != '"' && *c != '}') {
            name.push(c);
        }
        check::label_name(&name)?;
        if chars.next() != Some('=') || chars.next() != Some('"') {
            return Err(format!("label {name} has no quoted value"));
        }
        let value = label_value(chars)?;
        if labels.iter().any(|(other, _)| *other == name) {
            return Err(format!("label {name} twice"));
        }
        labels.push((name, value));
        if chars.next_if_eq(&',').is_none() && chars.peek() != Some(&'}') {
            return Err("neither a comma nor a brace after a label".into());
        }
    }
}

fn label_value(chars: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut value = String::new();
    loop {
        value.push(match chars.next() {
            None => return Err("a label value without its closing quote".into()),
            Some('"') => return Ok(value),
            Some('\\') => escape(chars.next(), true)?,
            Some(c) => c,
        });
    }
}

fn escape(c: Option<char>, in_label: bool) -> Result<char, String> {
    match c {
        Some('\\') => Ok('\\'),
        Some('n') => Ok('\n'),
        Some('"') if in_label => Ok('"'),
        other => Err(format!("{other:?} after a backslash")),
    }
}

/// Parses a number as Go's ParseFloat does, but no hexadecimal forms or other spellings of infinity.
pub(super) fn number(text: &str) -> Result<f64, String> {
    let plain = text
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E'));
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        text if plain => text
            .parse()
            .map_err(|_| format!("{text:?} is not a number")),
        text => Err(format!("{text:?} is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP up Whether \\\\ it\\nis up.
# TYPE up gauge
up{host=\"a\\\\b\\\"c\\n\"} 1
up{host=\"\",} 2.5e-3
# HELP none_total Nothing yet.
# TYPE none_total counter
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_bucket{m=\"x\",le=\"0.1\"} 1
took_seconds_bucket{m=\"x\",le=\"+Inf\"} 3
took_seconds_sum{m=\"x\"} 2.5
took_seconds_count{m=\"x\"} 3
";

    #[test]
    fn a_page_is_read_with_its_escapes() {
        let page = page(PAGE).unwrap();
        assert_eq!(page.families.len(), 3);
        assert_eq!(page.families[0].help, "Whether \\ it\nis up.");
        assert_eq!(page.sum("up", &[("host", "a\\b\"c\n")]), 1.0);
        assert_eq!(page.sum("up", &[]), 1.0025);
        assert!(page.family("none_total").unwrap().samples.is_empty());
        assert_eq!(page.sum("took_seconds_count", &[("m", "x")]), 3.0);
    }

    #[test]
    fn every_truncation_is_either_whole_lines_or_a_fault() {
        for cut in 0..PAGE.len() {
            let at_line_end = PAGE[..cut].ends_with('\n');
            let outcome = page(&PAGE[..cut]);
            assert!(outcome.is_err() || cut == 0 || at_line_end, "cut at {cut}");
        }
    }

    #[test]
    fn each_broken_rule_is_named_with_its_line() {
        const UP: &str = "# HELP up U\n# TYPE up gauge\n";
        const COUNT: &str = "# HELP c C\n# TYPE c counter\n";
        let cases = [
            ("up 1\n", "line 1: up is outside its family"),
            ("# TYPE up gauge\n", "line 1: TYPE of up does not follow"),
            ("# HELP up U\nup 1\n", "line 2: up has a HELP but no TYPE"),
            (
                "# HELP up U\n# TYPE up summary\n",
                "line 2: type \"summary\"",
            ),
            ("# EOF\n", "line 1: a comment that is neither"),
            (
                &format!("{UP}up 1"),
                "line 3: the last line has no line feed",
            ),
            (&format!("{UP}up 1\r\n"), "line 3: a carriage return"),
            (&format!("{UP}up 1\nup 2\n"), "line 4: a second sample of"),
            (
                &format!("{UP}up{{a=\"1\",b=\"2\"}} 1\nup{{b=\"2\",a=\"1\"}} 2\n"),
                "line 4: a second sample of",
            ),
            (
                &format!("{UP}{COUNT}up 1\n"),
                "line 5: up is outside its family",
            ),
            (&format!("{UP}{UP}"), "line 3: a second HELP for up"),
            (
                &format!("{UP}up{{a=\"\\t\"}} 1\n"),
                "line 3: Some('t') after",
            ),
            (
                &format!("{UP}up{{a=\"1\",a=\"2\"}} 1\n"),
                "line 3: label a twice",
            ),
            (
                &format!("{UP}up{{a=1}} 1\n"),
                "line 3: label a has no quoted",
            ),
            (
                &format!("{UP}up{{0a=\"1\"}} 1\n"),
                "line 3: label name \"0a\"",
            ),
            (
                &format!("{UP}up{{a=\"1\"b=\"2\"}} 1\n"),
                "line 3: neither a comma",
            ),
            (&format!("{UP}up  1\n"), "line 3: \"\" is not a number"),
            (&format!("{UP}up inf\n"), "line 3: \"inf\" is not a number"),
            (&format!("{UP}up 1 2.5\n"), "line 3: timestamp"),
            (&format!("{UP}up{{le=\"1\"}} 1\n"), "line 3: label le"),
            (&format!("{COUNT}c -1\n"), "line 3: counter c is -1"),
            (&format!("{COUNT}c NaN\n"), "line 3: counter c is NaN"),
        ];
        for (text, expected) in cases {
            let message = page(text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text:?}: {message:?}");
        }
    }
}
