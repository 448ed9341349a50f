//! The rules at work: signals in, changes of alerts out.

use crate::alert::{AlertChange, Book, Resolution, State};
use crate::signal::Signal;

use super::RuleSet;
use super::select::{SLOTS, slot};
use super::variables::Variables;
use super::watch::{Case, Watch};

/// The rules at work. It keeps what rules have counted; the alerts are in its [`Book`].
///
/// Time is that of the signals and of [`tick`](Self::tick): a recording is judged as it would have been live.
#[derive(Debug)]
pub struct Engine {
    watches: Vec<Watch>,
    /// Which watches look at what, by slot.
    takers: [Vec<Taker>; SLOTS],
    book: Book,
    host: String,
}

/// A watch that looks at a kind and type of signals.
#[derive(Debug, Clone, Copy)]
struct Taker {
    watch: usize,
    takes: bool,
    resolves: bool,
}

/// How the rules are doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// GPUs, processes and jobs that rules keep counts of.
    pub groups: usize,
    /// Signals that a rule met and could not count, because it or the book kept as many as it may.
    pub refused: u64,
    /// Conditions that could not be decided.
    pub condition_errors: u64,
    /// A rule whose condition could not be decided, and why.
    pub last_error: Option<(String, String)>,
}

impl Engine {
    /// The rules of `rules` at work on the machine `host`, with their alerts in `book`.
    #[must_use]
    pub fn new(rules: RuleSet, book: Book, host: &str) -> Self {
        let watches = rules.rules.into_iter().map(Watch::new).collect();
        let takers = std::array::from_fn(|_| Vec::new());
        let mut engine = Self { watches, takers, book, host: host.to_owned() };
        engine.index();
        engine
    }

    /// The alerts.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Something was noticed. Returns what changed by it, in order.
    pub fn observe(&mut self, signal: &Signal) -> Vec<AlertChange> {
        let slot = slot(signal);
        let takers = &self.takers[slot];
        if takers.is_empty() {
            return Vec::new();
        }
        let case = Case { signal, variables: Variables::new(signal), host: &self.host };
        let mut alerts = self.book.lock();
        for taker in takers {
            let watch = &mut self.watches[taker.watch];
            if taker.takes {
                watch.take(&case, &mut alerts);
            }
            if taker.resolves {
                watch.resolve(&case, slot, &mut alerts);
            }
        }
        alerts.changes()
    }

    /// It is now `boot_ns` by `CLOCK_BOOTTIME` and `unix_ns` since 1970. To be called about once a second while
    /// [`needs_ticks`](Self::needs_ticks).
    pub fn tick(&mut self, boot_ns: u64, unix_ns: i64) -> Vec<AlertChange> {
        let mut alerts = self.book.lock();
        for watch in &mut self.watches {
            watch.tick(boot_ns, unix_ns, &mut alerts);
        }
        alerts.review(unix_ns);
        alerts.changes()
    }

    /// Whether anything can change by time alone. Where not, nothing needs to wake up for the rules.
    #[must_use]
    pub fn needs_ticks(&self) -> bool {
        self.watches.iter().any(|watch| watch.len() > 0) || self.book.lock().needs_review()
    }

    /// Other rules from now on. A rule of the same name goes on with what it has counted; the alerts of one
    /// that is no longer there are over.
    pub fn replace_rules(&mut self, rules: RuleSet, unix_ns: i64) -> Vec<AlertChange> {
        let mut alerts = self.book.lock();
        let mut old = std::mem::take(&mut self.watches);
        for rule in rules.rules {
            let same = old.iter().position(|watch| watch.rule.name == rule.name);
            let mut watch =
                same.map_or_else(|| Watch::new(rule.clone()), |place| old.swap_remove(place));
            if watch.rule.by != rule.by {
                watch.end_all(Resolution::RuleRemoved, unix_ns, &mut alerts);
            }
            watch.replace(rule);
            self.watches.push(watch);
        }
        for mut watch in old {
            watch.end_all(Resolution::RuleRemoved, unix_ns, &mut alerts);
        }
        let changes = alerts.changes();
        drop(alerts);
        self.index();
        changes
    }

    /// All that is to be kept over a restart. Save it before telling anybody of the changes that led to it:
    /// then no two messages have one id and revision.
    #[must_use]
    pub fn state(&self, boot_id: &str) -> State {
        let rules = self.watches.iter().filter(|watch| watch.len() > 0).map(Watch::save).collect();
        State::new(boot_id, rules, self.book.lock().save())
    }

    /// Goes on from `state`. What was seen in another boot is over, but for rules that say otherwise; so are
    /// the alerts of rules that are no longer there.
    pub fn restore(
        &mut self,
        state: State,
        boot_id: &str,
        boot_ns: u64,
        unix_ns: i64,
    ) -> Vec<AlertChange> {
        let mut alerts = self.book.lock();
        let same_boot = state.boot_id == boot_id;
        alerts.restore(state.book);
        let mut saved = state.rules;
        for watch in &mut self.watches {
            let Some(place) = saved.iter().position(|rule| rule.name() == watch.rule.name) else {
                continue;
            };
            watch.restore(saved.swap_remove(place), &alerts);
            if !same_boot {
                watch.boot(boot_ns, unix_ns, &mut alerts);
            }
        }
        let kept = |fingerprint| self.watches.iter().any(|watch| watch.has(fingerprint));
        alerts.end_unless(kept, unix_ns);
        alerts.changes()
    }

    /// How the rules are doing.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let failed = self
            .watches
            .iter()
            .find_map(|watch| Some((watch.rule.name.clone(), watch.last_error.clone()?)));
        EngineStats {
            groups: self.watches.iter().map(Watch::len).sum(),
            refused: self.watches.iter().map(|watch| watch.refused).sum(),
            condition_errors: self.watches.iter().map(|watch| watch.errors).sum(),
            last_error: failed,
        }
    }

    fn index(&mut self) {
        for (slot, takers) in self.takers.iter_mut().enumerate() {
            let taker = |(watch, one): (usize, &Watch)| Taker {
                watch,
                takes: one.rule.on.has(slot),
                resolves: one.rule.resolve.on.has(slot),
            };
            let all = self.watches.iter().enumerate().map(taker);
            *takers = all.filter(|taker| taker.takes || taker.resolves).collect();
        }
    }
}
