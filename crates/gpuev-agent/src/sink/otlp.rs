//! OpenTelemetry over HTTP, encoded as JSON: records as log records, metrics as metrics.
//!
//! A log record carries the message's id as `log.record.uid`, its kind and type as `eventName`, and every field of
//! the record as an attribute `gpuev.…`. Metrics are those of `/metrics`, cumulative since the agent started.

mod metrics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gpuev::Severity;
use gpuev::time::Anchor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::{Client, HttpSettings, check_url};
use super::message::{Kind, Message};
use super::outbox::OutboxSettings;
use super::settings::{Context, SinkSettings};
use super::{Failure, Filter, Order, Sink};
use crate::metrics::Metrics;
use crate::quantity::Period;

/// `[sinks.otlp.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpSettings {
    /// The receiver's address without `/v1/logs`.
    pub url: String,
    /// How often metrics are sent; 0: never.
    pub metrics_every: Period,
    /// More attributes of the resource, beside `service.name` and `host.name`.
    pub resource: BTreeMap<String, String>,
    /// More headers.
    pub headers: BTreeMap<String, String>,
    /// How the server is reached.
    pub http: HttpSettings,
    /// What is sent as logs. Unset: all records but readings, and every change of an alert.
    pub send: Filter,
    /// How messages wait. They are kept on disk, too, unless `queue.spool` says otherwise.
    pub queue: OutboxSettings,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:4318".to_owned(),
            metrics_every: Period::from_secs(60),
            resource: BTreeMap::new(),
            headers: BTreeMap::new(),
            http: HttpSettings::default(),
            send: Filter::default(),
            queue: OutboxSettings::default(),
        }
    }
}

impl SinkSettings for OtlpSettings {
    const KIND: &'static str = "otlp";
    const PROMISES: bool = true;

    fn defaults() -> Filter {
        Filter::of(Kind::ALL.into_iter().filter(|kind| *kind != Kind::Health))
    }

    fn send(&self) -> &Filter {
        &self.send
    }

    fn queue(&self) -> &OutboxSettings {
        &self.queue
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Sink>, String> {
        check_url(&self.url)?;
        Ok(Box::new(Otlp {
            client: Client::new(&self.http)?,
            resource: self.resource(&context.host),
            settings: self.clone(),
            metrics: context.metrics.clone(),
            started_unix_ns: Anchor::now().unix_ns,
        }))
    }
}

impl OtlpSettings {
    fn resource(&self, host: &str) -> Value {
        let own = [
            ("service.name", "gpuev"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("host.name", host),
        ];
        let more = self.resource.iter().map(|(key, value)| (&**key, &**value));
        let all: BTreeMap<&str, &str> = own.into_iter().chain(more).collect();
        let attributes = all.into_iter().map(|(key, text)| attribute(key, &json!(text)));
        json!({ "attributes": attributes.collect::<Vec<_>>() })
    }
}

struct Otlp {
    client: Client,
    settings: OtlpSettings,
    resource: Value,
    metrics: Arc<Metrics>,
    started_unix_ns: i64,
}

impl Otlp {
    /// Sends it and tells how many the receiver threw away. Those must not be sent again.
    fn post(&self, path: &str, body: &Value) -> Result<usize, Failure> {
        let url = format!("{}{path}", self.settings.url.trim_end_matches('/'));
        let own = self.settings.headers.iter().map(|(name, value)| (&**name, &**value));
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(own);
        let answer = self.client.post(&url, &headers, &body.to_string())?;
        let answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let rejected = &answer["partialSuccess"]["rejectedLogRecords"];
        let number = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok());
        Ok(number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0))
    }
}

impl Sink for Otlp {
    fn batch(&self) -> usize {
        256
    }

    fn order(&self) -> Order {
        Order::Records
    }

    fn tells_loss(&self) -> bool {
        true
    }

    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure> {
        let records: Vec<Value> = batch.iter().map(log_record).collect();
        let logs = json!([{ "scope": scope(), "logRecords": records }]);
        let resource = json!({ "resource": self.resource, "scopeLogs": logs });
        self.post("/v1/logs", &json!({ "resourceLogs": [resource] }))
    }

    fn upkeep_every(&self) -> Option<Duration> {
        let every = self.settings.metrics_every.0;
        (every > Duration::ZERO).then_some(every)
    }

    fn upkeep(&mut self) -> Result<(), Failure> {
        let times = metrics::Times {
            started_unix_ns: self.started_unix_ns,
            now_unix_ns: Anchor::now().unix_ns,
        };
        let metrics = metrics::all(&self.metrics.families(&[]), times);
        let scope_metrics = json!([{ "scope": scope(), "metrics": metrics }]);
        let resource = json!({ "resource": self.resource, "scopeMetrics": scope_metrics });
        self.post("/v1/metrics", &json!({ "resourceMetrics": [resource] })).map(drop)
    }
}

fn scope() -> Value {
    json!({ "name": "gpuev", "version": env!("CARGO_PKG_VERSION") })
}

/// OpenTelemetry's numbers of severities: 9 to 12 is INFO, 13 to 16 WARN, 17 to 20 ERROR.
fn log_record(message: &Message) -> Value {
    let record: Value = serde_json::from_str(&message.json).unwrap_or_default();
    let number = match message.severity_now() {
        Severity::Critical => 17,
        Severity::Warning => 13,
        Severity::Info => 9,
    };
    let sort = record["state"].as_str().or(record["type"].as_str());
    let name: Vec<&str> =
        [Some("gpuev"), Some(message.kind.name()), sort].into_iter().flatten().collect();
    let mut attributes = vec![attribute("log.record.uid", &json!(&*message.id))];
    flatten("gpuev", &record, &mut attributes);
    json!({
        "timeUnixNano": message.unix_ns.to_string(),
        "observedTimeUnixNano": message.unix_ns.to_string(),
        "severityNumber": number,
        "severityText": message.severity.name(),
        "eventName": name.join("."),
        "body": any_value(&json!(message.text(&record))),
        "attributes": attributes,
    })
}

/// Objects within objects become names with dots: many receivers know no others.
fn flatten(name: &str, value: &Value, out: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&format!("{name}.{key}"), value, out);
            }
        }
        Value::Null => {}
        other => out.push(attribute(name, other)),
    }
}

fn attribute(key: &str, value: &Value) -> Value {
    json!({ "key": key, "value": any_value(value) })
}

/// A value as OTLP's JSON has it: with its type, and 64-bit integers as text.
fn any_value(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(bool) => json!({ "boolValue": bool }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => json!({ "intValue": integer.to_string() }),
            (None, Some(double)) => json!({ "doubleValue": double }),
            (None, None) => json!({ "stringValue": number.to_string() }),
        },
        Value::Array(items) => {
            let values: Vec<Value> = items.iter().map(any_value).collect();
            json!({ "arrayValue": { "values": values } })
        }
        Value::Object(fields) => {
            let values: Vec<Value> = fields.iter().map(|(key, of)| attribute(key, of)).collect();
            json!({ "kvlistValue": { "values": values } })
        }
    }
}
