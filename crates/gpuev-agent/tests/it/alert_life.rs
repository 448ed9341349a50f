//! The life of an alert against a model that is too simple to be wrong, and against restarts.

use gpuev_agent::alert::{Book, Resolution, State, StateFile};
use gpuev_agent::rule::{Engine, RuleSet};
use gpuev_agent::signal::{GpuChange, RasIncrease, RasKind};
use gpuev_agent::{AlertChange, AlertState, What};
use proptest::prelude::*;

use crate::stage::{HOUR, MINUTE, SECOND, Stage};

const RULE: &str = r#"
[[rule]]
name = "r"
severity = "warning"
records = ["gpu"]
when = 'change == "lost"'
count = COUNT
within = "10s"
for = "FORs"
summary = "{count} on {gpu}"
notify.at_most = 1000
[rule.resolve]
records = ["gpu"]
when = 'change == "found"'
quiet = "30s"
"#;

fn rule(count: usize, held: u64) -> RuleSet {
    let text = RULE.replace("COUNT", &count.to_string());
    let text = match held {
        0 => text.replace("for = \"FORs\"\n", ""),
        held => text.replace("FOR", &held.to_string()),
    };
    RuleSet::parse(&text, "model").unwrap_or_else(|problems| panic!("{problems}"))
}

/// What happens in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Lost(u8),
    Found,
    Quiet(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..4_u8).prop_map(Step::Lost),
        1 => Just(Step::Found),
        4 => (1..15_u8).prop_map(Step::Quiet),
        1 => (30..50_u8).prop_map(Step::Quiet),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// The rule by its words: all matches are kept, and everything is worked out anew each second.
struct Model {
    count: usize,
    held: u64,
    matches: Vec<u64>,
    since: Option<u64>,
    held_at: u64,
    firing: bool,
}

impl Model {
    fn full(&self, now: u64) -> bool {
        self.matches.iter().filter(|at| now - **at < 10).count() >= self.count
    }

    fn lost(&mut self, now: u64) {
        let was_full = self.full(now);
        self.matches.push(now);
        if !self.full(now) {
            return;
        }
        if !was_full || self.since.is_none() {
            self.since = Some(now);
        }
        self.held_at = now;
        self.firing |= self.since.is_some_and(|since| now - since >= self.held);
    }

    fn end(&mut self) {
        (self.since, self.firing) = (None, false);
        self.matches.clear();
    }

    fn tick(&mut self, now: u64) {
        if self.firing {
            if now - self.held_at >= 30 {
                self.end();
            }
        } else if !self.full(now) {
            self.since = None;
        }
    }

    fn state(&self) -> Option<AlertState> {
        if self.firing {
            return Some(AlertState::Firing);
        }
        self.since.map(|_| AlertState::Pending)
    }
}

/// The agent ends and begins again with what it kept.
fn restart(stage: &mut Stage, rules: RuleSet) {
    let text = serde_json::to_string(&stage.engine.state("boot 1")).unwrap();
    let state: State = serde_json::from_str(&text).unwrap();
    stage.engine = Engine::new(rules, Book::new(), "node7");
    let now = stage.now();
    let changes = stage.engine.restore(state, "boot 1", now.boot_ns, now.unix_ns);
    assert!(changes.is_empty(), "a restart changes nothing: {changes:?}");
}

/// What must hold of all that was ever said.
fn check_changes(changes: &[AlertChange]) -> Result<(), TestCaseError> {
    let mut last: std::collections::HashMap<&str, &AlertChange> = std::collections::HashMap::new();
    for change in changes {
        let alert = &change.alert;
        let before = last.insert(&alert.id, change);
        prop_assert_eq!(alert.revision, before.map_or(1, |before| before.alert.revision + 1));
        if let Some(before) = before {
            prop_assert!(before.alert.state <= alert.state && before.alert.count <= alert.count);
            prop_assert_ne!(before.alert.state, AlertState::Resolved);
        }
        let fired = alert.fired_unix_ns.is_some();
        prop_assert_eq!(fired, alert.state == AlertState::Firing || change.notify);
        prop_assert_eq!(alert.resolved_by.is_some(), alert.state == AlertState::Resolved);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_alert_lives_as_its_rule_says(
        count in 1..5_usize,
        held in prop_oneof![Just(0_u64), 3..20_u64],
        steps in steps(),
    ) {
        let mut stage = Stage::with_rules(1, rule(count, held));
        let mut model = Model {
            count, held, matches: vec![], since: None, held_at: 0, firing: false,
        };
        let mut now = 0;
        for step in steps {
            let seconds = match step {
                Step::Lost(times) => {
                    for _ in 0..times {
                        stage.notice(0, What::Gpu(GpuChange::Lost), None);
                        model.lost(now);
                    }
                    1
                }
                Step::Found => {
                    stage.notice(0, What::Gpu(GpuChange::Found), None);
                    model.end();
                    1
                }
                Step::Quiet(seconds) => seconds,
                Step::Restart => {
                    restart(&mut stage, rule(count, held));
                    0
                }
            };
            for _ in 0..seconds {
                now += 1;
                stage.pass(SECOND);
                model.tick(now);
            }
            let alerts = stage.engine.book().alerts();
            prop_assert_eq!(alerts.first().map(|alert| alert.state), model.state(), "{:?} at {}", step, now);
            prop_assert!(alerts.len() <= 1);
        }
        check_changes(&stage.changes)?;
        stage.rest(HOUR);
        prop_assert!(!stage.engine.needs_ticks(), "nothing is left");
    }
}

fn lost(stage: &mut Stage) {
    stage.notice(0, What::Gpu(GpuChange::Lost), None);
}

#[test]
fn what_fires_survives_a_restart_and_people_hear_of_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::at(folder.path().join("alerts.json"));
    assert!(file.load().unwrap().is_none());
    let mut stage = Stage::new(1);
    lost(&mut stage);
    stage.pass(MINUTE);
    let before = stage.last("gpu-lost");
    file.save(&stage.engine.state("boot 1")).unwrap();
    let kept = file.load().unwrap().unwrap();
    stage.engine = Engine::new(RuleSet::builtin(), Book::new(), "node7");
    let now = stage.now();
    assert!(stage.engine.restore(kept, "boot 1", now.boot_ns, now.unix_ns).is_empty());
    assert_eq!(*stage.engine.book().alerts()[0], *before);
    stage.notice(0, What::Gpu(GpuChange::Found), None);
    let last = stage.changes.last().unwrap();
    assert!(last.notify && last.alert.id == before.id, "{last:?}");
    assert_eq!(last.alert.resolved_by, Some(Resolution::Opposite));
    assert_eq!(stage.engine.book().ended()[0].id, before.id);
}

#[test]
fn a_boot_ends_what_it_mends_and_nothing_else() {
    let mut stage = Stage::new(1);
    lost(&mut stage);
    let rise = RasIncrease {
        block: "umc".to_owned(),
        kind: RasKind::Uncorrectable,
        increase: 1,
        total: 1,
    };
    stage.notice(0, What::RasErrors(rise), None);
    stage.pass(MINUTE);
    assert_eq!(stage.firing(), ["gpu-lost", "ras-uncorrectable"]);
    let state = stage.engine.state("boot 1");
    stage.engine = Engine::new(RuleSet::builtin(), Book::new(), "node7");
    // The clock of the new boot is behind that of the old one.
    let changes = stage.engine.restore(state, "boot 2", 5 * SECOND, stage.now().unix_ns);
    let ended: Vec<_> =
        changes.iter().map(|c| (c.alert.rule.as_str(), c.alert.resolved_by, c.notify)).collect();
    assert_eq!(ended, [("ras-uncorrectable", Some(Resolution::Boot), true)]);
    assert_eq!(stage.firing(), ["gpu-lost"]);
    let unix_ns = stage.now().unix_ns;
    assert!(stage.engine.tick(10 * SECOND, unix_ns).is_empty());
    // A state ends when it is over, and by nothing else.
    for day in 1..400 {
        assert!(stage.engine.tick(6 * SECOND + day * 24 * HOUR, unix_ns).is_empty());
    }
    stage.notice(0, What::Gpu(GpuChange::Unreadable), None);
    assert!(!stage.firing().contains(&"gpu-lost".to_owned()), "it is there again");
}

#[test]
fn rules_change_without_losing_what_they_counted() {
    let mut stage = Stage::with_rules(1, rule(3, 0));
    lost(&mut stage);
    lost(&mut stage);
    let now = stage.now().unix_ns;
    assert!(stage.engine.replace_rules(rule(3, 0), now).is_empty());
    lost(&mut stage);
    assert_eq!(stage.firing(), ["r"]);
    let gone = stage.engine.replace_rules(RuleSet::builtin(), now);
    assert_eq!(gone[0].alert.resolved_by, Some(Resolution::RuleRemoved));
    assert!(gone[0].notify, "who was told that it fires is told that it is over");
    lost(&mut stage);
    stage.pass(MINUTE);
    assert_eq!(stage.firing(), ["gpu-lost"]);
}

#[test]
fn a_damaged_state_is_told_and_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts.json");
    let file = StateFile::at(&path);
    for damaged in ["", "{", "{\"version\":1}", "[]", "\u{0}\u{0}"] {
        std::fs::write(&path, damaged).unwrap();
        let error = file.load().unwrap_err();
        assert!(error.to_string().contains("alerts.json is no state of alerts"), "{error}");
        let aside = file.set_aside().unwrap();
        assert_eq!(std::fs::read_to_string(aside).unwrap(), damaged);
        assert!(file.load().unwrap().is_none());
    }
    let state = Stage::new(1).engine.state("b");
    file.save(&state).unwrap();
    let newer = std::fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":2");
    std::fs::write(&path, newer).unwrap();
    assert!(file.load().unwrap_err().to_string().contains("is of version 2"));
    let nowhere = StateFile::at(folder.path().join("none/alerts.json"));
    let error = nowhere.save(&state).unwrap_err();
    assert!(error.to_string().contains("none/alerts.json"), "{error}");
}

/// A write that ended in the middle leaves the old state.
#[test]
fn a_half_written_state_is_never_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts.json");
    let file = StateFile::at(&path);
    let mut stage = Stage::new(1);
    file.save(&stage.engine.state("b")).unwrap();
    let old = std::fs::read(&path).unwrap();
    std::fs::write(folder.path().join("alerts.json.new"), "{\"version\":1,\"bo").unwrap();
    assert!(file.load().unwrap().is_some());
    assert_eq!(std::fs::read(&path).unwrap(), old);
    lost(&mut stage);
    file.save(&stage.engine.state("b")).unwrap();
    assert_ne!(std::fs::read(&path).unwrap(), old);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing lies about");
}

/// Names are made by programs; memory is not theirs to fill.
#[test]
fn made_up_names_fill_no_memory() {
    let mut stage = Stage::new(1);
    for pid in 0..2_000_u32 {
        let comm = gpuev_sim::Comm::new(format!("evil {pid}"));
        stage.emit(0, &gpuev_sim::DriverEvent::VmFault { pid: (pid + 1).into(), comm });
    }
    let stats = stage.engine.stats();
    assert!(stats.groups <= 520 && stats.refused >= 1_480, "{stats:?}");
    assert!(stage.firing().contains(&"vm-fault-storm".to_owned()), "the whole is still seen");
    let kept = serde_json::to_vec(&stage.engine.state("b")).unwrap();
    assert!(kept.len() < 4 << 20, "{} bytes", kept.len());
}

#[test]
fn a_storm_is_counted_and_told_once() {
    let mut stage = Stage::new(1);
    for _ in 0..10_000 {
        let comm = gpuev_sim::Comm::new("train");
        stage.emit(0, &gpuev_sim::DriverEvent::VmFault { pid: 7.into(), comm });
    }
    let told = stage.changes.iter().filter(|change| change.notify).count();
    assert_eq!(told, 2, "one for the fault, one for the storm");
    assert!(stage.changes.len() <= 4, "{}", stage.changes.len());
    let alerts = stage.engine.book().alerts();
    assert_eq!(alerts.iter().map(|alert| alert.count).collect::<Vec<_>>(), [10_000, 10_000]);
}
