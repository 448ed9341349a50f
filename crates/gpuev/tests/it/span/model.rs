//! The pairing against a slow and obvious one, on random streams.

use gpuev::span::{Limits, Outcome, Span, SpanData, SpanKind, Spans};
use gpuev::{Clock, EventData, Gap, GapCause, GpuId, Item, Life, Lives};
use proptest::prelude::*;

use super::{event, gap, gpu};

/// Keeps everything in two lists and looks through them from end to end.
struct Model {
    limits: Limits,
    open: Vec<(u64, Span)>,
    held: Vec<(u64, Outcome, Span)>,
    blind: Vec<(GpuId, u64)>,
    now: u64,
    /// Tested by themselves.
    lives: Lives,
}

fn identity(span: &Span) -> String {
    let data = match span.data {
        SpanData::Reset { sequence, .. } => format!("{sequence}"),
        SpanData::PageFault { address, node, .. } => format!("{address} {node}"),
        SpanData::Migration { migration: m, .. } => {
            format!("{} {} {} {}", m.address, m.size, m.from, m.to)
        }
        SpanData::QueueEviction { node, .. } => format!("{node}"),
        _ => String::new(),
    };
    format!("{:?} {} {:?} {data}", span.kind(), span.gpu.bdf, span.pid)
}

fn recurs(kind: SpanKind) -> bool {
    !matches!(kind, SpanKind::Reset | SpanKind::Process)
}

/// Whether both are evictions of the same key.
fn around(one: &Span, other: &Span) -> bool {
    other.kind() == SpanKind::QueueEviction && identity(one) == identity(other)
}

impl Model {
    fn timeout(&self, kind: SpanKind) -> u64 {
        match kind {
            SpanKind::Reset => self.limits.reset_ns,
            SpanKind::PageFault => self.limits.page_fault_ns,
            SpanKind::Migration => self.limits.migration_ns,
            SpanKind::QueueEviction => self.limits.queue_eviction_ns,
            _ => self.limits.process_ns,
        }
    }

    fn expire(&mut self, outcome: Outcome, which: impl Fn(u64, &Span) -> bool) -> Vec<Span> {
        let gone = self.open.extract_if(.., |(at, span)| which(*at, span));
        let gone: Vec<Span> = gone.map(|(_, span)| Span { outcome, ..span }).collect();
        // One after the other, the oldest first.
        let later =
            |place: usize, span: &Span| gone[place + 1..].iter().any(|one| around(one, span));
        let nested = |(place, span): (usize, &Span)| Span {
            nested: later(place, span) || self.has(span),
            ..*span
        };
        gone.iter().enumerate().map(nested).collect()
    }

    /// Whether an eviction is open around `span`, which is one.
    fn has(&self, span: &Span) -> bool {
        self.open.iter().any(|(_, other)| around(other, span))
    }

    fn advance(&mut self, now: u64) -> Vec<Span> {
        self.now = self.now.max(now);
        let (now, reorder) = (self.now, self.limits.reorder_ns);
        let stale = self.held.extract_if(.., |(since, _, _)| now - *since > reorder);
        let mut done: Vec<Span> = stale.map(|(_, _, span)| span).collect();
        for kind in SpanKind::ALL {
            let timeout = self.timeout(kind);
            done.extend(self.expire(Outcome::Timeout, |at, span| {
                span.kind() == kind && now >= at.saturating_add(timeout)
            }));
        }
        done
    }

    fn push(&mut self, item: &Item, half: Option<(Span, Option<Outcome>)>) -> Vec<Span> {
        let life = self.life(item);
        let half = half.map(|(span, outcome)| (Span { life, ..span }, outcome));
        match (item, half) {
            (Item::Gap(gap), _) => self.gap(gap),
            (Item::Event(event), None) => {
                let done = self.advance(event.time.received_boot_ns);
                if let EventData::QueueRestore { rescheduled: true, node } = event.data() {
                    let newest = self.open.iter_mut().rev().map(|(_, span)| span).find(|span| {
                        matches!(span.data, SpanData::QueueEviction { node: n, .. } if n == node)
                            && span.gpu == event.gpu
                            && span.pid == event.pid()
                    });
                    if let Some(SpanData::QueueEviction { reschedules, .. }) =
                        newest.map(|span| &mut span.data)
                    {
                        *reschedules += 1;
                    }
                }
                done
            }
            (Item::Event(event), Some((span, outcome))) => {
                let mut done = self.advance(event.time.received_boot_ns);
                done.extend(match outcome {
                    None => self.start(span),
                    Some(outcome) => self.end(span, outcome),
                });
                done
            }
        }
    }

    fn life(&mut self, item: &Item) -> Life {
        match item {
            Item::Event(event) => {
                let now = event.time.received_boot_ns;
                let life = |pid| self.lives.of(event.gpu, pid, event.event_type(), now);
                event.facts().owner_in(&event.record()).map(life).unwrap_or_default()
            }
            Item::Gap(gap) => {
                self.lives.gap(gap);
                Life::default()
            }
        }
    }

    fn process_over(&mut self, seen: Span) -> Vec<Span> {
        if seen.kind() != SpanKind::Process {
            return Vec::new();
        }
        self.expire(Outcome::ProcessEnded, |_, span| {
            recurs(span.kind()) && span.gpu == seen.gpu && span.pid == seen.pid
        })
    }

    fn start(&mut self, mut span: Span) -> Vec<Span> {
        let began = span.start.unwrap().boot_ns;
        let fits = |held: &&(u64, Outcome, Span)| {
            identity(&held.2) == identity(&span) && held.2.end.unwrap().boot_ns >= began
        };
        let earliest = self.held.iter().filter(fits).min_by_key(|h| h.2.end.unwrap().boot_ns);
        if let Some(&(since, outcome, end)) = earliest {
            let at = self.held.iter().position(|held| *held == (since, outcome, end)).unwrap();
            self.held.remove(at);
            let nested = self.has(&span);
            return vec![Span { nested, ..joined(span, end, outcome) }];
        }
        let mut done = self.process_over(span);
        let nesting = if recurs(span.kind()) { self.limits.nesting } else { 1 };
        let same = |other: &Span| identity(other) == identity(&span);
        if self.open.iter().filter(|(_, other)| same(other)).count() >= nesting as usize {
            let oldest = self.open.iter().position(|(_, other)| same(other)).unwrap();
            let oldest = self.open.remove(oldest).1;
            // The one that begins is open when the oldest is given up.
            let nested = self.has(&oldest) || around(&span, &oldest);
            done.push(Span { outcome: Outcome::Superseded, nested, ..oldest });
        }
        let kind = |other: &Span| other.kind() == span.kind();
        if self.open.iter().filter(|(_, other)| kind(other)).count() >= self.limits.open_per_kind {
            let oldest = self.open.iter().position(|(_, other)| kind(other)).unwrap();
            let oldest = self.open.remove(oldest).1;
            let nested = self.has(&oldest) || around(&span, &oldest);
            done.push(Span { outcome: Outcome::Capacity, nested, ..oldest });
        }
        span.across_gap = self.blind.iter().any(|(gpu, until)| *gpu == span.gpu && began <= *until);
        self.open.push((self.now, span));
        done
    }

    fn end(&mut self, end: Span, outcome: Outcome) -> Vec<Span> {
        let mut done = self.process_over(end);
        let at = end.end.unwrap();
        let newest = self.open.iter().rposition(|(_, start)| {
            identity(start) == identity(&end) && start.start.unwrap().boot_ns <= at.boot_ns
        });
        match newest {
            Some(index) => {
                let joined = joined(self.open.remove(index).1, end, outcome);
                done.push(Span { nested: self.has(&joined), ..joined });
            }
            None if at.clock == Clock::Driver => self.held.push((self.now, outcome, end)),
            None => done.push(end),
        }
        done
    }

    fn gap(&mut self, gap: &Gap) -> Vec<Span> {
        let mut done = self.advance(gap.to_boot_ns);
        let here = self.held.extract_if(.., |(_, _, span)| span.gpu == gap.gpu);
        done.extend(here.map(|(_, _, span)| span));
        if gap.cause == GapCause::GpuRemoved {
            done.extend(self.expire(Outcome::GpuRemoved, |_, span| span.gpu == gap.gpu));
        } else {
            let covered =
                |span: &Span| span.gpu == gap.gpu && span.start.unwrap().boot_ns <= gap.to_boot_ns;
            for (_, span) in self.open.iter_mut().filter(|(_, span)| !recurs(span.kind())) {
                span.across_gap |= covered(span);
            }
            done.extend(self.expire(Outcome::Gap, |_, span| recurs(span.kind()) && covered(span)));
        }
        self.blind.push((gap.gpu, gap.to_boot_ns));
        done
    }

    fn finish(mut self) -> Vec<Span> {
        let open = self.expire(Outcome::Open, |_, _| true);
        self.held.into_iter().map(|(_, _, span)| span).chain(open).collect()
    }
}

fn joined(mut span: Span, end: Span, outcome: Outcome) -> Span {
    span.end = end.end;
    span.outcome = outcome;
    span.across_gap |= end.life.is_shared;
    if span.process.bytes().is_none() {
        span.process = end.process;
    }
    if let (SpanData::Migration { error, .. }, SpanData::Migration { error: told, .. }) =
        (&mut span.data, end.data)
    {
        *error = told;
    }
    span
}

/// The half of a span that an item is, by the pairing itself with nothing else in it: what an event says is
/// tested elsewhere.
fn half_of(item: &Item) -> Option<(Span, Option<Outcome>)> {
    let mut alone = Spans::default();
    let mut spans = Vec::new();
    alone.push(item, |span| spans.push(span));
    alone.finish(|span| spans.push(span));
    let span = spans.pop()?;
    let Item::Event(event) = item else { return None };
    let outcome = match event.data() {
        _ if span.start.is_some() => None,
        EventData::PageFaultEnd { outcome, .. } => Some(outcome.into()),
        EventData::MigrateEnd { error: Some(error), .. } if error != 0 => Some(Outcome::Failed),
        _ => Some(Outcome::Completed),
    };
    Some((span, outcome))
}

/// One step of a stream: who, what, how long after the step before, and how old the line is when read.
#[derive(Debug, Clone)]
struct Step {
    gpu: u32,
    what: u8,
    pid: u32,
    page: u64,
    after: u64,
    age: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let after = prop_oneof![4 => 0..4_u64, 1 => 0..200_u64];
    let step = (0..2_u32, 0..16_u8, 1..3_u32, 1..3_u64, after, 0..12_u64)
        .prop_map(|(gpu, what, pid, page, after, age)| Step { gpu, what, pid, page, after, age });
    prop::collection::vec(step, 0..120)
}

impl Step {
    fn item(&self, now: u64) -> Item {
        let Self { gpu: index, what, pid, page, age, .. } = *self;
        let gpu = gpu(index);
        let ns = now.saturating_sub(age);
        let line = match what {
            0 | 1 => format!("7 {ns} -{pid} @{page:x}(1b11) W"),
            2 => format!("8 {ns} -{pid} @{page:x}(1b11) M"),
            3 => format!("8 {ns} -{pid} @{page:x}(1b11) U"),
            4 => format!("5 {ns} -{pid} @{page:x}(200) 0->1b11 0:0 1"),
            5 => format!("6 {ns} -{pid} @{page:x}(200) 0->1b11 1 0"),
            6 => format!("6 {ns} -{pid} @{page:x}(200) 0->1b11 1 -12"),
            7 => format!("9 {ns} -{pid} 1b11 1"),
            8 => format!("a {ns} -{pid} 1b11 0"),
            9 => format!("a {ns} -{pid} 1b11 R"),
            10 => format!("c {pid:x} job"),
            11 => format!("d {pid:x} job"),
            12 => format!("3 {page:x} job hang"),
            13 => format!("4 {page:x} "),
            14 if page == 1 => return gap_item(gpu, GapCause::DriverFifoFull, now, age),
            14 => return gap_item(gpu, GapCause::GpuRemoved, now, age),
            _ => format!("2 {page:x}:1"),
        };
        event(gpu, &line, now)
    }
}

fn gap_item(gpu: GpuId, cause: GapCause, now: u64, age: u64) -> Item {
    gap(gpu, cause, now.saturating_sub(20), now.saturating_sub(age / 2))
}

/// The order among spans that one item completes is not part of the promise.
fn sorted(mut spans: Vec<Span>) -> Vec<String> {
    let mut told: Vec<String> = spans.drain(..).map(|span| format!("{span:?}")).collect();
    told.sort();
    told
}

fn small_limits() -> Limits {
    let mut limits = Limits::default();
    limits.reset_ns = 300;
    limits.page_fault_ns = 100;
    limits.migration_ns = 150;
    limits.queue_eviction_ns = 200;
    limits.process_ns = 1_000;
    limits.reorder_ns = 10;
    limits.open_per_kind = 4;
    limits.nesting = 2;
    limits
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pairs_as_the_obvious_one_does(steps in steps()) {
        let limits = small_limits();
        let mut spans = Spans::new(limits);
        let mut model =
            Model {
                limits,
                open: Vec::new(),
                held: Vec::new(),
                blind: Vec::new(),
                now: 0,
                lives: Lives::default(),
            };
        let mut now = 1_000_000;
        for step in &steps {
            now += step.after;
            let item = step.item(now);
            let mut done = Vec::new();
            spans.push(&item, |span| done.push(span));
            prop_assert_eq!(sorted(done), sorted(model.push(&item, half_of(&item))), "{:?}", item);
            prop_assert_eq!(spans.open().count(), model.open.len());
        }
        let mut done = Vec::new();
        spans.finish(|span| done.push(span));
        prop_assert_eq!(sorted(done), sorted(model.finish()));
    }

    /// What no gap, timeout or limit touches is paired once, and only once, whatever the order.
    #[test]
    fn no_start_and_no_end_is_lost(steps in steps()) {
        let mut spans = Spans::default();
        let (mut starts, mut ends, mut now) = (0, 0, 1_000_000);
        let mut done = Vec::new();
        for step in &steps {
            now += step.after;
            let item = step.item(now);
            match half_of(&item) {
                Some((_, None)) => starts += 1,
                Some((_, Some(_))) => ends += 1,
                None => {}
            }
            spans.push(&item, |span| done.push(span));
        }
        spans.finish(|span| done.push(span));
        prop_assert_eq!(done.iter().filter(|span| span.start.is_some()).count(), starts);
        prop_assert_eq!(done.iter().filter(|span| span.end.is_some()).count(), ends);
        for span in &done {
            prop_assert_eq!(span.outcome.is_paired(), span.duration_ns().is_some());
            if let (Some(start), Some(end)) = (span.start, span.end) {
                prop_assert!(start.boot_ns <= end.boot_ns);
            }
        }
    }
}
