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

use std::io::{self, Write};

use gpuev::json::Object;
use gpuev::message::{Escaped, Printable};
use gpuev::span::{Direction, Outcome, Span, SpanData, Spans};
use gpuev::{Access, Event, EventData, EventTime, Gap, GpuId, Item, names};

use super::Buffered;
use counters::Counters;
use tracks::{Topic, Track, Tracks};

pub(super) struct Trace<W> {
    page: Page<W>,
    spans: Spans,
    tracks: Tracks,
    counters: Counters,
}

impl<W: Write> Trace<W> {
    pub(super) fn new(out: W) -> Self {
        let page = Page {
            out: Buffered::new(out),
            any: false,
            clock: SessionClock::default(),
            last_ns: 0,
        };
        Self {
            page,
            spans: Spans::default(),
            tracks: Tracks::default(),
            counters: Counters::default(),
        }
    }

    pub(super) fn push(&mut self, item: &Item) -> io::Result<()> {
        self.page.clock.note(item);
        let Self { page, spans, tracks, counters } = self;
        spans.push(item, |span| page.span(tracks, &span));
        match item {
            Item::Event(event) => {
                page.last_ns = page.last_ns.max(event.time.received_boot_ns);
                page.instant(tracks, event);
                counters.count(page, tracks, event);
            }
            Item::Gap(gap) => {
                page.last_ns = page.last_ns.max(gap.to_boot_ns);
                page.gap(tracks, gap);
            }
        }
        self.page.out.write_if_full()
    }

    pub(super) fn new_session(&mut self) -> io::Result<()> {
        let Self { page, spans, tracks, counters } = self;
        spans.finish(|span| page.span(tracks, &span));
        counters.finish(page);
        self.page.clock.new_session();
        self.page.last_ns = 0;
        self.page.out.write_if_full()
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.new_session()?;
        self.page.out.text.push_str(if self.page.any { "\n]\n" } else { "[]\n" });
        self.page.out.finish()
    }
}

/// The array of trace events, as it is written.
struct Page<W> {
    out: Buffered<W>,
    any: bool,
    clock: SessionClock,
    /// The latest `CLOCK_BOOTTIME` of the session.
    last_ns: u64,
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
    fn note(&mut self, item: &Item) {
        if self.shift_ns.is_some() {
            return;
        }
        let (boot_ns, unix_ns) = match item {
            Item::Event(event) => (event.time.boot_ns, event.time.unix_ns),
            Item::Gap(gap) => (gap.to_boot_ns, gap.unix_ns),
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

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
        let topic = Topic::of(span.kind());
        let track = tracks.slice(self, span.gpu, span.pid, span.process.bytes(), topic, from, to);
        self.event("X", track, |json| {
            json.text("name", SliceName(span));
            json.word("cat", span.kind().name());
            json.number("ts", Micros(from));
            json.number("dur", Micros(to - from));
            json.value("args", |out| span_args(out, span));
        });
    }

    /// A start without an end, or the reverse: at its moment, with the reason.
    fn unpaired(&mut self, tracks: &mut Tracks, span: &Span, time: EventTime) {
        let topic = Topic::of(span.kind());
        let track = tracks.instant(self, span.gpu, span.pid, span.process.bytes(), topic);
        let at = self.clock.at(time.boot_ns);
        self.event("i", track, |json| {
            json.text("name", format_args!("{}: {}", SliceName(span), span.outcome.name()));
            json.word("cat", span.kind().name());
            json.number("ts", Micros(at));
            json.word("s", "t");
            json.value("args", |out| span_args(out, span));
        });
    }

    fn instant(&mut self, tracks: &mut Tracks, event: &Event) {
        let (scope, topic) = match event.data() {
            EventData::VmFault | EventData::UnmapFromGpu { .. } => ("t", Topic::Process),
            EventData::PreReset { .. } | EventData::PostReset { .. } => ("p", Topic::Gpu),
            EventData::ThermalThrottle { .. } | EventData::Unknown { .. } => ("t", Topic::Gpu),
            _ => return,
        };
        let pid = if topic == Topic::Gpu { None } else { event.pid() };
        let track = tracks.instant(self, event.gpu, pid, event.process(), topic);
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
        let track = tracks.slice(self, gap.gpu, None, None, Topic::Gaps, from, to);
        self.event("X", track, |json| {
            json.word("name", gap.cause.name());
            json.word("cat", "gap");
            json.number("ts", Micros(from));
            json.number("dur", Micros(to - from));
            json.value("args", |out| {
                let mut args = Object::nested(out);
                args.optional("count", gap.count);
                args.text("message", gap);
                args.end();
            });
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

impl std::fmt::Display for SliceName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
