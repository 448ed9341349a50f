//! What a stream of events comes to: counts, rates, durations, what went wrong and where.
//!
//! [`Reporter`] takes items one by one and holds a bounded amount of memory, however many there are;
//! [`Report`] is what they came to, as text, JSON (`docs/report-schema.md`) or one HTML page.
//!
//! ```
//! use gpuev_store::report::{Options, Reporter};
//!
//! let reporter = Reporter::new(Options::default());
//! // reporter.push(&item) for each item
//! let report = reporter.finish();
//! assert_eq!(report.events, 0);
//! ```
//!
//! # What is exact
//!
//! Counts, times and sums are those of the stream, no more: where it has gaps, they are lower bounds, and the
//! report says so first. Quantiles are to 0.1 %. Lists of the most frequent (processes, ranges, hot spots) are
//! exact as long as there are no more than some thousand different ones; beyond, a number may lack as much
//! as [`Ranking::missing_at_most`].
//!
//! **Throttling** has a beginning and no end, and by default the driver tells of it once a minute and GPU at
//! most. So an event stands for the minute from it on, or up to the next event: the time throttled is at most
//! that.
//!
//! **Thrashing** is looked at in blocks of 2 MiB, what the driver moves at once; of a larger migration, in the
//! blocks of its first 128 MiB.

mod chart;
mod costs;
mod counts;
mod document;
mod duration;
mod fold;
mod format;
mod frequent;
mod history;
mod html;
mod json;
mod memory;
mod period;
mod stretches;
mod summary;
mod text;
mod throttle;
mod timeline;
mod watched;

pub use duration::Durations;
pub use fold::{Options, Reporter};
pub use period::{GpuCounts, Periods, Summary};
pub use summary::{
    CauseSummary, EvictionSummary, FaultHotSpot, GapSummary, GpuSummary, LeftOut, MemoryFaults,
    MigrationSummary, Peak, ProcessSummary, Ranking, Report, ResetSummary, Source, SourceEnd,
    SpanSummary, ThrashingRange, ThrottleSummary, TypeCounts, Who,
};
pub use timeline::Timeline;

impl Report {
    /// For a terminal, in lines of any width. Names cannot move its cursor.
    #[must_use]
    pub fn text(&self) -> String {
        text::Text(self).to_string()
    }

    /// One JSON object (`docs/report-schema.md`) without a newline.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::new();
        json::write(&mut out, self);
        out
    }

    /// One HTML page with charts that needs nothing else.
    #[must_use]
    pub fn html(&self) -> String {
        html::Page(self).to_string()
    }
}
