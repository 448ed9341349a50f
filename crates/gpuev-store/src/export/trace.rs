//! A time line in Chrome's trace event format: an array of JSON objects, which Perfetto and
//! `chrome://tracing` also read where it ends too early.
//!
//! A GPU is shown as a process, and each process on it as tracks of that: its life, page faults, migrations
//! and evictions as slices, what has no length as instants. Resets, throttling and gaps are tracks of the
//! GPU; bytes moved and page faults are counters.
//!
//! Times are microseconds of `CLOCK_BOOTTIME` with three digits: those of Perfetto's own traces and of
//! ftrace's `boot` clock, so that recordings of one boot lie side by side. A later session is moved so that
//! its distance to the first is that of wall time.

mod counters;
mod tracks;

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::sync::Arc;

use gpuev::json::Object;
use gpuev::message::{Escaped, Printable};
use gpuev::span::{Direction, Outcome, Span, SpanData};
use gpuev::{Access, Event, EventData, EventTime, Gap, GpuId, names};

use super::{Buffered, Record};
use counters::Counters;
use tracks::{Subject, Topic, Track, Tracks};

pub(super) struct Trace<W> {
    page: Page<W>,
    tracks: Tracks,
    counters: Counters,
}

impl<W: Write> Trace<W> {
    pub(super) fn new(out: W) -> Self {
        let page = Page {
            out: Buffered::new(out),
            any: false,
            drawn_apart: 0,
            clock: SessionClock::default(),
            last_ns: 0,
            filter: None,
        };
        Self { page, tracks: Tracks::default(), counters: Counters::default() }
    }

    pub(super) fn push(&mut self, record: Record<'_>) -> io::Result<()> {
        let Self { page, tracks, counters } = self;
        page.clock.note(record);
        page.say_filter(tracks, record);
        match record {
            Record::Event(event, record) => {
                page.last_ns = page.last_ns.max(event.time.received_boot_ns);
                page.instant(tracks, event, &record);
                counters.count(page, tracks, event);
            }
            Record::Gap(gap) => {
                page.last_ns = page.last_ns.max(gap.to_boot_ns);
                page.gap(tracks, gap);
            }
            Record::Span(span) => page.span(tracks, span),
        }
        self.page.out.write_if_full()
    }

    /// `filter` is what was recorded of it, where that is not all.
    pub(super) fn session(&mut self, filter: Option<Arc<str>>) -> io::Result<()> {
        self.page.filter = filter;
        self.counters.finish(&mut self.page);
        self.page.clock.new_session();
        self.page.last_ns = 0;
        self.page.out.write_if_full()
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.session(None)?;
        self.page.out.text.push_str(if self.page.any { "\n]\n" } else { "[]\n" });
        self.page.out.finish()
    }
}

/// The array of trace events, as it is written.
struct Page<W> {
    out: Buffered<W>,
    any: bool,
    /// How many slices lie on no track.
    drawn_apart: u64,
    clock: SessionClock,
    /// The latest `CLOCK_BOOTTIME` of the session.
    last_ns: u64,
    /// What was recorded, to be said with the first item of the session.
    filter: Option<Arc<str>>,
}

/// How far the times of a session are from those of the first.
#[derive(Default)]
struct SessionClock {
    /// Wall time less time since boot of the first session.
    first_ns: Option<i128>,
    /// What is added to times of this session; `None` until its first item.
    shift_ns: Option<i128>,
}

impl SessionClock {
    fn note(&mut self, record: Record<'_>) {
        if self.shift_ns.is_some() {
            return;
        }
        let (boot_ns, unix_ns) = match record {
            Record::Event(Event { time, .. }, _) => (time.boot_ns, time.unix_ns),
            Record::Gap(gap) => (gap.to_boot_ns, gap.unix_ns),
            Record::Span(span) => match span.time() {
                Some(time) => (time.boot_ns, time.unix_ns),
                None => return,
            },
        };
        let booted_ns = i128::from(unix_ns) - i128::from(boot_ns);
        self.shift_ns = Some(booted_ns - *self.first_ns.get_or_insert(booted_ns));
    }

    fn new_session(&mut self) {
        self.shift_ns = None;
    }

    fn at(&self, boot_ns: u64) -> u64 {
        let moved = i128::from(boot_ns) + self.shift_ns.unwrap_or(0);
        u64::try_from(moved.max(0)).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds as microseconds, exactly.
struct Micros(u64);

impl Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

impl<W: Write> Page<W> {
    /// Appends one trace event of phase `phase`; `rest` writes what else it has.
    fn event(&mut self, phase: &str, track: Track, rest: impl FnOnce(&mut Object<'_>)) {
        self.out.text.push_str(if std::mem::replace(&mut self.any, true) { ",\n" } else { "[\n" });
        let mut json = Object::nested(&mut self.out.text);
        json.word("ph", phase);
        json.number("pid", track.group);
        json.number("tid", track.number);
        rest(&mut json);
        json.end();
    }

    /// Names a group of tracks or a track, and says where it stands.
    fn metadata(&mut self, what: &str, track: Track, rest: impl FnOnce(&mut Object<'_>)) {
        self.event("M", track, |json| {
            json.word("name", what);
            json.value("args", |out| {
                let mut args = Object::nested(out);
                rest(&mut args);
                args.end();
            });
        });
    }

    /// Says what was recorded, on the track of the GPU of the first record, where that is not all.
    fn say_filter(&mut self, tracks: &mut Tracks, record: Record<'_>) {
        let Some(filter) = self.filter.take() else { return };
        let (gpu, boot_ns) = match record {
            Record::Event(event, _) => (event.gpu, Some(event.time.boot_ns)),
            Record::Gap(gap) => (gap.gpu, Some(gap.from_boot_ns)),
            Record::Span(span) => (span.gpu, span.time().map(|time| time.boot_ns)),
        };
        let track = tracks.gpu(self, gpu);
        let at = self.clock.at(boot_ns.unwrap_or(self.last_ns));
        self.event("i", track, |json| {
            json.word("name", "not all is recorded");
            json.number("ts", Micros(at));
            json.word("s", "g");
            json.value("args", |out| {
                let mut args = Object::nested(out);
                args.raw("only", &filter);
                args.end();
            });
        });
    }

    fn span(&mut self, tracks: &mut Tracks, span: &Span) {
        let Some(time) = span.time() else { return };
        let until = match (span.end, span.outcome) {
            (Some(end), _) => Some(end.boot_ns),
            // It goes on: shown as far as is known.
            (None, Outcome::Open) => Some(self.last_ns),
            (None, _) => None,
        };
        match (span.start, until) {
            (Some(start), Some(end)) => self.slice(tracks, span, start, end),
            _ => self.unpaired(tracks, span, time),
        }
    }

    fn slice(&mut self, tracks: &mut Tracks, span: &Span, start: EventTime, end_ns: u64) {
        let from = self.clock.at(start.boot_ns);
        let to = self.clock.at(end_ns).max(from);
        let name = SliceName(span);
        let args = |out: &mut String| span_args(out, span);
        self.draw(tracks, Subject::of_span(span), (from, to), span.kind().name(), name, args);
    }

    /// Draws a slice: on a track of its subject, or where all of them are taken as one of its own that nests in
    /// nothing.
    fn draw(
        &mut self,
        tracks: &mut Tracks,
        of: Subject<'_>,
        (from, to): (u64, u64),
        category: &str,
        name: impl Display,
        args: impl Fn(&mut String),
    ) {
        let Some(track) = tracks.slice(self, of, from, to) else {
            let gpu = tracks.gpu(self, of.gpu);
            return self.draw_apart(gpu, (from, to), category, name, args);
        };
        self.event("X", track, |json| {
            json.text("name", name);
            json.word("cat", category);
            json.number("ts", Micros(from));
            json.number("dur", Micros(to - from));
            json.value("args", args);
        });
    }

    fn draw_apart(
        &mut self,
        gpu: Track,
        (from, to): (u64, u64),
        category: &str,
        name: impl Display,
        args: impl Fn(&mut String),
    ) {
        self.drawn_apart += 1;
        let number = self.drawn_apart;
        for (phase, at) in [("b", from), ("e", to)] {
            self.event(phase, gpu, |json| {
                json.text("name", &name);
                json.word("cat", category);
                json.text("id", format_args!("{number:#x}"));
                json.number("ts", Micros(at));
                if phase == "b" {
                    json.value("args", &args);
                }
            });
        }
    }

    /// A start without an end, or the reverse: at its moment, with the reason.
    fn unpaired(&mut self, tracks: &mut Tracks, span: &Span, time: EventTime) {
        let track = tracks.instant(self, Subject::of_span(span));
        let at = self.clock.at(time.boot_ns);
        self.event("i", track, |json| {
            json.text("name", format_args!("{}: {}", SliceName(span), span.outcome.name()));
            json.word("cat", span.kind().name());
            json.number("ts", Micros(at));
            json.word("s", "t");
            json.value("args", |out| span_args(out, span));
        });
    }

    fn instant(&mut self, tracks: &mut Tracks, event: &Event, record: &gpuev::Record<'_>) {
        let (scope, topic) = match EventData::of(record) {
            EventData::VmFault | EventData::UnmapFromGpu { .. } => ("t", Topic::Process),
            EventData::PreReset { .. } | EventData::PostReset { .. } => ("p", Topic::Gpu),
            EventData::ThermalThrottle { .. } | EventData::Unknown { .. } => ("t", Topic::Gpu),
            _ => return,
        };
        let pid = event.facts().owner_in(record).filter(|_| topic != Topic::Gpu);
        let process = event.process().or_else(|| event.thread());
        let of = Subject { gpu: event.gpu, pid, process, topic };
        let track = tracks.instant(self, of);
        let at = self.clock.at(event.time.boot_ns);
        self.event("i", track, |json| {
            json.word("name", event.type_name());
            json.word("cat", event.severity().name());
            json.number("ts", Micros(at));
            json.word("s", scope);
            json.value("args", |out| event_args(out, event));
        });
    }

    fn gap(&mut self, tracks: &mut Tracks, gap: &Gap) {
        let to = self.clock.at(gap.to_boot_ns);
        let from = self.clock.at(gap.from_boot_ns).min(to);
        let of = Subject { gpu: gap.gpu, pid: None, process: None, topic: Topic::Gaps };
        self.draw(tracks, of, (from, to), "gap", gap.cause.name(), |out| {
            let mut args = Object::nested(out);
            args.optional("count", gap.count);
            args.text("message", gap);
            args.end();
        });
    }

    fn counter(&mut self, gpu: Track, name: &str, at: u64, values: &[(&str, u64)]) {
        self.event("C", gpu, |json| {
            json.word("name", name);
            json.number("ts", Micros(at));
            json.value("args", |out| {
                let mut args = Object::nested(out);
                for (key, value) in values {
                    args.number(key, value);
                }
                args.end();
            });
        });
    }

    fn name_gpu(&mut self, group: Track, gpu: GpuId) {
        self.metadata("process_name", group, |args| match gpu.partition {
            0 => args.text("name", format_args!("GPU {} {}", gpu.index, gpu.bdf)),
            part => {
                args.text("name", format_args!("GPU {} {} part {part}", gpu.index, gpu.bdf));
            }
        });
        self.metadata("process_sort_index", group, |args| args.number("sort_index", gpu.index));
    }
}

/// What a slice is called.
struct SliceName<'a>(&'a Span);

impl Display for SliceName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.data {
            SpanData::Reset { sequence, .. } => write!(f, "reset {sequence}"),
            SpanData::PageFault { access: Some(access), .. } => {
                let access = if access == Access::Write { "write" } else { "read" };
                write!(f, "page fault: {access}")
            }
            SpanData::PageFault { .. } => f.write_str("page fault"),
            SpanData::Migration { migration, .. } => {
                write!(f, "migration {}", Direction::of(&migration).name())
            }
            SpanData::QueueEviction { trigger, .. } => {
                match trigger.and_then(names::eviction_trigger) {
                    Some(trigger) => write!(f, "queues evicted: {trigger}"),
                    None => f.write_str("queues evicted"),
                }
            }
            SpanData::Process => match self.0.process.bytes() {
                Some(name) => Printable(name).fmt(f),
                None => f.write_str("process"),
            },
            _ => f.write_str(self.0.kind().name()),
        }
    }
}

fn span_args(out: &mut String, span: &Span) {
    let mut args = Object::nested(out);
    args.word("outcome", span.outcome.name());
    args.optional("pid", span.pid);
    match span.data {
        SpanData::Reset { cause, .. } => match cause.bytes() {
            Some(cause) => args.text("cause", Escaped(cause)),
            None => args.null("cause"),
        },
        SpanData::PageFault { address, .. } => args.text("address", format_args!("{address:#x}")),
        SpanData::Migration { migration, error } => {
            args.text("address", format_args!("{:#x}", migration.address));
            args.number("bytes", migration.size);
            args.optional("bytes_per_second", span.bytes_per_second());
            match names::migrate_trigger(migration.trigger) {
                Some(trigger) => args.word("trigger", trigger),
                None => args.number("trigger", migration.trigger),
            }
            args.optional("error", error);
        }
        SpanData::QueueEviction { reschedules, .. } => args.number("reschedules", reschedules),
        _ => {}
    }
    if span.across_gap {
        args.raw("across_gap", "true");
    }
    if span.doubtful {
        args.raw("doubtful", "true");
    }
    args.end();
}

fn event_args(out: &mut String, event: &Event) {
    let mut args = Object::nested(out);
    args.number("seq", event.seq);
    args.optional("pid", event.pid());
    args.text("message", event.message());
    args.text("raw", Escaped(event.raw()));
    args.end();
}
