//! Metrics as text: OpenMetrics 1.0, and Prometheus' format 0.0.4 from before it.
//!
//! The two differ in where `_total` and `_info` stand, in units, in kinds and at the end; a reader of one does
//! not understand the other.

use std::fmt::{self, Display, Write};

use super::family::{Family, FamilyKind, Sample, Value};

/// A format of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Exposition {
    /// The one to answer an HTTP request with this `Accept` header with.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// The HTTP `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Writes `families`, without those that have no samples.
    #[must_use]
    pub fn encode(self, families: &[Family]) -> String {
        let mut out = String::with_capacity(4096);
        for family in families.iter().filter(|family| !family.samples.is_empty()) {
            // Writing to a `String` cannot fail.
            let _infallible = self.family(&mut out, family);
        }
        if self == Self::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }

    fn family(self, out: &mut String, family: &Family) -> fmt::Result {
        let (name, suffix) = (family.name, suffix(family.kind));
        // OpenMetrics names the family, the older format the samples.
        let head = if self == Self::OpenMetrics { "" } else { suffix };
        let kind = match (family.kind, self) {
            (FamilyKind::Counter, _) => "counter",
            (FamilyKind::Histogram, _) => "histogram",
            (FamilyKind::Info, Self::OpenMetrics) => "info",
            (FamilyKind::Info | FamilyKind::Gauge, _) => "gauge",
        };
        writeln!(out, "# TYPE {name}{head} {kind}")?;
        if let (Some(unit), Self::OpenMetrics) = (family.unit, self) {
            writeln!(out, "# UNIT {name} {unit}")?;
        }
        writeln!(out, "# HELP {name}{head} {}", family.help)?;
        family.samples.iter().try_for_each(|found| sample(out, name, suffix, found))
    }
}

const fn suffix(kind: FamilyKind) -> &'static str {
    match kind {
        FamilyKind::Counter => "_total",
        FamilyKind::Info => "_info",
        FamilyKind::Gauge | FamilyKind::Histogram => "",
    }
}

fn sample(out: &mut String, name: &str, suffix: &str, sample: &Sample) -> fmt::Result {
    let labels = &sample.labels;
    match &sample.value {
        Value::Integer(value) => line(out, (name, suffix), labels, None, value),
        Value::Float(value) => line(out, (name, suffix), labels, None, value),
        Value::Histogram { buckets, count, sum } => {
            for (end, below) in buckets {
                // `{:?}` writes 1 as `1.0`, which is how OpenMetrics wants its ends.
                line(out, (name, "_bucket"), labels, Some(&format!("{end:?}")), below)?;
            }
            line(out, (name, "_bucket"), labels, Some("+Inf"), count)?;
            line(out, (name, "_sum"), labels, None, sum)?;
            line(out, (name, "_count"), labels, None, count)
        }
    }
}

fn line(
    out: &mut String,
    (name, suffix): (&str, &str),
    labels: &[(&'static str, String)],
    end: Option<&str>,
    value: impl Display,
) -> fmt::Result {
    write!(out, "{name}{suffix}")?;
    let end = end.map(|end| ("le", end));
    let labels = labels.iter().map(|(key, text)| (*key, text.as_str())).chain(end);
    let mut before = '{';
    for (key, text) in labels {
        write!(out, "{before}{key}=\"")?;
        escape(out, text);
        out.push('"');
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    writeln!(out, " {value}")
}

fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}
