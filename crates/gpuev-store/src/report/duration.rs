//! How long something took, over all times that it happened.

use hdrhistogram::Histogram;

/// Count, quantiles and sum of durations.
#[derive(Debug, Clone)]
pub struct Durations {
    /// To 0.1 %; grows to what there is, up to 900 KB.
    histogram: Option<Histogram<u64>>,
    count: u64,
    max_ns: u64,
    total_ns: u64,
}

impl Durations {
    pub(super) fn new() -> Self {
        // Three digits are valid, so there always is one.
        Self { histogram: Histogram::new(3).ok(), count: 0, max_ns: 0, total_ns: 0 }
    }

    pub(super) fn add(&mut self, ns: u64) {
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
        self.total_ns = self.total_ns.saturating_add(ns);
        if let Some(histogram) = &mut self.histogram {
            let _grows_to_any = histogram.record(ns);
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Nanoseconds that the share `quantile` of them did not exceed, to 0.1 %; `None` where there is none.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let histogram = self.histogram.as_ref().filter(|_| self.count > 0)?;
        Some(histogram.value_at_quantile(quantile).min(self.max_ns))
    }

    /// Nanoseconds of the longest; `None` where there is none.
    #[must_use]
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// Nanoseconds of all together.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.total_ns
    }
}
