//! Everything fails at once and again: servers are killed, stopped in their tracks, slow and unwilling, and the
//! sinks are started anew, while alerts go on. Afterwards each has come once, and what fires is shown.

use std::path::Path;
use std::time::Duration;

use gpuev_agent::AlertState;
use gpuev_agent::sink::{Settings, Sinks};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::process::Signal;

use super::alertmanager::{Book, names};
use super::fixture::{Told, counted, until};
use super::smtp::{Does as Mail, Mailer, header};
use crate::receiver::{Does, Receiver};
use crate::servers::{Server, has};

/// What strikes next.
#[derive(Debug, Clone, Copy)]
enum Strike {
    Webhook(Does),
    WebhookGone,
    Mail(Mail),
    AlertmanagerKilled,
    AlertmanagerStopped,
    SinksAnew,
}

fn strikes() -> impl Strategy<Value = Vec<Strike>> {
    let strike = prop_oneof![
        Just(Strike::Webhook(Does::Answers(503))),
        Just(Strike::Webhook(Does::HangsUp)),
        Just(Strike::Webhook(Does::Slow(Duration::from_millis(20)))),
        Just(Strike::WebhookGone),
        Just(Strike::Mail(Mail::Says("451 later"))),
        Just(Strike::Mail(Mail::HangsUp)),
        Just(Strike::AlertmanagerKilled),
        Just(Strike::AlertmanagerStopped),
        Just(Strike::SinksAnew),
    ];
    prop::collection::vec(strike, 24)
}

/// The servers, and the sinks that send to them.
struct Field {
    folder: tempfile::TempDir,
    book: Book,
    webhook: Receiver,
    mailer: Mailer,
    alertmanager: Server,
    sinks: Option<Sinks>,
    told: Told,
    offered: usize,
}

impl Field {
    fn new() -> Self {
        let mut field = Self {
            folder: tempfile::tempdir().unwrap(),
            book: Book::default(),
            webhook: Receiver::new(Does::Answers(200)),
            mailer: Mailer::new(None),
            alertmanager: Server::alertmanager(),
            sinks: None,
            told: Told::default(),
            offered: 0,
        };
        field.start_sinks();
        field
    }

    fn start_sinks(&mut self) {
        let fast = "queue.retry_first = \"1ms\"\nqueue.retry_most = \"20ms\"\n";
        let toml = format!(
            "[webhook.w]\nurl = \"{}\"\n{fast}\
             [alertmanager.a]\nurls = [\"http://127.0.0.1:{}\"]\nresend = \"1s\"\nfires_at_least = \"1ms\"\nhttp.timeout = \"300ms\"\n{fast}\
             [smtp.m]\nhost = \"localhost\"\nport = {}\nfrom = \"gpuev@node7.example\"\nto = [\"ops@example.org\"]\ntls = \"none\"\n{fast}",
            self.webhook.url(),
            self.alertmanager.port,
            self.mailer.port,
        );
        let settings: Settings = toml::from_str(&toml).unwrap();
        let path: &Path = self.folder.path();
        let context = self.book.context(path, &self.told);
        self.sinks = Some(Sinks::start(&settings, context).unwrap());
    }

    fn offer(&mut self, state: AlertState) {
        let change = self.book.change(&format!("a{:03}", self.offered), state);
        self.sinks.as_ref().unwrap().change(&change);
    }

    /// Five alerts, every other of which is over at once.
    fn alerts(&mut self) {
        for _ in 0..5 {
            self.offered += 1;
            self.offer(AlertState::Firing);
            if self.offered.is_multiple_of(2) {
                self.offer(AlertState::Resolved);
            }
        }
    }

    /// It strikes, alerts come, and the server is as it was: what waits then comes while the next strikes.
    fn strike(&mut self, strike: Strike) {
        match strike {
            Strike::Webhook(does) => self.webhook.does(does),
            Strike::WebhookGone => self.webhook.stop(),
            Strike::Mail(does) => *self.mailer.does.lock().unwrap() = does,
            Strike::AlertmanagerKilled => self.alertmanager.stop(),
            Strike::AlertmanagerStopped => self.alertmanager.signal(Signal::STOP),
            Strike::SinksAnew => {
                self.sinks = None;
                self.start_sinks();
            }
        }
        self.alerts();
        match strike {
            Strike::Webhook(_) => self.webhook.does(Does::Answers(200)),
            Strike::WebhookGone => self.webhook.start(),
            Strike::Mail(_) => *self.mailer.does.lock().unwrap() = Mail::Takes,
            Strike::AlertmanagerKilled => self.alertmanager.start(),
            Strike::AlertmanagerStopped => self.alertmanager.signal(Signal::CONT),
            Strike::SinksAnew => {}
        }
    }

    fn holds(&self) {
        let stats = || self.sinks.as_ref().unwrap().stats();
        until("nothing waits", || stats().iter().all(|stats| stats.waiting == 0));
        assert!(stats().iter().all(|stats| (stats.lost, stats.dead_letters) == (0, 0)));
        let taken = self.webhook.taken();
        let ids: Vec<String> =
            taken.iter().map(|request| request.header("idempotency-key").to_owned()).collect();
        self.holds_of(&ids, "webhook");
        let mails = self.mailer.mails();
        let id = |text: &str| header(text, "Message-ID").trim_matches(['<', '>']).to_owned();
        let ids: Vec<String> =
            mails.iter().map(|mail| id(&mail.2).split('@').next().unwrap().to_owned()).collect();
        self.holds_of(&ids, "mail");
        let firing: Vec<String> =
            (1..=self.offered).filter(|n| n % 2 == 1).map(|n| format!("a{n:03}")).collect();
        until("it shows what fires", || names(&self.alertmanager) == firing);
    }
}

impl Field {
    /// Each alert came in its last state, nothing came twice, and nothing after what is newer.
    fn holds_of(&self, ids: &[String], sink: &str) {
        assert!(counted(ids).values().all(|count| *count == 1), "{sink}: {ids:?}");
        for number in 1..=self.offered {
            let alert = format!("a{number:03}.");
            let states: Vec<&str> = ids.iter().filter_map(|id| id.strip_prefix(&alert)).collect();
            let last = if number.is_multiple_of(2) { "2" } else { "1" };
            assert_eq!(states.last(), Some(&last), "{sink}: {alert} {states:?}");
            assert!(states.is_sorted(), "{sink}: {alert} {states:?}");
        }
    }
}

#[test]
fn whatever_is_killed_stopped_or_slow_each_alert_comes_once() {
    if !has("prometheus-alertmanager") {
        return;
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let config =
        Config { cases: 1, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner
        .run(&strikes(), |strikes| {
            let mut field = Field::new();
            strikes.into_iter().for_each(|strike| field.strike(strike));
            field.holds();
            Ok(())
        })
        .unwrap();
}
