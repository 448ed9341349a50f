//! OpenTelemetry: a receiver that reads what the specification says.

use std::time::Duration;

use gpuev_agent::AlertState;
use gpuev_agent::sink::{Context, Settings, Sinks};
use serde_json::Value;

use super::fixture::{Told, change, context, counted, fault, until};
use crate::receiver::{Does, Receiver};

fn start(receiver: &Receiver, folder: &std::path::Path, every: &str) -> Sinks {
    let toml = format!(
        "[otlp.main]\nurl = \"{}/\"\nmetrics_every = \"{every}\"\nresource = {{ \"deployment.environment\" = \"lab\" }}\n\
         queue.retry_first = \"1ms\"\nqueue.retry_most = \"5ms\"\n",
        receiver.url()
    );
    let settings: Settings = toml::from_str(&toml).unwrap();
    let context = context(folder, &Told::default());
    context.metrics.observe(&fault(1));
    Sinks::start(&settings, Context { ..context }).unwrap()
}

/// A value with its type, as OTLP/JSON has it.
fn plain(value: &Value) -> Value {
    let (kind, inner) = value.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "intValue" => inner.as_str().unwrap().parse::<i64>().unwrap().into(),
        "stringValue" => inner.as_str().unwrap().into(),
        "boolValue" => inner.as_bool().unwrap().into(),
        "doubleValue" => inner.as_f64().unwrap().into(),
        "arrayValue" => inner["values"].as_array().unwrap().iter().map(plain).collect(),
        other => panic!("{other}"),
    }
}

fn attribute(of: &Value, key: &str) -> Value {
    let all = of["attributes"].as_array().unwrap();
    all.iter().find(|found| found["key"] == key).map_or(Value::Null, |found| plain(&found["value"]))
}

/// All log records that were taken.
fn logs(receiver: &Receiver) -> Vec<Value> {
    let mut records = Vec::new();
    for request in receiver.taken().iter().filter(|request| request.path == "/v1/logs") {
        assert_eq!(request.header("content-type"), "application/json");
        let body = request.json();
        let resource = &body["resourceLogs"][0]["resource"];
        assert_eq!(attribute(resource, "service.name"), "gpuev");
        assert_eq!(attribute(resource, "host.name"), "node7");
        assert_eq!(attribute(resource, "deployment.environment"), "lab");
        let found = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
        records.extend(found.as_array().unwrap().clone());
    }
    records
}

#[test]
fn records_are_log_records_and_each_comes_once_whatever_the_receiver_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(Does::Answers(200));
    let sinks = start(&receiver, folder.path(), "0s");
    let wait = || until("all delivered", || sinks.stats()[0].waiting == 0);
    sinks.signal(&fault(7));
    sinks.change(&change("a1", AlertState::Firing));
    wait();
    let found = logs(&receiver);
    assert_eq!(found[0]["eventName"], "gpuev.event.VMFAULT");
    assert_eq!(
        (&found[0]["severityNumber"], &found[0]["severityText"]),
        (&17.into(), &"critical".into())
    );
    assert_eq!(plain(&found[0]["body"]), "memory fault by pid 4242 (python3)");
    assert_eq!(found[0]["timeUnixNano"], "1795347901000000000");
    assert_eq!(attribute(&found[0], "gpuev.seq"), 7);
    assert_eq!(attribute(&found[0], "gpuev.gpu.bdf"), "0000:03:00.0");
    assert_eq!(found[1]["eventName"], "gpuev.alert.firing");
    assert_eq!(attribute(&found[1], "gpuev.labels.pid"), "4242");
    receiver.stop();
    sinks.signal(&fault(8));
    until("a try", || sinks.stats()[0].failing.is_some());
    receiver.start();
    for does in [
        Does::Answers(503),
        Does::Answers(429),
        Does::HangsUp,
        Does::Slow(Duration::from_millis(20)),
    ] {
        receiver.does(does);
        let seen = receiver.seen();
        for seq in 0..20 {
            sinks.signal(&fault(seq));
        }
        until("a try", || receiver.seen() > seen);
        receiver.does(Does::Answers(200));
        wait();
    }
    let found = logs(&receiver);
    let ids: Vec<String> = found
        .iter()
        .map(|record| attribute(record, "log.record.uid").as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ids.len(), counted(&ids).len()), (83, 83));
    assert_eq!((sinks.stats()[0].delivered, sinks.stats()[0].lost), (83, 0));
}

#[test]
fn metrics_are_sent_from_time_to_time() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(Does::Answers(200));
    let sinks = start(&receiver, folder.path(), "10ms");
    let of_metrics = || receiver.taken().into_iter().find(|request| request.path == "/v1/metrics");
    until("metrics", || of_metrics().is_some());
    drop(sinks);
    let body = of_metrics().unwrap().json();
    let metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let events = metrics.iter().find(|metric| metric["name"] == "gpuev_events").unwrap();
    assert_eq!(events["sum"]["isMonotonic"], true);
    assert_eq!(events["sum"]["aggregationTemporality"], 2);
    let point = &events["sum"]["dataPoints"][0];
    assert_eq!((&point["asInt"], attribute(point, "type")), (&"1".into(), "VMFAULT".into()));
}
