//! Silences: what nobody wants to be told for a while.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
}
