//! Who is told of an alert and who is not: silences, acknowledgements, limits.

use std::collections::BTreeMap;

use gpuev_agent::alert::{NewSilence, Silence};
use gpuev_agent::rule::RuleSet;
use gpuev_agent::signal::GpuChange;
use gpuev_agent::{AlertState, What};
use gpuev_sim::{Comm, DriverEvent};

use crate::stage::{HOUR, MINUTE, Stage};

fn silence(stage: &Stage, label: &str, value: &str, ns: u64) -> gpuev::Result<Silence> {
    let now = stage.now().unix_ns;
    let what = NewSilence {
        labels: BTreeMap::from([(label.to_owned(), value.to_owned())]),
        until_unix_ns: now.saturating_add_unsigned(ns),
        by: "me".to_owned(),
        comment: "maintenance".to_owned(),
    };
    stage.engine.book().silence(what, now)
}

fn fault(stage: &mut Stage, name: &str) {
    stage.emit(0, &DriverEvent::VmFault { pid: 7.into(), comm: Comm::new(name) });
}

/// The rules and states that people were told of, and forgets them.
fn told(stage: &mut Stage) -> Vec<(String, AlertState)> {
    let changes = std::mem::take(&mut stage.changes);
    let told = changes.into_iter().filter(|change| change.notify);
    told.map(|change| (change.alert.rule.clone(), change.alert.state)).collect()
}

fn fires(rule: &str) -> (String, AlertState) {
    (rule.to_owned(), AlertState::Firing)
}

fn is_over(rule: &str) -> (String, AlertState) {
    (rule.to_owned(), AlertState::Resolved)
}

#[test]
fn a_silence_hides_what_it_covers_while_it_lasts() {
    let mut stage = Stage::new(1);
    silence(&stage, "process", "tra*", 5 * MINUTE).unwrap();
    fault(&mut stage, "train");
    fault(&mut stage, "other");
    assert_eq!(told(&mut stage), [fires("vm-fault")], "of the other");
    let hidden = stage.engine.book().alerts().into_iter().filter(|alert| alert.silenced).count();
    assert_eq!(hidden, 1, "it lives on");
    stage.pass(5 * MINUTE);
    assert_eq!(told(&mut stage), [fires("vm-fault")], "it still fires when the silence ends");
    assert!(stage.engine.book().silences().is_empty());
    stage.pass(5 * MINUTE);
    assert_eq!(told(&mut stage), [is_over("vm-fault"), is_over("vm-fault")]);
}

#[test]
fn what_ends_in_silence_was_never_there_for_people() {
    let mut stage = Stage::new(1);
    let made = silence(&stage, "rule", "vm-fault", HOUR).unwrap();
    fault(&mut stage, "train");
    stage.pass(20 * MINUTE);
    assert_eq!(told(&mut stage), []);
    assert_eq!(stage.engine.book().ended().len(), 1);
    fault(&mut stage, "train");
    assert!(stage.engine.book().end_silence(made.id));
    assert!(!stage.engine.book().end_silence(made.id));
    stage.pass(MINUTE);
    assert_eq!(told(&mut stage), [fires("vm-fault")]);
    silence(&stage, "rule", "vm-fault", HOUR).unwrap();
    stage.pass(20 * MINUTE);
    assert_eq!(told(&mut stage), [is_over("vm-fault")], "people knew: they hear of its end");
}

#[test]
fn silences_that_make_no_sense_are_refused() {
    let stage = Stage::new(1);
    for (label, value, ns, said) in [
        ("rule", "*", HOUR, "covers everything"),
        ("rule", "x", 0, "over before it begins"),
        ("rule", &"x".repeat(2000), HOUR, "too long"),
    ] {
        let error = silence(&stage, label, value, ns).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    for _ in 0..256 {
        silence(&stage, "rule", "x", HOUR).unwrap();
    }
    let error = silence(&stage, "rule", "x", HOUR).unwrap_err().to_string();
    assert!(error.contains("256 silences already"), "{error}");
}

const REMINDS: &str = r#"
[[rule]]
name = "gone"
severity = "critical"
records = ["gpu"]
when = 'change == "lost"'
summary = "{gpu}"
notify = { at_most = 2, within = "1h", remind = "10m" }
resolve.quiet = "7d"
"#;

#[test]
fn people_are_reminded_until_one_has_seen_it() {
    let rules = RuleSet::parse(REMINDS, "test").unwrap();
    let mut stage = Stage::with_rules(2, rules);
    stage.notice(0, What::Gpu(GpuChange::Lost), None);
    assert_eq!(told(&mut stage), [fires("gone")]);
    stage.pass(11 * MINUTE);
    assert_eq!(told(&mut stage), [fires("gone")], "reminded");
    stage.notice(1, What::Gpu(GpuChange::Lost), None);
    assert_eq!(
        told(&mut stage),
        [fires("gone")],
        "nothing is held back here: sinks for people do that"
    );
    let book = stage.engine.book().clone();
    for alert in book.alerts() {
        assert!(book.acknowledge(&alert.id, Some("ann"), stage.now().unix_ns));
    }
    assert!(!book.acknowledge("nobody", None, 0));
    stage.rest(3 * HOUR);
    assert_eq!(told(&mut stage).iter().filter(|one| **one == fires("gone")).count(), 0);
    assert!(book.alerts().iter().all(|alert| alert.acknowledged_by.as_deref() == Some("ann")));
}

#[test]
fn an_alert_says_who_what_where_and_what_to_do() {
    let mut stage = Stage::new(1);
    fault(&mut stage, "train\u{1b}[2J");
    let alert = stage.last("vm-fault");
    let bdf = stage.gpu(0).bdf.to_string();
    for (label, value) in
        [("gpu", bdf.as_str()), ("rule", "vm-fault"), ("severity", "critical"), ("host", "node7")]
    {
        assert_eq!(alert.labels[label], value);
    }
    assert!(alert.summary.contains(&bdf) && alert.summary.contains("train"), "{}", alert.summary);
    assert!(!alert.summary.contains('\u{1b}') && !alert.labels["process"].contains('\u{1b}'));
    assert!(alert.action.contains("program"), "{}", alert.action);
    let example: serde_json::Value = serde_json::from_str(&alert.example).unwrap();
    assert_eq!(example["type"], "VMFAULT");
    let (id, fingerprint) = (alert.id.clone(), alert.fingerprint.clone());
    stage.pass(HOUR);
    fault(&mut stage, "train\u{1b}[2J");
    let next = stage.last("vm-fault");
    assert!(next.id != id && next.fingerprint == fingerprint, "{next:?}");
}
