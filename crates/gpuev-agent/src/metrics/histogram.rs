//! How long spans took, in buckets.

use crate::signal::Latency;

/// Upper ends in nanoseconds: from a page fault (tens of microseconds) to the life of a process (hours).
const ENDS: [u64; 14] = [
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
    3_600_000_000_000,
];

/// Counts by length; the last count is of those longer than every end.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: [u64; ENDS.len() + 1],
    sum_ns: u128,
}

impl Histogram {
    pub(super) fn add(&mut self, duration_ns: u64) {
        self.count(duration_ns, 1);
        self.sum_ns += u128::from(duration_ns);
    }

    /// Many that were told as one: each counts as long as the quantile that it is below, so that none counts
    /// as shorter than it was. The sum is exact.
    pub(super) fn add_many(&mut self, latency: &Latency) {
        let above_p99 = latency.count.div_ceil(100);
        let above_p50 = (latency.count / 2).saturating_sub(above_p99);
        self.count(latency.max_ns, above_p99);
        self.count(latency.p99_ns, above_p50);
        self.count(latency.p50_ns, latency.count - above_p99 - above_p50);
        self.sum_ns += u128::from(latency.sum_ns);
    }

    fn count(&mut self, duration_ns: u64, more: u64) {
        self.counts[ENDS.partition_point(|end| *end < duration_ns)] += more;
    }

    /// Upper ends in seconds with the number of those at most as long, and how many there are.
    pub(super) fn cumulative(&self) -> (Vec<(f64, u64)>, u64) {
        let mut below = 0;
        let ends = ENDS.iter().zip(&self.counts).map(|(end, count)| {
            below += count;
            (seconds(u128::from(*end)), below)
        });
        let ends = ends.collect();
        (ends, self.counts.iter().sum())
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        seconds(self.sum_ns)
    }
}

/// Exact to the nanosecond for some months, then to what a double holds.
fn seconds(ns: u128) -> f64 {
    let whole = u32::try_from(ns / 1_000_000_000).unwrap_or(u32::MAX);
    let rest = u32::try_from(ns % 1_000_000_000).unwrap_or(0);
    f64::from(whole) + f64::from(rest) / 1e9
}
