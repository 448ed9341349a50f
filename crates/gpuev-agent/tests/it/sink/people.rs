//! What people are told: alerts that belong together at once, not too often, and nothing is lost by that.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gpuev::Severity;
use gpuev_agent::sink::{Limit, Settings, Sinks};
use gpuev_agent::{Alert, AlertChange, AlertState};
use serde_json::Value;

use super::fixture::{Told, alert, context, until};
use crate::receiver::{Does, Receiver, Request};

fn start(folder: &Path, receiver: &Receiver) -> Sinks {
    let url = receiver.url();
    let toml = format!(
        "[webhook.chat]\nurl = \"{url}/chat\"\ntemplate = \"slack\"\n\
         [webhook.all]\nurl = \"{url}/all\"\n"
    );
    let settings: Settings = toml::from_str(&toml).unwrap();
    Sinks::start(&settings, context(folder, &Told::default())).unwrap()
}

fn tell(sinks: &Sinks, id: &str, change: impl FnOnce(&mut Alert)) {
    let mut alert = alert(id, AlertState::Firing);
    change(&mut alert);
    sinks.change(&AlertChange { alert: Arc::new(alert), notify: true, kept: true });
}

fn came(receiver: &Receiver, path: &str) -> Vec<Value> {
    let taken = receiver.taken();
    taken.iter().filter(|request| request.path == path).map(Request::json).collect()
}

/// What the chat shows of the message.
fn shown(message: &Value) -> &str {
    message["attachments"][0]["blocks"][0]["text"]["text"].as_str().unwrap()
}

#[test]
fn a_reset_of_a_hive_is_one_message_and_machines_get_each_alert() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(Does::Answers(200));
    let sinks = start(folder.path(), &receiver);
    for gpu in 0..8 {
        tell(&sinks, &format!("a{gpu}"), |alert| {
            alert.group = "reset/hive 00000000000000ab".to_owned();
            alert.summary = format!("GPU {gpu} was reset");
        });
    }
    until("all told", || came(&receiver, "/all").len() == 8);
    until("people are told", || came(&receiver, "/chat").len() == 1);
    let messages = came(&receiver, "/chat");
    let text = shown(&messages[0]);
    assert!(text.starts_with("8 alerts fire."), "{text}");
    assert!((0..8).all(|gpu| text.contains(&format!("GPU {gpu} was reset"))), "{text}");
    until("nothing waits", || sinks.stats().iter().all(|stats| stats.waiting == 0));
    assert_eq!(came(&receiver, "/chat").len(), 1);
}

#[test]
fn what_people_were_told_enough_of_comes_as_one_summary_and_critical_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(Does::Answers(200));
    let mut sinks = start(folder.path(), &receiver);
    let limit = Limit { count: 2, within: Duration::from_secs(6) };
    sinks.set_limits(BTreeMap::from([("vmfault".to_owned(), limit)]));
    for number in 0..8 {
        tell(&sinks, &format!("a{number}"), |alert| {
            alert.severity = Severity::Warning;
            alert.summary = format!("number {number}");
        });
    }
    let held = || sinks.stats().iter().map(|stats| stats.held_back).sum::<u64>();
    until("two are told, the others wait", || held() == 6);
    tell(&sinks, "b", |alert| alert.summary = "worse".to_owned());
    let texts = || -> Vec<String> {
        came(&receiver, "/chat").iter().map(|message| shown(message).to_owned()).collect()
    };
    until("critical is told", || texts().contains(&"worse".to_owned()));
    // One of them is over meanwhile: that is told with the others.
    tell(&sinks, "a7", |alert| {
        (alert.state, alert.revision) = (AlertState::Resolved, 2);
        alert.summary = "number 7".to_owned();
    });
    until("the summary", || texts().len() == 4);
    let summary = texts().pop().unwrap();
    assert!(summary.starts_with("5 alerts fire, 1 are over."), "{summary}");
    assert!(summary.contains("number 7 (over)") && summary.contains("number 2"), "{summary}");
    assert_eq!(held(), 0);
    assert!(came(&receiver, "/all").len() >= 9, "machines got each of them at once");
    assert!(sinks.stats().iter().all(|stats| stats.lost == 0));
}
