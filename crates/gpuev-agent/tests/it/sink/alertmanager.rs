//! Alertmanager: the real one.

use std::sync::{Arc, Mutex};

use gpuev::time::Anchor;
use gpuev_agent::sink::{Context, Notice, Settings, Sinks};
use gpuev_agent::{Alert, AlertChange, AlertState};
use serde_json::Value;

use super::fixture::{Told, alert, change, context, until};
use crate::receiver::{Does, Receiver};
use crate::servers::{Server, has};

/// The alerts of a machine, as the agent's book has them.
#[derive(Clone, Default)]
pub(super) struct Book(Arc<Mutex<Vec<Arc<Alert>>>>);

impl Book {
    /// Now, as Alertmanager forgets what ended long ago.
    pub(super) fn change(&self, id: &str, state: AlertState) -> AlertChange {
        let now = Anchor::now().unix_ns;
        let mut alert = alert(id, state);
        alert.fired_unix_ns = Some(now - 1_000_000_000);
        alert.resolved_unix_ns = alert.resolved_unix_ns.map(|_| now);
        let alert = Arc::new(alert);
        let mut alerts = self.0.lock().unwrap();
        alerts.retain(|known| known.id != id);
        alerts.push(alert.clone());
        AlertChange { alert, notify: true, kept: true }
    }

    pub(super) fn context(&self, folder: &std::path::Path, told: &Told) -> Context {
        let book = self.clone();
        let firing = Arc::new(move || book.0.lock().unwrap().clone());
        Context { firing, ..context(folder, told) }
    }
}

fn settings(url: &str, resend: &str) -> Settings {
    let fast = "queue.retry_first = \"1ms\"\nqueue.retry_most = \"20ms\"\n";
    let toml = format!(
        "[alertmanager.main]\nurls = [\"{url}\"]\nresend = \"{resend}\"\nfires_at_least = \"1ms\"\nlabels = {{ cluster = \"c1\" }}\n{fast}"
    );
    toml::from_str(&toml).unwrap()
}

/// The alerts that it shows as active.
fn active(server: &Server) -> Vec<Value> {
    let found = server.get("/api/v2/alerts?active=true");
    found.as_array().unwrap().clone()
}

pub(super) fn names(server: &Server) -> Vec<String> {
    let found = active(server);
    let mut names: Vec<String> =
        found.iter().map(|alert| alert["labels"]["alert"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn it_shows_alerts_firing_and_resolving_also_after_it_was_away() {
    if !has("prometheus-alertmanager") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (told, book) = (Told::default(), Book::default());
    let mut server = Server::alertmanager();
    let url = format!("http://127.0.0.1:{}/", server.port);
    let settings = settings(&url, "200ms");
    let sinks = Sinks::start(&settings, book.context(folder.path(), &told)).unwrap();
    sinks.change(&book.change("a1", AlertState::Firing));
    sinks.change(&book.change("a2", AlertState::Firing));
    until("both fire", || names(&server) == ["a1", "a2"]);
    let shown = &active(&server)[0];
    assert_eq!(shown["labels"]["alertname"], "vmfault", "{shown}");
    assert_eq!(shown["labels"]["cluster"], "c1");
    assert_eq!(shown["labels"]["gpu"], "0000:03:00.0");
    assert_eq!(shown["annotations"]["action"], "look at the job's log");
    assert_eq!(shown["status"]["state"], "active");
    sinks.change(&book.change("a1", AlertState::Resolved));
    until("one is over", || names(&server) == ["a2"]);
    // It is away while things change, and has forgotten everything when it is back.
    server.stop();
    std::fs::remove_dir_all(server.folder.path().join("data")).unwrap();
    sinks.change(&book.change("a3", AlertState::Firing));
    sinks.change(&book.change("a2", AlertState::Resolved));
    until("it is told", || told.count(|n| matches!(n, Notice::Failing { .. })) > 0);
    server.start();
    until("as it is now", || names(&server) == ["a3"]);
    until("nothing waits", || sinks.stats()[0].waiting == 0);
    assert_eq!((sinks.stats()[0].delivered, sinks.stats()[0].lost), (5, 0));
}

/// An alert that is over at once is told all the same: `group_wait` is longer than most resets.
#[test]
fn an_alert_that_is_over_at_once_still_fires_for_five_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(Does::Answers(200));
    let toml = format!("[alertmanager.main]\nurls = [\"{}\"]\n", receiver.url());
    let settings: Settings = toml::from_str(&toml).unwrap();
    let sinks = Sinks::start(&settings, context(folder.path(), &Told::default())).unwrap();
    let now = gpuev::time::Anchor::now().unix_ns;
    let mut over = (*change("a1", AlertState::Resolved).alert).clone();
    (over.fired_unix_ns, over.resolved_unix_ns) = (Some(now), Some(now + 1_000_000_000));
    sinks.change(&gpuev_agent::AlertChange { alert: over.into(), notify: true, kept: true });
    until("it is told", || receiver.taken().len() == 1);
    let posted = receiver.taken()[0].json();
    let least = gpuev::time::Rfc3339(now + 290_000_000_000).to_string();
    assert!(posted[0]["endsAt"].as_str().unwrap() > least.as_str(), "{posted} {least}");
}

#[test]
fn what_fires_stays_for_as_long_as_it_is_said_and_not_much_longer() {
    if !has("prometheus-alertmanager") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (told, book) = (Told::default(), Book::default());
    let server = Server::alertmanager();
    let url = format!("http://127.0.0.1:{}", server.port);
    let sinks = Sinks::start(&settings(&url, "300ms"), book.context(folder.path(), &told)).unwrap();
    sinks.change(&book.change("a1", AlertState::Firing));
    until("it fires", || names(&server) == ["a1"]);
    // Its `endsAt` moves on: it is said again.
    let ends = |server: &Server| active(server)[0]["endsAt"].as_str().unwrap().to_owned();
    for _ in 0..5 {
        let before = ends(&server);
        until("it is said again, though nothing else happens", || ends(&server) > before);
    }
    // An agent that is gone says nothing any more.
    drop(sinks);
    until("it is forgotten", || names(&server).is_empty());
}

#[test]
fn nothing_is_said_of_what_is_silenced_pending_or_milder_than_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(Does::Answers(200));
    let book = Book::default();
    let mut quiet = alert("quiet", AlertState::Firing);
    quiet.silenced = true;
    let mut mild = alert("mild", AlertState::Firing);
    mild.severity = gpuev::Severity::Warning;
    let alerts =
        [quiet, mild, alert("soon", AlertState::Pending), alert("loud", AlertState::Firing)];
    *book.0.lock().unwrap() = alerts.map(Arc::new).into();
    let mut settings = settings(&receiver.url(), "5ms");
    let sink = settings.alertmanager.get_mut("main").unwrap();
    sink.send.min_severity = Some(gpuev::Severity::Critical);
    let sinks = Sinks::start(&settings, book.context(folder.path(), &Told::default())).unwrap();
    until("it is said", || !receiver.taken().is_empty());
    drop(sinks);
    let taken = receiver.taken();
    assert_eq!(taken[0].path, "/api/v2/alerts");
    let posted = taken[0].json();
    assert_eq!(posted.as_array().unwrap().len(), 1, "{posted}");
    assert_eq!(posted[0]["labels"]["alert"], "loud");
}
