//! Which track a slice lies on.
//!
//! Slices of one track must not overlap. They come in the order of their ends, so a slice fits where no
//! earlier one ends after its start; where none fits, a topic gets one more track. Where it has as many as it
//! may, the slice lies on none.

use std::collections::HashMap;
use std::io::Write;

use gpuev::message::Printable;
use gpuev::span::{Span, SpanKind};
use gpuev::{Bdf, GpuId};

use super::Page;

/// Tracks that are remembered. Where a history has more (a million processes, say), all are forgotten and
/// begun anew.
const MOST_TRACKS: usize = 65_536;

/// Tracks of one topic, which are searched one after the other.
const MOST_LANES: usize = 64;

/// Linux gives none above (`PID_MAX_LIMIT`); viewers read 32 bits.
const HIGHEST_PID: u64 = 1 << 22;

/// Numbers of tracks begin here: those of GPUs are below, and none is 0.
const FIRST_NUMBER: u64 = 1_000_000;

/// What a track is about, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Topic {
    Gaps,
    Gpu,
    Process,
    Evictions,
    PageFaults,
    Migrations,
}

impl Topic {
    pub(super) fn of(kind: SpanKind) -> Self {
        match kind {
            SpanKind::PageFault => Self::PageFaults,
            SpanKind::Migration => Self::Migrations,
            SpanKind::QueueEviction => Self::Evictions,
            SpanKind::Process => Self::Process,
            _ => Self::Gpu,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gaps => "events lost",
            Self::Gpu => "resets, throttling",
            Self::Process => "life",
            Self::Evictions => "evictions",
            Self::PageFaults => "page faults",
            Self::Migrations => "migrations",
        }
    }
}

/// What a slice or a moment is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub gpu: GpuId,
    /// `None` where it is the GPU's own.
    pub pid: Option<u32>,
    pub process: Option<&'a [u8]>,
    pub topic: Topic,
}

impl<'a> Subject<'a> {
    pub(super) fn of_span(span: &'a Span) -> Self {
        let topic = Topic::of(span.kind());
        Self { gpu: span.gpu, pid: span.pid.or(span.tid), process: span.process.bytes(), topic }
    }
}

/// A track as the format has it: `group` is its `pid`, `number` its `tid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Track {
    pub group: u64,
    pub number: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tracks {
    gpus: HashMap<(Bdf, u32), u64>,
    lanes: HashMap<(u64, Option<u32>, Topic), Vec<Lane>>,
    remembered: usize,
    given: u64,
}

/// A track of a topic.
#[derive(Debug, Clone, Copy)]
struct Lane {
    number: u64,
    /// Its last slice ends here.
    until_ns: u64,
}

impl Tracks {
    /// The track of a GPU itself.
    pub(super) fn gpu<W: Write>(&mut self, page: &mut Page<W>, gpu: GpuId) -> Track {
        let next = self.gpus.len() as u64 + 1;
        let group = *self.gpus.entry((gpu.bdf, gpu.partition)).or_insert(next);
        let track = Track { group, number: group };
        if group == next {
            page.name_gpu(track, gpu);
        }
        track
    }

    /// The track for a slice from `from_ns` to `to_ns`; `None` where all of them are taken.
    pub(super) fn slice<W: Write>(
        &mut self,
        page: &mut Page<W>,
        of: Subject<'_>,
        from_ns: u64,
        to_ns: u64,
    ) -> Option<Track> {
        let group = self.gpu(page, of.gpu).group;
        let lanes = self.lanes.entry((group, of.pid, of.topic)).or_default();
        if let Some(lane) = lanes.iter_mut().find(|lane| lane.until_ns <= from_ns) {
            lane.until_ns = to_ns;
            return Some(Track { group, number: lane.number });
        }
        let taken = lanes.len() >= MOST_LANES;
        (!taken).then(|| self.open(page, group, of, to_ns))
    }

    /// The track for a moment: the topic's first.
    pub(super) fn instant<W: Write>(&mut self, page: &mut Page<W>, of: Subject<'_>) -> Track {
        let group = self.gpu(page, of.gpu).group;
        let first = self.lanes.get(&(group, of.pid, of.topic)).and_then(|lanes| lanes.first());
        match first {
            Some(lane) => Track { group, number: lane.number },
            None => self.open(page, group, of, 0),
        }
    }

    fn open<W: Write>(
        &mut self,
        page: &mut Page<W>,
        group: u64,
        of: Subject<'_>,
        until_ns: u64,
    ) -> Track {
        if self.remembered >= MOST_TRACKS {
            self.lanes.clear();
            self.remembered = 0;
        }
        let number = FIRST_NUMBER + self.given;
        self.given += 1;
        self.remembered += 1;
        let lanes = self.lanes.entry((group, of.pid, of.topic)).or_default();
        lanes.push(Lane { number, until_ns });
        let track = Track { group, number };
        let topic = of.topic.name();
        page.metadata("thread_name", track, |args| match (of.pid, of.process) {
            (None, _) => args.word("name", topic),
            (Some(pid), None) => args.text("name", format_args!("pid {pid} {topic}")),
            (Some(pid), Some(name)) => {
                args.text("name", format_args!("{} {pid} {topic}", Printable(name)));
            }
        });
        let pid = of.pid.map_or(0, |pid| u64::from(pid) + 1);
        let place = pid.min(HIGHEST_PID) * 8 + of.topic as u64;
        page.metadata("thread_sort_index", track, |args| args.number("sort_index", place));
        track
    }
}
