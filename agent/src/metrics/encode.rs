//! Encodes samples as text: the families that a scrape asks for, in one of two formats.
//!
//! Every scrape ends here, of the agent and of `autoscale`.
//! Does not depend on: where a sample comes from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text,
    },
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

use crate::{
    identity::{Replica, ShownLabels},
    metrics::{
        families::{AUTOSCALE_FAMILIES, FAMILIES},
        family::{Family, Kind},
        histogram::Histogram,
    },
};

/// A text format of the exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns the value of the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The families that a scrape asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection(Option<BTreeSet<&'static str>>);

impl Selection {
    /// Selects every family.
    pub const fn all() -> Self {
        Self(None)
    }

    /// Selects the families with one of these names; ignores unknown names.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut selected = BTreeSet::new();
        for name in names {
            let families = FAMILIES.iter().chain(AUTOSCALE_FAMILIES);
            let meant = families.filter(|family| family.has_name(name));
            selected.extend(meant.map(|family| family.name));
        }
        Self(Some(selected))
    }

    /// Returns whether it selects the family, if that has samples.
    pub(super) fn names(&self, family: &Family) -> bool {
        self.0
            .as_ref()
            .is_none_or(|names| names.contains(family.name))
    }

    /// Returns whether to print a family with this number of samples. An unfiltered scrape prints HELP and TYPE of all.
    fn wants(&self, family: &Family, samples: usize) -> bool {
        match &self.0 {
            None => true,
            Some(names) => samples > 0 && names.contains(family.name),
        }
    }
}

/// Value of one series of a counter or a gauge.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// A whole number.
    Integer(u64),
    /// Any other number.
    Float(f64),
}

impl Value {
    /// Returns whether this value is greater than `other`.
    pub(super) fn exceeds(self, other: Self) -> bool {
        match (self, other) {
            (Self::Integer(value), Self::Integer(other)) => value > other,
            _ => self.as_f64() > other.as_f64(),
        }
    }

    /// Returns the value as the nearest `f64`.
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

/// Every sample of one scrape, by family.
#[derive(Debug)]
pub(super) struct Samples {
    values: BTreeMap<&'static str, Vec<(Labels, Value)>>,
    histograms: BTreeMap<&'static str, Vec<(Labels, Histogram)>>,
    shown: ShownLabels,
}

impl Samples {
    /// Starts with none; of the labels of replicas, only those in `shown` are printed.
    pub(super) fn new(shown: ShownLabels) -> Self {
        Self {
            values: BTreeMap::new(),
            histograms: BTreeMap::new(),
            shown,
        }
    }

    /// Adds a series; `labels` are the values of the family's labels, in their order.
    pub(super) fn push(&mut self, family: &'static Family, labels: &[&str], value: Value) {
        let labels = Labels::new(family.labels, labels, self.shown);
        let series = self.values.entry(family.name).or_default();
        series.push((labels, value));
    }

    /// Adds a series of a replica; `labels` are the values of the labels before those of the replica.
    pub(super) fn push_of(
        &mut self,
        replica: &Replica,
        family: &'static Family,
        labels: &[&str],
        value: Value,
    ) {
        self.push(family, &[labels, &replica.labels()].concat(), value);
    }

    /// Adds a series of a histogram family of a replica, unless nothing was observed; `labels` are the values of the labels
    /// before those of the replica.
    pub(super) fn push_histogram_of(
        &mut self,
        replica: &Replica,
        family: &'static Family,
        labels: &[&str],
        histogram: &Histogram,
    ) {
        if histogram.count() == 0 {
            return;
        }
        let labels = [labels, &replica.labels()].concat();
        let labels = Labels::new(family.labels, &labels, self.shown);
        let series = self.histograms.entry(family.name).or_default();
        series.push((labels, histogram.clone()));
    }

    /// Returns the text of the agent's families that `selection` asks for.
    pub(super) fn encode(self, selection: &Selection, format: Format) -> String {
        self.encode_table(FAMILIES, selection, format)
    }

    /// Returns the text of the families in `table` that `selection` asks for.
    pub(super) fn encode_table(
        mut self,
        table: &[&'static Family],
        selection: &Selection,
        format: Format,
    ) -> String {
        let mut text = String::new();
        let mut families = Vec::new();
        for family in table {
            let values = self.values.remove(family.name).unwrap_or_default();
            let histograms = self.histograms.remove(family.name).unwrap_or_default();
            if !selection.wants(family, values.len() + histograms.len()) {
                continue;
            }
            families.push((*family, values));
            if !histograms.is_empty() {
                encode_families(std::mem::take(&mut families), format, &mut text);
                write_histograms(family.name, &histograms, &mut text);
            }
        }
        encode_families(families, format, &mut text);
        if format == Format::OpenMetrics {
            text::encode_eof(&mut text).expect("writing to a String succeeds");
        }
        text
    }
}

/// Writes HELP, TYPE and counters or gauges of each family.
fn encode_families(
    families: Vec<(&'static Family, Vec<(Labels, Value)>)>,
    format: Format,
    text: &mut String,
) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition { families, format }));
    text::encode_registry(text, &registry).expect("writing to a String succeeds");
}

/// Writes the lines of histograms: sum, count and cumulative buckets, which are the same in both formats.
///
/// They are nine in ten lines of a scrape. The client library formats each line and bucket bound with a dozen small
/// writes through a trait object; this takes a fifth of its time.
fn write_histograms(name: &str, series: &[(Labels, Histogram)], text: &mut String) {
    let Some((_, first)) = series.first() else {
        return;
    };
    let starts: Vec<String> = first
        .le()
        .iter()
        .map(|le| format!("{name}_bucket{{le=\"{le}\","))
        .collect();
    let line_bytes =
        |labels: &str| name.len() + labels.len() + "_bucket{le=\"0.00025\",} 1000000\n".len();
    let lines = starts.len() + 2;
    text.reserve(
        series
            .iter()
            .map(|(labels, _)| lines * line_bytes(&labels.0))
            .sum(),
    );
    let mut digits = String::new();
    for (Labels(labels), histogram) in series {
        let (sum, count) = (histogram.sum_text(), histogram.count());
        // All histogram families have labels, so a comma always separates `le` from them.
        write!(
            text,
            "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}\n"
        )
        .expect("writing to a String succeeds");
        let mut cumulative = 0;
        digits.clear();
        digits.push('0');
        for (start, count) in starts.iter().zip(histogram.counts()) {
            if *count > 0 {
                cumulative += count;
                digits.clear();
                write!(digits, "{cumulative}").expect("writing to a String succeeds");
            }
            for part in [start, labels, "} ", &digits, "\n"] {
                text.push_str(part);
            }
        }
    }
}

#[derive(Debug)]
struct Exposition {
    families: Vec<(&'static Family, Vec<(Labels, Value)>)>,
    format: Format,
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, series) in &self.families {
            let (name, metric_type) = self.descriptor(family);
            let mut metric = encoder.encode_descriptor(name, &family.help(), None, metric_type)?;
            for (labels, value) in series {
                if family.labels.is_empty() {
                    self.encode_value(&mut metric, family, *value)?;
                } else {
                    let mut labelled = metric.encode_family(labels)?;
                    self.encode_value(&mut labelled, family, *value)?;
                }
            }
        }
        Ok(())
    }
}

impl Exposition {
    /// Returns name and type for HELP and TYPE.
    ///
    /// OpenMetrics requires that every counter's samples end in `_total`. TorchServe's names must not change, so its
    /// counters have the type `unknown` there.
    fn descriptor(&self, family: &'static Family) -> (&'static str, MetricType) {
        let metric_type = match (family.kind, self.format) {
            (Kind::Counter, Format::OpenMetrics) if family.is_torchserve() => MetricType::Unknown,
            (Kind::Counter, _) => MetricType::Counter,
            (Kind::Gauge, _) => MetricType::Gauge,
            (Kind::Histogram, _) => MetricType::Histogram,
        };
        match self.format {
            Format::Text => (family.name, metric_type),
            Format::OpenMetrics => (family.openmetrics_name(), metric_type),
        }
    }

    /// Writes one series. A counter is written like a gauge, under its own name, unless OpenMetrics adds the suffix
    /// that the family's name lacks.
    fn encode_value(
        &self,
        metric: &mut MetricEncoder<'_>,
        family: &Family,
        value: Value,
    ) -> fmt::Result {
        const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, u64>> = None;
        let adds_total = self.format == Format::OpenMetrics
            && family.kind == Kind::Counter
            && !family.is_torchserve();
        match value {
            Value::Integer(value) if adds_total => metric.encode_counter(&value, NO_EXEMPLAR),
            Value::Float(value) if adds_total => metric.encode_counter(&value, NO_EXEMPLAR),
            Value::Integer(value) => metric.encode_gauge(&value),
            Value::Float(value) => metric.encode_gauge(&value),
        }
    }
}

/// The labels of one series as text, formatted once: a histogram prints them on each of its lines.
#[derive(Debug)]
struct Labels(String);

impl Labels {
    /// Spells the labels `names` with `values`, in this order, without those that are not shown.
    fn new(names: &[&str], values: &[&str], shown: ShownLabels) -> Self {
        debug_assert_eq!(names.len(), values.len(), "{names:?}");
        let bytes = |texts: &[&str]| texts.iter().map(|text| text.len()).sum::<usize>();
        // Each value adds four characters of punctuation.
        let mut text = String::with_capacity(bytes(names) + bytes(values) + 4 * names.len());
        let labels = names.iter().zip(values);
        for (name, value) in labels.filter(|(name, _)| shown.shows(name)) {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            push_escaped(&mut text, value);
            text.push('"');
        }
        Self(text)
    }
}

/// Appends a label value, and escapes the three characters that would end it or its line.
fn push_escaped(text: &mut String, value: &str) {
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        text.push_str(&rest[..at]);
        text.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'"' => "\\\"",
            _ => "\\n",
        });
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
}

impl EncodeLabelSet for Labels {
    /// Writes the whole set in place of one label's name, which the library does not change.
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        encoder
            .encode_label()
            .encode_label_key()?
            .write_str(&self.0)
    }
}
