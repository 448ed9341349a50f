//! Webhooks.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gpuev_agent::AlertState;
use gpuev_agent::sink::{Notice, Settings, Sinks};
use serde_json::Value;

use super::fixture::{Told, change, context, counted, fault, until};
use crate::receiver::{Does, Receiver};

const FAST: &str = "queue.retry_first = \"1ms\"\nqueue.retry_most = \"5ms\"\n";

fn start(folder: &Path, toml: &str, told: &Told) -> Sinks {
    let settings: Settings = toml::from_str(toml).unwrap();
    Sinks::start(&settings, context(folder, told)).unwrap()
}

fn wait(sinks: &Sinks) {
    until("all delivered", || sinks.stats().iter().all(|stats| stats.waiting == 0));
}

/// What one alert, firing and over, becomes.
fn sent(more: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "R0UTE\n").unwrap();
    let receiver = Receiver::new(Does::Answers(202));
    let secret = folder.path().join("secret");
    let toml = format!(
        "[webhook.one]\nurl = \"{}/hook\"\nsecret_file = {secret:?}\n{more}{FAST}",
        receiver.url()
    );
    let sinks = start(folder.path(), &toml, &Told::default());
    sinks.change(&change("a1", AlertState::Firing));
    wait(&sinks);
    sinks.change(&change("a1", AlertState::Resolved));
    wait(&sinks);
    receiver.taken().iter().map(super::super::receiver::Request::json).collect()
}

#[test]
fn nothing_is_lost_and_nothing_taken_twice_while_the_server_is_stopped_slow_and_failing() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(Does::Answers(200));
    let told = Told::default();
    let toml = format!("[webhook.one]\nurl = \"{}\"\n{FAST}", receiver.url());
    let sinks = start(folder.path(), &toml, &told);
    let mut offered = 0;
    let mut offer = |count: usize| {
        for _ in 0..count {
            sinks.change(&change(&format!("a{offered:03}"), AlertState::Firing));
            offered += 1;
        }
    };
    offer(5);
    wait(&sinks);
    receiver.stop();
    offer(5);
    until("it is told", || told.count(|n| matches!(n, Notice::Failing { .. })) == 1);
    receiver.start();
    for does in [
        Does::Answers(500),
        Does::Answers(503),
        Does::Answers(429),
        Does::Answers(401),
        Does::Answers(302),
        Does::HangsUp,
        Does::Slow(Duration::from_millis(30)),
    ] {
        receiver.does(does);
        let seen = receiver.seen();
        offer(5);
        until("some tries", || receiver.seen() >= seen + 2);
        receiver.does(Does::Answers(200));
        wait(&sinks);
    }
    let ids: Vec<String> =
        receiver.taken().iter().map(|r| r.header("idempotency-key").to_owned()).collect();
    assert_eq!(ids.len(), 45);
    assert_eq!(counted(&ids).len(), 45, "{ids:?}");
    let stats = &sinks.stats()[0];
    assert_eq!((stats.delivered, stats.dead_letters, stats.lost), (45, 0, 0));
    let told: Vec<String> = told.all().iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|text| text.contains("redirects are not followed")), "{told:?}");
}

#[test]
fn a_request_that_the_server_calls_bad_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(Does::Answers(400));
    let told = Told::default();
    let toml = format!("[webhook.one]\nurl = \"{}/secret-path\"\n{FAST}", receiver.url());
    let sinks = start(folder.path(), &toml, &told);
    sinks.change(&change("a1", AlertState::Firing));
    wait(&sinks);
    assert_eq!((receiver.seen(), sinks.stats()[0].dead_letters), (1, 1));
    let told = told.all()[0].to_string();
    assert!(told.contains("answers 400") && !told.contains("secret-path"), "{told}");
}

#[test]
fn the_record_itself_is_the_body_where_nothing_else_is_said() {
    let bodies = sent("");
    assert_eq!(bodies.len(), 2);
    assert_eq!((&bodies[0]["record"], &bodies[0]["state"]), (&"alert".into(), &"firing".into()));
    assert_eq!(bodies[0]["summary"], "memory fault \"a1\"\nof python3 on 0000:03:00.0");
    assert_eq!((&bodies[1]["state"], &bodies[1]["revision"]), (&"resolved".into(), &2.into()));
}

#[test]
fn slack_gets_a_coloured_attachment_and_no_mentions() {
    let bodies = sent("template = \"slack\"\n");
    let text = bodies[0]["text"].as_str().unwrap();
    assert_eq!(text, "[FIRING] vmfault on node7: memory fault \"a1\"");
    let block = &bodies[0]["attachments"][0];
    assert_eq!(block["color"], "#d00000");
    assert_eq!(block["blocks"][0]["text"]["type"], "plain_text");
    assert_eq!(block["blocks"][2]["text"]["text"], "look at the job's log");
    assert_eq!(bodies[1]["attachments"][0]["color"], "#2eb67d");
}

#[test]
fn teams_gets_an_adaptive_card() {
    let bodies = sent("template = \"teams\"\n");
    let card = &bodies[0]["attachments"][0];
    assert_eq!(card["contentType"], "application/vnd.microsoft.card.adaptive");
    let facts = card["content"]["body"][2]["facts"].as_array().unwrap();
    assert!(
        facts.contains(&serde_json::json!({"title": "gpu", "value": "0000:03:00.0"})),
        "{facts:?}"
    );
}

#[test]
fn pagerduty_gets_a_trigger_and_the_resolve_of_the_same_key() {
    let bodies = sent("template = \"pagerduty\"\n");
    let what = |at: usize| (&bodies[at]["event_action"], &bodies[at]["dedup_key"]);
    assert_eq!(what(0), (&"trigger".into(), &"node7/rule/a1".into()));
    assert_eq!(what(1), (&"resolve".into(), &"node7/rule/a1".into()));
    assert_eq!(bodies[0]["routing_key"], "R0UTE");
    let payload = &bodies[0]["payload"];
    assert_eq!((&payload["severity"], &payload["source"]), (&"critical".into(), &"node7".into()));
    assert_eq!(payload["component"], "0000:03:00.0");
}

#[test]
fn templates_of_ones_own_cannot_be_broken_out_of_and_mistakes_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(Does::Answers(200));
    let template = folder.path().join("mine.j2");
    fs::write(&template, "{\"t\": {{ kind ~ \": \" ~ summary }}, \"n\": {{ record.seq }}}")
        .unwrap();
    let toml = format!(
        "[webhook.one]\nurl = \"{}\"\ntemplate_file = {template:?}\nsend.records = [\"event\"]\n{FAST}",
        receiver.url()
    );
    let sinks = start(folder.path(), &toml, &Told::default());
    let evil = super::fixture::event(9, b"1 1092:\",\"x\":\"y");
    sinks.signal(&super::fixture::signal_of(gpuev_agent::What::Event(evil)));
    sinks.signal(&fault(10));
    wait(&sinks);
    let body = receiver.taken()[0].json();
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    assert!(body["t"].as_str().unwrap().contains("\",\"x\":\"y"), "{body}");
    for (text, says) in [("{{ kind ", "syntax error"), ("{{ kind }},", "makes no JSON")] {
        fs::write(&template, text).unwrap();
        let settings: Settings = toml::from_str(&toml).unwrap();
        let error = settings.check(&context(folder.path(), &Told::default())).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.to_string().starts_with("sink webhook.one: "), "{error}");
    }
}

#[test]
fn secrets_come_from_files_and_may_change() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(Does::Answers(200));
    let (url, token) = (folder.path().join("url"), folder.path().join("token"));
    fs::write(&url, receiver.url() + "/first\n").unwrap();
    fs::write(&token, "one").unwrap();
    let toml = format!("[webhook.one]\nurl_file = {url:?}\nhttp.token_file = {token:?}\n{FAST}");
    let sinks = start(folder.path(), &toml, &Told::default());
    sinks.change(&change("a1", AlertState::Firing));
    wait(&sinks);
    fs::write(&url, receiver.url() + "/second\n").unwrap();
    fs::write(&token, "two").unwrap();
    sinks.change(&change("a2", AlertState::Firing));
    wait(&sinks);
    let taken = receiver.taken();
    let seen: Vec<_> = taken.iter().map(|r| (&*r.path, r.header("authorization"))).collect();
    assert_eq!(seen, [("/first", "Bearer one"), ("/second", "Bearer two")]);
    fs::remove_file(&token).unwrap();
    let settings: Settings = toml::from_str(&toml).unwrap();
    let error = settings.check(&context(folder.path(), &Told::default())).unwrap_err();
    assert!(error.to_string().contains("token: No such file"), "{error}");
}

/// What a crash may have kept from the disk, and may not have.
#[test]
fn what_was_on_its_way_comes_once_whether_the_disk_has_it_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(Does::Answers(200));
    let records = folder.path().join("records");
    let url = receiver.url();
    let toml = |retry: &str| {
        format!("[webhook.one]\nurl = {url:?}\n{retry}[file.all]\npath = {records:?}\n")
    };
    receiver.stop();
    let changes = ["a1", "a2"].map(|id| change(id, AlertState::Firing));
    let told = Told::default();
    let sinks = start(folder.path(), &toml("queue.retry_first = \"1h\"\n"), &told);
    sinks.change(&changes[0]);
    until("it is tried", || told.count(|n| matches!(n, Notice::Failing { .. })) == 1);
    until("it is on disk", || sinks.are_settled());
    drop(sinks);
    let sinks = start(folder.path(), &toml(FAST), &Told::default());
    sinks.change_again(&changes);
    receiver.start();
    wait(&sinks);
    let taken = receiver.taken();
    let ids: Vec<&str> = taken.iter().map(|request| request.header("idempotency-key")).collect();
    assert_eq!(ids, ["a1.1", "a2.1"]);
    let written = fs::read_to_string(&records).unwrap_or_default();
    assert!(!written.contains("a2"), "a file promises nothing: {written}");
}
