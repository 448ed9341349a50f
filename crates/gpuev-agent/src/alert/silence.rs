//! Silences: what nobody wants to be told for a while.

use std::collections::BTreeMap;

use gpuev::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// Texts of people: names, comments, label values.
pub(super) const LONGEST_TEXT: usize = 1024;
const MOST_LABELS: usize = 32;

/// What nobody wants to be told for a while. The alerts live on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Silence {
    /// Counts the silences of this machine, from 1.
    pub id: u64,
    /// What it covers, and why.
    #[serde(flatten)]
    pub what: NewSilence,
    /// When it was made, in nanoseconds since 1970.
    pub since_unix_ns: i64,
}

/// A silence that is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSilence {
    /// Alerts with all these labels are covered. A value that ends in `*` stands for all that begin so.
    pub labels: BTreeMap<String, String>,
    /// When it ends, in nanoseconds since 1970.
    pub until_unix_ns: i64,
    /// Who made it.
    pub by: String,
    /// Why.
    pub comment: String,
}

impl NewSilence {
    /// Whether it covers alerts with these labels.
    #[must_use]
    pub fn covers(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(name, wanted)| {
            let value = labels.get(name).map_or("", String::as_str);
            match wanted.strip_suffix('*') {
                Some(begin) => value.starts_with(begin),
                None => value == wanted,
            }
        })
    }

    /// Whether it may be made.
    pub(crate) fn check(&self, now_unix_ns: i64) -> Result<()> {
        let wrong = |what: &str, hint: &str| {
            Err(Error::new(ErrorKind::InvalidInput, format!("silence: {what}")).with_hint(hint))
        };
        let everything = self.labels.values().all(|value| value == "*");
        let texts = self.labels.iter().flat_map(|(name, value)| [name, value]);
        if everything {
            return wrong("it covers everything", "name a label, e.g. rule or gpu");
        }
        if self.until_unix_ns <= now_unix_ns {
            return wrong("it is over before it begins", "choose a later end");
        }
        if self.labels.len() > MOST_LABELS
            || texts.chain([&self.by, &self.comment]).any(|text| text.len() > LONGEST_TEXT)
        {
            return wrong("it is too long", "at most 32 labels, and 1024 bytes each");
        }
        Ok(())
    }
}
