//! The pairing itself. What it does and why is told in the parent module.

use std::collections::{HashMap, VecDeque};

use gpuev_kfd::Record;

use crate::event::{
    Clock, Comm, Event, EventData, EventFacts, EventTime, Gap, GapCause, Item, tid_of,
};

use crate::{GpuId, Life, Lives};

use super::key::{GpuKey, Key, Seeds};
use super::open::{OpenSpans, Place};
use super::{Cause, Outcome, Span, SpanData, SpanKind};

/// At most so many ends wait for their starts. They wait milliseconds.
const HELD_ENDS: usize = 256;

/// How long spans stay open and how many. Times are of events, not of the machine that looks at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Nanoseconds after which a reset without an end is given up. A reset takes seconds.
    pub reset_ns: u64,
    /// The same for a page fault, which takes micro- to milliseconds.
    pub page_fault_ns: u64,
    /// The same for a migration, which takes up to seconds.
    pub migration_ns: u64,
    /// The same for an eviction: a suspended machine may sleep for hours.
    pub queue_eviction_ns: u64,
    /// The same for a process.
    pub process_ns: u64,
    /// Nanoseconds that an end waits for a start that is read after it. Measured: up to 8 ms.
    pub reorder_ns: u64,
    /// Open spans of one kind; one more expires the oldest.
    pub open_per_kind: usize,
    /// Open spans of one key; one more supersedes the oldest. Processes and resets do not nest at all.
    pub nesting: u32,
}

impl Default for Limits {
    /// 10 minutes, 30 seconds, 2 minutes, 1 day, never; 10 ms; 16,384 of each kind, which takes 5 MB at most;
    /// 8 of one key.
    fn default() -> Self {
        const SECOND: u64 = 1_000_000_000;
        Self {
            reset_ns: 600 * SECOND,
            page_fault_ns: 30 * SECOND,
            migration_ns: 120 * SECOND,
            queue_eviction_ns: 86_400 * SECOND,
            process_ns: u64::MAX,
            reorder_ns: 10_000_000,
            open_per_kind: 16_384,
            nesting: 8,
        }
    }
}

impl Limits {
    fn timeout_ns(&self, kind: SpanKind) -> u64 {
        match kind {
            SpanKind::Reset => self.reset_ns,
            SpanKind::PageFault => self.page_fault_ns,
            SpanKind::Migration => self.migration_ns,
            SpanKind::QueueEviction => self.queue_eviction_ns,
            SpanKind::Process => self.process_ns,
        }
    }

    fn nesting(&self, kind: SpanKind) -> u32 {
        match kind {
            SpanKind::Reset | SpanKind::Process => 1,
            _ => self.nesting.max(1),
        }
    }
}

/// Pairs starts and ends of a stream of events. One for each stream, i.e. for each boot of a machine.
///
/// ```
/// # use gpuev::{Clock, Comm, Event, EventFacts, EventTime, GpuId, Item};
/// # use gpuev::span::{Limits, Spans};
/// # let gpu = GpuId { index: 0, bdf: "0000:03:00.0".parse()?, unique_id: None, partition: 0, kfd_id: 1 };
/// # let event = |seq, boot_ns, raw| Item::Event(Event::from_facts(EventFacts {
/// #     gpu, seq, doubtful: false, pid: None, comm: Comm::NONE, raw,
/// #     time: EventTime { boot_ns, clock: Clock::Receipt, received_boot_ns: boot_ns, unix_ns: 0 },
/// # }));
/// let mut spans = Spans::new(Limits::default());
/// let mut downtime_ns = 0;
/// for item in [event(0, 1_000, b"3 1 job hang"), event(1, 9_000, b"4 1 ")] {
///     spans.push(&item, |span| downtime_ns += span.duration_ns().unwrap_or(0));
/// }
/// assert_eq!(downtime_ns, 8_000);
/// # Ok::<(), gpuev::Error>(())
/// ```
#[derive(Debug)]
pub struct Spans {
    limits: Limits,
    open: OpenSpans,
    held: VecDeque<Held>,
    lives: Lives,
    /// By GPU: until when events may be missing.
    blind_until: HashMap<GpuKey, u64, Seeds>,
    /// The latest time of receipt.
    now_ns: u64,
    /// Nothing expires before.
    deadline_ns: u64,
}

/// What an end says.
#[derive(Debug, Clone, Copy)]
struct End {
    key: Key,
    /// As it is reported where no start is found.
    span: Span,
    /// As it is with a start.
    outcome: Outcome,
}

/// An end that waits for its start.
#[derive(Debug)]
struct Held {
    end: End,
    boot_ns: u64,
    since_ns: u64,
}

type Done<'a> = &'a mut dyn FnMut(Span);

/// What an event is for a span.
enum Role {
    Start(Span),
    End(End),
    Reschedule(Span),
}

impl Default for Spans {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Spans {
    /// Nothing open.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: OpenSpans::default(),
            held: VecDeque::new(),
            lives: Lives::default(),
            blind_until: HashMap::default(),
            now_ns: 0,
            deadline_ns: u64::MAX,
        }
    }

    /// Takes the next item of the stream; `done` is given every span that is thereby over.
    pub fn push(&mut self, item: &Item, done: impl FnMut(Span)) {
        match item {
            Item::Event(event) => self.push_event(event, done),
            Item::Gap(gap) => self.push_gap(gap, done),
        }
    }

    /// Takes the next event of the stream.
    pub fn push_event(&mut self, event: &Event, done: impl FnMut(Span)) {
        self.push_decoded(&event.facts(), &event.record(), done);
    }

    /// Takes the next event of the stream, `record` being what its line decodes to.
    pub fn push_decoded(
        &mut self,
        facts: &EventFacts<'_>,
        record: &Record<'_>,
        mut done: impl FnMut(Span),
    ) {
        self.advance(facts.time.received_boot_ns, &mut done);
        let life = self.see(facts, record);
        match role(facts, record, life) {
            Some(Role::Start(mut span)) => self.start(&mut span, facts.time, &mut done),
            Some(Role::End(end)) => self.end(&end, facts.time, &mut done),
            Some(Role::Reschedule(span)) => self.reschedule(&span),
            None => {}
        }
    }

    /// Gives the span that begins or ends with an event whose other half is not wanted: [`Outcome::Filtered`].
    pub fn push_alone(
        &mut self,
        facts: &EventFacts<'_>,
        record: &Record<'_>,
        mut done: impl FnMut(Span),
    ) {
        let life = self.see(facts, record);
        match role(facts, record, life) {
            Some(Role::Start(span) | Role::End(End { span, .. })) => {
                done(Span { outcome: Outcome::Filtered, ..span });
            }
            Some(Role::Reschedule(_)) | None => {}
        }
    }

    /// The life that `pid` on `gpu` is in, as far as it was seen.
    #[must_use]
    pub fn life(&self, gpu: GpuId, pid: u32) -> Life {
        self.lives.current(gpu, pid)
    }

    /// Takes note of whose life begins or ends with an event that is not to be paired; gives the life that it is of.
    pub fn see(&mut self, facts: &EventFacts<'_>, record: &Record<'_>) -> Life {
        let now_ns = facts.time.received_boot_ns;
        let life = |pid| self.lives.of(facts.gpu, pid, record.event_type(), now_ns);
        facts.owner_in(record).map(life).unwrap_or_default()
    }

    /// What follows is of this boot of a machine: the same pid is the same process only in one. What is open has
    /// no end.
    pub fn begin(&mut self, boot: u32, done: impl FnMut(Span)) {
        self.finish(done);
        self.lives.begin(boot);
    }

    /// Takes the next gap of the stream.
    pub fn push_gap(&mut self, gap: &Gap, mut done: impl FnMut(Span)) {
        self.advance(gap.to_boot_ns, &mut done);
        self.lives.gap(gap);
        self.gap(gap, &mut done);
    }

    /// The stream is over: what is open is given to `done`, and nothing is open any more.
    pub fn finish(&mut self, mut done: impl FnMut(Span)) {
        self.release_held(|_| true, &mut done);
        for kind in SpanKind::ALL {
            self.expire_where(kind, Outcome::Open, |_| true, &mut done);
        }
        self.blind_until.clear();
        (self.now_ns, self.deadline_ns) = (0, u64::MAX);
    }

    /// What is open now, by kind and age; [`Outcome::Open`].
    pub fn open(&self) -> impl Iterator<Item = &Span> {
        SpanKind::ALL.into_iter().flat_map(|kind| {
            std::iter::successors(self.open.oldest(kind), |place| self.open.newer(*place))
                .map(|place| self.open.span(place))
        })
    }

    fn start(&mut self, span: &mut Span, time: EventTime, done: Done<'_>) {
        let key = Key::of(span);
        if let Some(held) = self.take_held(&key, time.boot_ns) {
            close(span, &held.end);
            span.nested = self.is_nested(span.kind(), &key);
            return done(*span);
        }
        let kind = span.kind();
        if kind == SpanKind::Process {
            self.process_over(span, done);
        }
        let blind = self.blind_until.get(&GpuKey::of(span.gpu));
        span.across_gap = blind.is_some_and(|until| time.boot_ns <= *until);
        if self.open.insert(key, span, self.now_ns) > self.limits.nesting(kind) {
            self.expire(self.open.bottom(&key), Outcome::Superseded, done);
        }
        if self.open.count(kind) > self.limits.open_per_kind.clamp(1, 1 << 30) {
            self.expire(self.open.oldest(kind), Outcome::Capacity, done);
        }
        let due = self.now_ns.saturating_add(self.limits.timeout_ns(kind));
        self.deadline_ns = self.deadline_ns.min(due);
    }

    fn end(&mut self, end: &End, time: EventTime, done: Done<'_>) {
        if end.span.kind() == SpanKind::Process {
            self.process_over(&end.span, done);
        }
        let began = |span: &Span| span.start.is_some_and(|start| start.boot_ns <= time.boot_ns);
        let kind = end.span.kind();
        if let Some(mut span) = self.open.take(&end.key, began) {
            close(&mut span, end);
            span.nested = self.is_nested(kind, &end.key);
            done(span);
        } else if time.clock == Clock::Driver && self.limits.reorder_ns > 0 {
            self.hold(Held { end: *end, boot_ns: time.boot_ns, since_ns: self.now_ns }, done);
        } else {
            done(end.span);
        }
    }

    /// Only evictions go on within one another.
    fn is_nested(&self, kind: SpanKind, key: &Key) -> bool {
        kind == SpanKind::QueueEviction && self.open.newest(key).is_some()
    }

    fn reschedule(&mut self, seen: &Span) {
        let Some(place) = self.open.newest(&Key::of(seen)) else { return };
        let span = self.open.span_mut(place);
        span.doubtful |= seen.doubtful;
        if let SpanData::QueueEviction { reschedules, .. } = &mut span.data {
            *reschedules = reschedules.saturating_add(1);
        }
    }

    fn gap(&mut self, gap: &Gap, done: Done<'_>) {
        let gpu = GpuKey::of(gap.gpu);
        self.release_held(|held| GpuKey::of(held.end.span.gpu) == gpu, done);
        let removed = gap.cause == GapCause::GpuRemoved;
        let covers = |span: &Span| {
            GpuKey::of(span.gpu) == gpu
                && (removed || span.start.is_none_or(|at| at.boot_ns <= gap.to_boot_ns))
        };
        for kind in SpanKind::ALL {
            match kind {
                _ if removed => self.expire_where(kind, Outcome::GpuRemoved, covers, done),
                SpanKind::Reset | SpanKind::Process => self.mark_across_gap(kind, covers),
                _ => self.expire_where(kind, Outcome::Gap, covers, done),
            }
        }
        // Lines that are read after the gap's end may be older by as much as lines swap, not more.
        let settled_ns = self.now_ns.saturating_sub(self.limits.reorder_ns.max(1_000_000_000));
        self.blind_until.retain(|_, until| *until >= settled_ns);
        let until = self.blind_until.entry(gpu).or_insert(0);
        *until = gap.to_boot_ns.max(*until);
    }

    fn mark_across_gap(&mut self, kind: SpanKind, covers: impl Fn(&Span) -> bool) {
        let mut next = self.open.oldest(kind);
        while let Some(place) = next {
            next = self.open.newer(place);
            let span = self.open.span_mut(place);
            span.across_gap |= covers(span);
        }
    }

    /// The process that `seen` is of ended, or another took its pid: what it had open has no end.
    fn process_over(&mut self, seen: &Span, done: Done<'_>) {
        // A thread whose process is not known is taken for the first of its process, whose number is the process's.
        let (gpu, pid) = (GpuKey::of(seen.gpu), seen.pid.or(seen.tid));
        for kind in [SpanKind::PageFault, SpanKind::Migration, SpanKind::QueueEviction] {
            let of_it = |span: &Span| span.pid == pid && GpuKey::of(span.gpu) == gpu;
            self.expire_where(kind, Outcome::ProcessEnded, of_it, done);
        }
    }

    fn advance(&mut self, now_ns: u64, done: Done<'_>) {
        self.now_ns = self.now_ns.max(now_ns);
        let now_ns = self.now_ns;
        while let Some(held) = self.held.front() {
            if now_ns - held.since_ns <= self.limits.reorder_ns {
                break;
            }
            self.release_oldest_held(done);
        }
        if now_ns < self.deadline_ns {
            return;
        }
        self.deadline_ns = u64::MAX;
        for kind in SpanKind::ALL {
            let timeout_ns = self.limits.timeout_ns(kind);
            while let Some(place) = self.open.oldest(kind) {
                let due = self.open.opened_ns(place).saturating_add(timeout_ns);
                if now_ns < due {
                    self.deadline_ns = self.deadline_ns.min(due);
                    break;
                }
                self.expire(Some(place), Outcome::Timeout, done);
            }
        }
    }

    fn expire(&mut self, place: Option<Place>, outcome: Outcome, done: Done<'_>) {
        if let Some(place) = place {
            let span = self.open.remove(place);
            let nested = self.is_nested(span.kind(), &Key::of(&span));
            done(Span { outcome, nested, ..span });
        }
    }

    fn expire_where(
        &mut self,
        kind: SpanKind,
        outcome: Outcome,
        chosen: impl Fn(&Span) -> bool,
        done: Done<'_>,
    ) {
        let mut next = self.open.oldest(kind);
        while let Some(place) = next {
            next = self.open.newer(place);
            if chosen(self.open.span(place)) {
                self.expire(Some(place), outcome, done);
            }
        }
    }

    fn hold(&mut self, held: Held, done: Done<'_>) {
        if self.held.len() >= HELD_ENDS {
            self.release_oldest_held(done);
        }
        self.held.push_back(held);
    }

    /// The earliest end that waits for a start of `key` at `boot_ns`.
    fn take_held(&mut self, key: &Key, boot_ns: u64) -> Option<Held> {
        let waiting = self.held.iter().enumerate();
        let fitting = waiting.filter(|(_, h)| h.boot_ns >= boot_ns && h.end.key == *key);
        let (index, _) = fitting.min_by_key(|(_, held)| held.boot_ns)?;
        self.held.remove(index)
    }

    fn release_oldest_held(&mut self, done: Done<'_>) {
        if let Some(held) = self.held.pop_front() {
            done(held.end.span);
        }
    }

    fn release_held(&mut self, chosen: impl Fn(&Held) -> bool, done: Done<'_>) {
        self.held.retain(|held| {
            let released = chosen(held);
            if released {
                done(held.end.span);
            }
            !released
        });
    }
}

/// Adds to a start what its end says.
fn close(span: &mut Span, end: &End) {
    let End { span: told, outcome, .. } = end;
    (span.end, span.outcome) = (told.end, *outcome);
    span.across_gap |= told.life.is_shared;
    span.doubtful |= told.doubtful;
    if span.process == Comm::NONE {
        span.process = told.process;
    }
    match (&mut span.data, told.data) {
        (SpanData::Migration { error, .. }, SpanData::Migration { error: told, .. }) => {
            *error = told;
        }
        (SpanData::Reset { cause, .. }, SpanData::Reset { cause: told, .. })
            if cause.bytes().is_none() =>
        {
            *cause = told;
        }
        _ => {}
    }
}

#[inline]
fn role(facts: &EventFacts<'_>, record: &Record<'_>, life: Life) -> Option<Role> {
    let data = EventData::of(record);
    Some(match data {
        EventData::PreReset { .. }
        | EventData::PageFaultStart { .. }
        | EventData::MigrateStart { .. }
        | EventData::QueueEviction { .. }
        | EventData::ProcessStart => Role::Start(Span {
            start: Some(facts.time),
            outcome: Outcome::Open,
            ..half(facts, record, (life, span_data(data)?))
        }),
        EventData::PostReset { .. }
        | EventData::PageFaultEnd { .. }
        | EventData::MigrateEnd { .. }
        | EventData::QueueRestore { rescheduled: false, .. }
        | EventData::ProcessEnd => {
            let span =
                Span { end: Some(facts.time), ..half(facts, record, (life, span_data(data)?)) };
            Role::End(End { key: Key::of(&span), span, outcome: outcome(data) })
        }
        EventData::QueueRestore { rescheduled: true, .. } => {
            Role::Reschedule(half(facts, record, (life, span_data(data)?)))
        }
        _ => return None,
    })
}

/// A span without start and end.
fn half(facts: &EventFacts<'_>, record: &Record<'_>, (life, data): (Life, SpanData)) -> Span {
    Span {
        gpu: facts.gpu,
        pid: facts.pid_in(record),
        life,
        tid: tid_of(record),
        process: facts.process_in(record).map_or(Comm::NONE, Comm::new),
        start: None,
        end: None,
        outcome: Outcome::StartMissing,
        doubtful: facts.doubtful,
        across_gap: false,
        nested: false,
        data,
    }
}

fn span_data(data: EventData<'_>) -> Option<SpanData> {
    Some(match data {
        EventData::PreReset { sequence, cause } | EventData::PostReset { sequence, cause } => {
            SpanData::Reset { sequence, cause: Cause::new(cause.unwrap_or_default()) }
        }
        EventData::PageFaultStart { address, node, access } => {
            SpanData::PageFault { address, node, access: Some(access) }
        }
        EventData::PageFaultEnd { address, node, .. } => {
            SpanData::PageFault { address, node, access: None }
        }
        EventData::MigrateStart { migration, .. } => SpanData::Migration { migration, error: None },
        EventData::MigrateEnd { migration, error } => SpanData::Migration { migration, error },
        EventData::QueueEviction { node, trigger } => {
            SpanData::QueueEviction { node, trigger: Some(trigger), reschedules: 0 }
        }
        EventData::QueueRestore { node, .. } => {
            SpanData::QueueEviction { node, trigger: None, reschedules: 0 }
        }
        EventData::ProcessStart | EventData::ProcessEnd => SpanData::Process,
        _ => return None,
    })
}

fn outcome(end: EventData<'_>) -> Outcome {
    match end {
        EventData::PageFaultEnd { outcome, .. } => outcome.into(),
        EventData::MigrateEnd { error: Some(error), .. } if error != 0 => Outcome::Failed,
        _ => Outcome::Completed,
    }
}
