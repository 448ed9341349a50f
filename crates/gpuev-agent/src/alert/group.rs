//! Which alerts are one thing to people, and whom it hit.

use crate::rule::{Rule, Variables};
use crate::signal::What;

/// What an alert belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// The same for alerts that are told in one message.
    pub(super) key: String,
    /// Who was hit.
    pub(super) victims: Vec<String>,
}

impl Group {
    /// Resets of the GPUs of one hive are one: the hive is reset as a whole. All else is one by its rule.
    pub(super) fn of(rule: &Rule, variables: &Variables<'_>) -> Self {
        let signal = variables.signal();
        let key = match (&signal.what, &signal.reset) {
            (What::Span(_), Some(facts)) => match facts.hive {
                Some(hive) => format!("reset/hive {hive:016x}"),
                None => format!("reset/gpu {}", signal.gpu.bdf),
            },
            _ => format!("rule/{}", rule.name),
        };
        Self { key, victims: variables.victim_list().unwrap_or_default() }
    }
}
