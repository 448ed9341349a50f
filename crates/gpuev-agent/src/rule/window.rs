//! How much of something happened within a stretch of time.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A window keeps at most about so many entries: what happened in the same 256th of it shares one.
const SLICES: u64 = 256;

/// How much of something happened, as far back as it matters: the newest entries that together reach the
/// threshold. Older ones cannot matter any more, for they leave the window first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    weight: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    first_ns: u64,
    last_ns: u64,
    weight: u64,
}

/// When a window is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Threshold {
    /// So much
    pub(super) count: u64,
    /// within so many nanoseconds; `None`: however long ago.
    pub(super) within_ns: Option<u64>,
}

impl Window {
    /// Something happened. Times may swap by some milliseconds; the later one counts.
    pub(super) fn add(&mut self, at_ns: u64, weight: u64, full: Threshold) {
        let slice = match full.within_ns {
            Some(within) if full.count > SLICES => within / SLICES,
            Some(_) => 0,
            None => u64::MAX,
        };
        let at_ns = self.entries.back().map_or(at_ns, |last| last.last_ns.max(at_ns));
        match self.entries.back_mut() {
            Some(last) if at_ns - last.first_ns <= slice => {
                last.last_ns = at_ns;
                last.weight = last.weight.saturating_add(weight);
            }
            _ => self.entries.push_back(Entry { first_ns: at_ns, last_ns: at_ns, weight }),
        }
        self.weight = self.weight.saturating_add(weight);
        while let Some(oldest) = self.entries.front() {
            if self.weight - oldest.weight < full.count {
                break;
            }
            self.drop_oldest();
        }
    }

    /// Whether it is full now, once what is too old is gone.
    pub(super) fn is_full(&mut self, now_ns: u64, full: Threshold) -> bool {
        if let Some(within_ns) = full.within_ns {
            let gone = |entry: &Entry| now_ns.saturating_sub(entry.last_ns) >= within_ns;
            while self.entries.front().is_some_and(gone) {
                self.drop_oldest();
            }
        }
        self.weight >= full.count
    }

    /// How much it holds: enough to be full, or all there is.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// Whether nothing is left in it.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Nothing has happened.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.weight = 0;
    }

    fn drop_oldest(&mut self) {
        let oldest = self.entries.pop_front().map_or(0, |oldest| oldest.weight);
        self.weight = self.weight.saturating_sub(oldest);
        if self.entries.is_empty() {
            self.weight = 0;
        }
    }
}
