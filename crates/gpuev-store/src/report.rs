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

use crate::moment::Zone;

/// How a report is written for people.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Layout {
    /// The zone of its times.
    pub zone: Zone,
    /// Characters of a line, if there is a limit.
    pub width: Option<usize>,
}

impl Layout {
    /// Tables need so many characters.
    pub const NARROWEST: usize = 80;

    /// In lines of any width.
    #[must_use]
    pub fn wide(zone: Zone) -> Self {
        Self { zone, width: None }
    }

    /// In lines of at most `width` characters, or [`Layout::NARROWEST`] where that is more.
    #[must_use]
    pub fn of_width(zone: Zone, width: usize) -> Self {
        Self { zone, width: Some(width.max(Self::NARROWEST)) }
    }
}

impl Report {
    /// For a terminal, in lines of any width, in UTC. Names cannot move its cursor.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_in(&Layout::wide(Zone::utc()))
    }

    /// For a terminal, with the columns that have room.
    #[must_use]
    pub fn text_in(&self, layout: &Layout) -> String {
        text::Text(self, layout).to_string()
    }

    /// One JSON object (`docs/report-schema.md`) without a newline.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::new();
        json::write(&mut out, self);
        out
    }

    /// One HTML page with charts that needs nothing else, in UTC.
    #[must_use]
    pub fn html(&self) -> String {
        self.html_in(&Zone::utc())
    }

    /// As [`html`](Self::html), in this zone, which it names.
    #[must_use]
    pub fn html_in(&self, zone: &Zone) -> String {
        html::Page(self, zone).to_string()
    }
}
