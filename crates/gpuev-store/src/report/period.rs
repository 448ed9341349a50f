//! What happened since the last time that somebody asked: a summary each minute, and a report at the end.

use std::fmt::Write;
use std::time::Duration;

use gpuev::json::{Object, write_gpu, write_list};
use gpuev::time::{Anchor, Rfc3339};
use gpuev::{GpuId, Item};

use super::fold::{Options, Reporter};
use super::format::{Count, Length, Rate};
use super::json::types;
use super::summary::{Report, Source, TypeCounts, per_minute, type_name};
use crate::moment::Zone;

/// What there was of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuCounts {
    /// Which.
    pub gpu: GpuId,
    /// Events by type.
    pub types: TypeCounts,
    /// Gaps.
    pub gaps: u64,
    /// Events that are known to be lost.
    pub lost: u64,
}

/// What happened in a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// When it began, in nanoseconds since 1970.
    pub from_unix_ns: i64,
    /// When it ended.
    pub to_unix_ns: i64,
    /// By GPU, those of which anything was ever seen, in order of index and address.
    pub gpus: Vec<GpuCounts>,
    /// Events since the beginning of all.
    pub events_so_far: u64,
}

/// Cuts a stream into stretches of one length, and makes the report of all of it.
///
/// Time is `CLOCK_BOOTTIME` of the items, and what [`until`](Self::until) says: a replay is cut as what was live, and
/// setting the wall clock changes nothing.
#[derive(Debug)]
pub struct Periods {
    length_ns: u64,
    reporter: Reporter,
    /// As it was when the stretch began.
    before: Vec<GpuCounts>,
    /// When the source began, where that is known.
    begun_unix_ns: Option<i64>,
    boot_id: Option<String>,
    from: Option<Anchor>,
    /// The latest that [`until`](Self::until) said.
    now_unix_ns: Option<i64>,
}

impl Periods {
    /// Stretches of `length`, at least a millisecond.
    #[must_use]
    pub fn new(length: Duration, options: Options) -> Self {
        let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1_000_000);
        let reporter = Reporter::new(options);
        Self {
            length_ns,
            reporter,
            before: Vec::new(),
            begun_unix_ns: None,
            boot_id: None,
            from: None,
            now_unix_ns: None,
        }
    }

    /// What follows is from `source`. After another boot its clock is another.
    pub fn begin(&mut self, source: Source) {
        if self.boot_id.as_ref().zip(source.boot_id.as_ref()).is_some_and(|(one, two)| one != two) {
            self.from = None;
            self.begun_unix_ns = None;
        }
        self.boot_id = source.boot_id.clone().or(self.boot_id.take());
        self.begun_unix_ns = self.begun_unix_ns.or(source.from_unix_ns);
        self.reporter.begin(source);
    }

    /// Takes the next item. Gives the stretch that is over by then, if one is.
    pub fn push(&mut self, item: &Item) -> Option<Summary> {
        let (boot_ns, unix_ns) = match item {
            Item::Event(event) => (event.time.boot_ns, event.time.unix_ns),
            Item::Gap(gap) => (gap.to_boot_ns, gap.unix_ns),
        };
        let over = self.over_by(Anchor { boot_ns, unix_ns });
        self.reporter.push(item);
        over
    }

    /// It is `now`: gives the stretch that is over, if one is. Of several, in which nothing happened but in
    /// the first, that one.
    pub fn until(&mut self, now: Anchor) -> Option<Summary> {
        self.now_unix_ns = self.now_unix_ns.max(Some(now.unix_ns));
        self.over_by(now)
    }

    fn over_by(&mut self, now: Anchor) -> Option<Summary> {
        let from = self.begin_at(now);
        let passed = now.boot_ns.saturating_sub(from.boot_ns) / self.length_ns;
        if passed < 1 {
            return None;
        }
        let to = later(from, self.length_ns);
        self.from = Some(later(from, self.length_ns.saturating_mul(passed)));
        let now = self.reporter.gpus();
        let gpus = now.iter().map(|gpu| gpu.since(&self.before)).collect();
        let events_so_far = now.iter().map(|gpu| gpu.types.total()).sum();
        self.before = now;
        Some(Summary { from_unix_ns: from.unix_ns, to_unix_ns: to.unix_ns, gpus, events_so_far })
    }

    /// How long the stretch still takes at `now`.
    #[must_use]
    pub fn left(&self, now: Anchor) -> Duration {
        let from = self.from.map_or(now.boot_ns, |from| from.boot_ns);
        Duration::from_nanos(from.saturating_add(self.length_ns).saturating_sub(now.boot_ns))
    }

    /// When the stretch began; the first, when its source did.
    fn begin_at(&mut self, now: Anchor) -> Anchor {
        let begun = self.begun_unix_ns;
        *self.from.get_or_insert_with(|| {
            let before = begun.map_or(0, |begun| now.unix_ns.saturating_sub(begun));
            let boot_ns = now.boot_ns.saturating_sub(u64::try_from(before).unwrap_or(0));
            Anchor { boot_ns, unix_ns: now.unix_ns.min(begun.unwrap_or(now.unix_ns)) }
        })
    }

    /// What all came to.
    #[must_use]
    pub fn finish(mut self) -> Report {
        if let Some(now) = self.now_unix_ns {
            self.reporter.goes_on(now);
        }
        self.reporter.finish()
    }
}

/// The moment `ns` nanoseconds after another.
fn later(moment: Anchor, ns: u64) -> Anchor {
    Anchor {
        boot_ns: moment.boot_ns.saturating_add(ns),
        unix_ns: moment.unix_ns.saturating_add(i64::try_from(ns).unwrap_or(i64::MAX)),
    }
}

impl GpuCounts {
    /// What there is more than before.
    fn since(&self, before: &[Self]) -> Self {
        let Some(before) = before.iter().find(|one| super::costs::is_same(one.gpu, self.gpu))
        else {
            return *self;
        };
        Self {
            gpu: self.gpu,
            types: self.types.since(&before.types),
            gaps: self.gaps - before.gaps,
            lost: self.lost - before.lost,
        }
    }
}

impl Summary {
    /// How many events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.gpus.iter().map(|gpu| gpu.types.total()).sum()
    }

    /// Events a minute.
    #[must_use]
    pub fn events_per_minute(&self) -> Option<f64> {
        let length_ns = self.to_unix_ns.saturating_sub(self.from_unix_ns);
        per_minute(self.events(), u64::try_from(length_ns).unwrap_or(0))
    }

    fn missing(&self) -> (u64, u64) {
        let sum = |of: fn(&GpuCounts) -> u64| {
            self.gpus.iter().fold(0_u64, |all, gpu| all.saturating_add(of(gpu)))
        };
        (sum(|gpu| gpu.gaps), sum(|gpu| gpu.lost))
    }

    /// For a terminal: a line of all, and one of each GPU with events. In UTC.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_in(&Zone::utc())
    }

    /// The same, its time in `zone`.
    #[must_use]
    pub fn text_in(&self, zone: &Zone) -> String {
        let length = self.to_unix_ns.saturating_sub(self.from_unix_ns).unsigned_abs();
        let to = self.to_unix_ns;
        let (at, name) = (zone.second(to), zone.name_at(to));
        let mut out = format!("--- {at} {name}, {}: ", Length(length));
        let rate = self.events_per_minute().unwrap_or(0.0);
        let _infallible = write!(out, "{} events, {} a minute", Count(self.events()), Rate(rate));
        let (gaps, lost) = self.missing();
        if gaps > 0 {
            let _infallible =
                write!(out, "; incomplete: {} gaps, {} events lost", Count(gaps), Count(lost));
        }
        let _infallible = writeln!(out, "; {} so far", Count(self.events_so_far));
        for gpu in self.gpus.iter().filter(|gpu| gpu.types.total() > 0 || gpu.gaps > 0) {
            let _infallible = write!(out, "    GPU {:<2} {}", gpu.gpu.index, gpu.gpu.bdf);
            if gpu.gpu.partition > 0 {
                let _infallible = write!(out, "/{}", gpu.gpu.partition);
            }
            let _infallible = write!(out, "  {:>9}", Count(gpu.types.total()).to_string());
            let mut types: Vec<_> = gpu.types.iter().collect();
            types.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            for (event_type, count) in types {
                let _infallible = write!(out, "  {} {}", type_name(event_type), Count(count));
            }
            out.push('\n');
        }
        out
    }

    /// One JSON object (`docs/report-schema.md`) without a newline.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::new();
        let mut json = Object::begin(&mut out, "summary");
        json.text("from", Rfc3339(self.from_unix_ns));
        json.text("to", Rfc3339(self.to_unix_ns));
        json.number("events", self.events());
        json.optional("events_per_minute", self.events_per_minute());
        let (gaps, lost) = self.missing();
        json.number("gaps", gaps);
        json.number("lost", lost);
        json.number("events_so_far", self.events_so_far);
        json.value("gpus", |out| {
            write_list(out, &self.gpus, |json, gpu| {
                json.value("gpu", |out| write_gpu(out, gpu.gpu));
                json.number("events", gpu.types.total());
                types(json, "types", &gpu.types);
                json.number("gaps", gpu.gaps);
                json.number("lost", gpu.lost);
            });
        });
        json.end();
        out
    }
}
