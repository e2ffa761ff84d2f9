//! From samples to text: which families a scrape asked for, and the two text formats.
//!
//! Does not know where a sample comes from.

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

use super::{
    histogram::Histogram,
    names::{FAMILIES, Family, Kind},
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
    /// Value of the `Content-Type` header.
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
    /// Every family.
    pub const fn all() -> Self {
        Self(None)
    }

    /// The families that one of `names` means; a name that means none is dropped.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut selected = BTreeSet::new();
        for name in names {
            let meant = FAMILIES.iter().filter(|family| family.answers_to(name));
            selected.extend(meant.map(|family| family.name));
        }
        Self(Some(selected))
    }

    /// Whether a family is asked for that has `samples` samples: an unfiltered scrape prints HELP and TYPE of all.
    fn wants(&self, family: &Family, samples: usize) -> bool {
        match &self.0 {
            None => true,
            Some(names) => samples > 0 && names.contains(family.name),
        }
    }
}

/// What one series holds.
#[derive(Debug)]
pub(super) enum Value {
    Integer(u64),
    Float(f64),
    Histogram(Histogram),
}

#[derive(Debug)]
struct Sample {
    labels: Labels,
    value: Value,
}

/// Every sample of one scrape, by family.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<&'static str, Vec<Sample>>);

impl Samples {
    /// Adds a series; `values` are those of the family's labels, in their order.
    pub(super) fn push(&mut self, family: &'static Family, values: &[&str], value: Value) {
        let labels = Labels::new(family.labels, values);
        let series = self.0.entry(family.name).or_default();
        series.push(Sample { labels, value });
    }

    /// The text of what `selection` asks for.
    pub(super) fn encode(mut self, selection: &Selection, format: Format) -> String {
        let families = FAMILIES.iter().filter_map(|family| {
            let series = self.0.remove(family.name).unwrap_or_default();
            selection
                .wants(family, series.len())
                .then_some((*family, series))
        });
        let families = families.collect();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition { families, format }));
        let mut text = String::new();
        let encoded = match format {
            Format::Text => text::encode_registry(&mut text, &registry),
            Format::OpenMetrics => text::encode(&mut text, &registry),
        };
        encoded.expect("writing to a String succeeds");
        text
    }
}

#[derive(Debug)]
struct Exposition {
    families: Vec<(&'static Family, Vec<Sample>)>,
    format: Format,
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, series) in &self.families {
            let (name, metric_type) = self.descriptor(family);
            let mut metric = encoder.encode_descriptor(name, &family.help(), None, metric_type)?;
            for sample in series {
                if family.labels.is_empty() {
                    self.encode_value(&mut metric, family, &sample.value)?;
                } else {
                    let mut labelled = metric.encode_family(&sample.labels)?;
                    self.encode_value(&mut labelled, family, &sample.value)?;
                }
            }
        }
        Ok(())
    }
}

impl Exposition {
    /// Name and type to announce.
    ///
    /// OpenMetrics wants every counter's samples to end in `_total`. TorchServe's names must not change, so its counters
    /// are `unknown` there.
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

    /// Writes one series. A counter goes out as a gauge does, under its name as it is, except where OpenMetrics adds
    /// the suffix that its family's name went without.
    fn encode_value(
        &self,
        metric: &mut MetricEncoder<'_>,
        family: &Family,
        value: &Value,
    ) -> fmt::Result {
        const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, u64>> = None;
        let adds_total = self.format == Format::OpenMetrics
            && family.kind == Kind::Counter
            && !family.is_torchserve();
        match value {
            Value::Integer(value) if adds_total => metric.encode_counter(value, NO_EXEMPLAR),
            Value::Float(value) if adds_total => metric.encode_counter(value, NO_EXEMPLAR),
            Value::Integer(value) => metric.encode_gauge(value),
            Value::Float(value) => metric.encode_gauge(value),
            Value::Histogram(histogram) => metric.encode_histogram::<NoLabelSet>(
                histogram.sum_s(),
                histogram.count(),
                &histogram.buckets(),
                None,
            ),
        }
    }
}

/// The labels of one series as text, made once: a histogram prints them on each of its lines.
#[derive(Debug)]
struct Labels(String);

impl Labels {
    fn new(names: &[&str], values: &[&str]) -> Self {
        debug_assert_eq!(names.len(), values.len(), "{names:?}");
        let mut text = String::new();
        for (name, value) in names.iter().zip(values) {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    character => text.push(character),
                }
            }
            text.push('"');
        }
        Self(text)
    }
}

impl EncodeLabelSet for Labels {
    /// Hands over the whole set in place of one label's name, which goes out as it is.
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        encoder
            .encode_label()
            .encode_label_key()?
            .write_str(&self.0)
    }
}
