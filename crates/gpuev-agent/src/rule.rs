//! Rules: what is worth an alert.
//!
//! A rule is data (TOML, `docs/rules.md`). It takes signals of some kinds and types, asks a CEL condition of
//! them, counts what meets it by GPU, process or job, and says when that is an alert and when it is over.
//! The [`Engine`] keeps the counts; the alerts are in the [`Book`](crate::alert::Book).

mod condition;
mod engine;
mod group;
mod parse;
mod samples;
mod select;
mod show;
mod table;
mod variables;
mod watch;
mod window;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gpuev::Severity;
use serde::{Deserialize, Serialize};

use crate::problem::{Problem, Problems};
use crate::signal::{Signal, What};
use crate::sink::Limit;

pub use engine::{Engine, EngineStats};
pub(crate) use variables::Variables;
pub(crate) use watch::SavedRule;

use condition::Condition;
use group::Grouping;
use select::Selection;
use window::Threshold;

/// What is worth an alert, and what is to be done about it.
#[derive(Debug)]
pub struct Rule {
    pub(crate) name: String,
    pub(crate) severity: Severity,
    pub(crate) summary: String,
    pub(crate) action: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) notify: NotifyLimit,
    pub(crate) remind_ns: Option<u64>,
    pub(crate) survives_boot: bool,
    on: Selection,
    when: Option<Condition>,
    by: Vec<Grouping>,
    full: Threshold,
    for_ns: u64,
    resolve: Resolve,
}

impl Rule {
    /// Whether a time that it claims must be seen to have passed: a match, or a reading, after it. A state lasts until the
    /// opposite is told.
    fn needs_evidence(&self) -> bool {
        self.full.within_ns.is_some() || self.on.has_readings()
    }
}

/// When what a rule found is over.
#[derive(Debug)]
struct Resolve {
    on: Selection,
    when: Option<Condition>,
    /// Of these it takes as many as there were matches.
    each: Selection,
    quiet_ns: u64,
}

/// At most so many notifications of one rule in so long. What ends is always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotifyLimit {
    pub(crate) count: u64,
    pub(crate) within_ns: u64,
}

impl Rule {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The names of the labels that group its signals.
    pub(crate) fn groupings(&self) -> impl Iterator<Item = &'static str> {
        self.by.iter().map(|grouping| grouping.name())
    }
}

/// The rules in force, in the order in which they were given.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    rules: Vec<Arc<Rule>>,
    /// Names of rules that are to be taken away from the set that this one is laid over.
    disabled: Vec<String>,
}

impl RuleSet {
    /// The rules that come with the program.
    #[must_use]
    pub fn builtin() -> Self {
        Self::parse(Self::BUILTIN, "built-in rules")
            .expect("the built-in rules should be right, as a test says")
    }

    /// The text of [`builtin`](Self::builtin), to begin one's own with.
    pub const BUILTIN: &'static str = include_str!("rule/default.toml");

    /// Reads a rule file; `origin` is what people know it by.
    ///
    /// # Errors
    /// All that is wrong with it, with line and column.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Problems> {
        parse::rules(text, origin)
    }

    /// Reads the rule file at `path`.
    ///
    /// # Errors
    /// Where it cannot be read, and all that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("cannot be read: {error}");
            Problems(vec![Problem { origin: origin.clone(), line: 1, column: 1, what, hint: None }])
        })?;
        Self::parse(&text, &origin)
    }

    /// These rules with `others` laid over them: a rule of the same name takes the place of the older one, a
    /// disabled one takes it away.
    #[must_use]
    pub fn with(mut self, others: Self) -> Self {
        let taken = |name: &String| others.disabled.contains(name);
        self.rules.retain(|rule| !taken(&rule.name));
        for rule in others.rules {
            match self.rules.iter_mut().find(|old| old.name == rule.name) {
                Some(old) => *old = rule,
                None => self.rules.push(rule),
            }
        }
        self
    }

    /// The rules.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter().map(AsRef::as_ref)
    }

    /// How often people are told of each rule.
    #[must_use]
    pub fn limits(&self) -> BTreeMap<String, Limit> {
        let limit = |rule: &Arc<Rule>| {
            let count = usize::try_from(rule.notify.count).unwrap_or(usize::MAX);
            let within = Duration::from_nanos(rule.notify.within_ns);
            (rule.name.clone(), Limit { count, within })
        };
        self.rules.iter().map(limit).collect()
    }

    /// The rules as a rule file: what is in force, with every default written out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        show::toml(self)
    }
}

/// How much a signal counts towards a threshold: an aggregate as the events that it stands for, a rise of an
/// error counter as the errors, all else once.
fn weight(signal: &Signal) -> u64 {
    match &signal.what {
        What::RasErrors(ras) => ras.increase,
        _ => signal.weight().max(1),
    }
}
