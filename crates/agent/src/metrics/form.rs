//! Prometheus' text form: a name, and its values by their labels.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// One name, and its values.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub values: Values,
}

/// A value for each set of labels.
pub type Values = Vec<(Vec<(&'static str, String)>, u64)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

impl Metric {
    /// One value without labels.
    pub fn of(name: &'static str, help: &'static str, kind: Kind, value: u64) -> Self {
        Self { name, help, kind, values: vec![(Vec::new(), value)] }
    }

    fn write(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        let mut family = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        if let [(labels, value)] = self.values.as_slice()
            && labels.is_empty()
        {
            return self.put(*value, family);
        }
        let mut each = self.values.iter();
        each.try_for_each(|(labels, value)| self.put(*value, family.encode_family(labels)?))
    }

    fn put(&self, value: u64, place: MetricEncoder<'_>) -> fmt::Result {
        match self.kind {
            Kind::Counter => ConstCounter::new(value).encode(place),
            Kind::Gauge => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(place),
        }
    }
}

#[derive(Debug)]
struct View(Vec<Metric>);

impl Collector for View {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // A name without values would be one without a meaning.
        let mut told = self.0.iter().filter(|metric| !metric.values.is_empty());
        told.try_for_each(|metric| metric.write(&mut encoder))
    }
}

/// The text of one scrape; every name begins with the prefix.
pub fn text(prefix: &str, metrics: Vec<Metric>) -> String {
    let mut registry = Registry::with_prefix(prefix);
    registry.register_collector(Box::new(View(metrics)));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text,
        Err(error) => format!("# metrics could not be written: {error}\n"),
    }
}

/// Counts of anything fit.
pub fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
