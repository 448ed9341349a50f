//! Families as OTLP's metrics.

use serde_json::{Value as Json, json};

use crate::metrics::{Family, FamilyKind, Sample, Value};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u32 = 2;

/// Since when counters count, and when they were read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) started_unix_ns: i64,
    pub(super) now_unix_ns: i64,
}

/// Those that have samples.
pub(super) fn all(families: &[Family], times: Times) -> Vec<Json> {
    let filled = families.iter().filter(|family| !family.samples.is_empty());
    filled.map(|family| metric(family, times)).collect()
}

fn metric(family: &Family, times: Times) -> Json {
    let points: Vec<Json> = family.samples.iter().map(|sample| point(sample, times)).collect();
    let (kind, data) = match family.kind {
        FamilyKind::Counter => (
            "sum",
            json!({
                "dataPoints": points,
                "aggregationTemporality": CUMULATIVE,
                "isMonotonic": true,
            }),
        ),
        FamilyKind::Histogram => {
            ("histogram", json!({ "dataPoints": points, "aggregationTemporality": CUMULATIVE }))
        }
        FamilyKind::Gauge | FamilyKind::Info => ("gauge", json!({ "dataPoints": points })),
    };
    json!({
        "name": family.name,
        "description": family.help,
        "unit": unit(family.unit),
        kind: data,
    })
}

/// As UCUM writes it.
fn unit(unit: Option<&str>) -> &str {
    match unit {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some("celsius") => "Cel",
        Some("watts") => "W",
        Some(_) | None => "1",
    }
}

fn point(sample: &Sample, times: Times) -> Json {
    let attributes = sample.labels.iter().map(|(key, text)| super::attribute(key, &json!(text)));
    let mut point = json!({
        "attributes": attributes.collect::<Vec<_>>(),
        "startTimeUnixNano": times.started_unix_ns.to_string(),
        "timeUnixNano": times.now_unix_ns.to_string(),
    });
    match &sample.value {
        Value::Integer(value) => point["asInt"] = json!(value.to_string()),
        Value::Float(value) => point["asDouble"] = json!(value),
        Value::Histogram { buckets, count, sum } => {
            point["count"] = json!(count.to_string());
            point["sum"] = json!(sum);
            point["explicitBounds"] = buckets.iter().map(|(end, _)| json!(end)).collect();
            point["bucketCounts"] = single_counts(buckets, *count).into();
        }
    }
    point
}

/// OTLP counts each bucket by itself, and the last is of those above every end.
fn single_counts(buckets: &[(f64, u64)], count: u64) -> Vec<Json> {
    let below = buckets.iter().map(|(_, below)| *below).chain([count]);
    let mut before = 0;
    below.map(|below| json!((below - std::mem::replace(&mut before, below)).to_string())).collect()
}
