//! What people are told, the same for terminal and page: sections of tables.

use gpuev::message::Printable;
use gpuev::span::SpanKind;
use gpuev::{EventType, Filter, GpuId, Severity};

use super::format::{AtLeast, Bytes, Count, Length, Named, Rate, Share, Timed, or_dash};
use super::summary::{GpuSummary, Ranking, Report, SourceEnd, per_minute, type_name};
use crate::moment::Zone;

/// A heading, remarks, and a table.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) notes: Vec<String>,
    pub(super) columns: Vec<&'static str>,
    /// Columns that go first where there is little room, the first of all first.
    pub(super) spare: &'static [&'static str],
    pub(super) rows: Vec<Vec<Cell>>,
}

/// What stands in a table.
#[derive(Debug)]
pub(super) enum Cell {
    /// Words, to the left.
    Text(String),
    /// A number with its unit, to the right.
    Number(String),
    /// A part of a whole.
    Share(Share),
    /// When, in nanoseconds since 1970.
    Moment(Option<i64>),
    /// Counts over time.
    Spark(Vec<u64>),
}

#[allow(clippy::needless_pass_by_value)] // most are made for this
fn text(words: impl ToString) -> Cell {
    Cell::Text(words.to_string())
}

#[allow(clippy::needless_pass_by_value)] // likewise
fn number(number: impl ToString) -> Cell {
    Cell::Number(number.to_string())
}

fn moment(unix_ns: i64) -> Cell {
    Cell::Moment(Some(unix_ns))
}

fn count(of: u64) -> Cell {
    number(Count(of))
}

/// Events of a type, some of which may not be wanted.
fn events_of(report: &Report, event_type: EventType, count: u64) -> Cell {
    number(AtLeast { count, is_all: !report.left_out.some_of(Some(event_type)) })
}

impl Section {
    fn new<const N: usize>(title: &'static str, columns: [&'static str; N]) -> Self {
        Self { title, notes: Vec::new(), columns: columns.to_vec(), spare: &[], rows: Vec::new() }
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn spare(mut self, columns: &'static [&'static str]) -> Self {
        self.spare = columns;
        self
    }

    fn rows(mut self, rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// Says what a list leaves out.
    fn of<T>(self, ranking: &Ranking<T>, what: &str) -> Self {
        let section = match ranking.more {
            0 => self,
            more => self.note(format!("{} more {what} are not shown.", Count(more))),
        };
        match ranking.missing_at_most {
            0 => section,
            missing => section.note(format!(
                "There were too many {what} to follow each: a count may lack up to {}.",
                Count(missing)
            )),
        }
    }
}

/// In two lines: when, and how much.
pub(super) fn headline(report: &Report, zone: &Zone) -> (String, String) {
    let when = match (report.first_unix_ns, report.last_unix_ns) {
        (Some(first), Some(last)) => {
            let (from, to) = (zone.second(first), zone.second(last));
            format!("{from} to {to} {}", zone.name_at(last))
        }
        _ => "nothing happened".to_owned(),
    };
    let mut much = format!("{} events", Count(report.events));
    if report.observed_ns > 0 {
        much += &format!(" in {} watched", Length(report.observed_ns));
    }
    if let Some(rate) = report.events_per_minute() {
        much += &format!(", {} a minute", Rate(rate));
    }
    if let Some(peak) = report.peak_minute {
        let at = zone.second(peak.unix_ns);
        let at = at.get(..16).unwrap_or(&at);
        much += &format!(" (most in the minute of {at}: {})", Count(peak.events));
    }
    (when, much)
}

/// Why no number is to be taken for complete, if so.
pub(super) fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    if !report.is_complete() {
        let gaps: u64 = report.gaps.iter().map(|gap| gap.gaps).sum();
        let unknown: u64 = report.gaps.iter().map(|gap| gap.of_unknown_size).sum();
        let mut parts = Vec::new();
        if report.lost() > 0 {
            parts.push(format!("{} events lost", Count(report.lost())));
        }
        if unknown > 0 {
            parts.push(format!("{} of unknown size", Count(unknown)));
        }
        if gaps > 0 {
            warnings.push(format!(
                "Incomplete: {} gaps ({}). All counts and times below are lower bounds, but for those with ≤.",
                Count(gaps),
                parts.join(", ")
            ));
        }
    }
    warnings.extend(left_out(report));
    if report.not_kept {
        let text = "The history keeps nothing any more of a part of this time. That part counts as not watched.";
        warnings.push(text.to_owned());
    }
    if report.log_missing {
        warnings.push(
            "The last recorder was killed, and its log (the file whose name ends with -wal) is not beside the \
             history. The last events may be missing."
                .to_owned(),
        );
    }
    if report.overlapping {
        let text = "Recorders watched one machine at the same time (see Sources). What several of them recorded is \
            counted as often, and so is the time.";
        warnings.push(text.to_owned());
    }
    for why in &report.unreadable {
        warnings.push(format!("A file is left out: {}", Printable(why.as_bytes())));
    }
    if report.doubtful > 0 {
        warnings.push(format!(
            "{} events are doubtful: a task name may have forged them.",
            Count(report.doubtful)
        ));
    }
    warnings
}

/// What is not counted because a recorder or the question left it out.
fn left_out(report: &Report) -> Option<String> {
    let by = match (report.left_out.by_recorder, report.left_out.by_query) {
        (false, false) => return None,
        (true, false) => "The recorder left out events (see Sources)",
        (false, true) => "This report is asked to leave out events",
        (true, true) => {
            "The recorder left out events (see Sources), and so does this report as asked"
        }
    };
    let all = EventType::ALL.into_iter().filter(|one| report.left_out.some_of(Some(*one)));
    let types: Vec<&str> = all.map(EventType::name).collect();
    let text = match types.len() {
        0 => format!("{by}."),
        _ => {
            format!("{by}: some or all {}. They are not counted, and - is not 0.", types.join(", "))
        }
    };
    Some(text)
}

/// All sections that have something to tell.
pub(super) fn sections(report: &Report) -> Vec<Section> {
    let all = [
        sources(report),
        types(report),
        gpus(report),
        spans(report),
        resets(report),
        reset_causes(report),
        throttling(report),
        memory_faults(report),
        processes(report),
        evictions(report),
        migrations(report),
        thrashing(report),
        fault_hot_spots(report),
        gaps(report),
    ];
    all.into_iter().filter(|section| !section.rows.is_empty()).collect()
}

fn sources(report: &Report) -> Section {
    let rows = report.sources.iter().map(|source| {
        let escaped = |text: &Option<String>| {
            or_dash(text.as_ref().map(|text| Printable(text.as_bytes()).to_string()))
        };
        vec![
            text(Printable(source.name.as_bytes())),
            text(escaped(&source.host)),
            text(escaped(&source.kernel)),
            Cell::Moment(source.from_unix_ns),
            Cell::Moment(source.to_unix_ns),
            text(match source.end {
                SourceEnd::Live => "goes on",
                SourceEnd::Closed => "ended",
                SourceEnd::Killed => "killed",
                SourceEnd::Unknown => "-",
            }),
            text(escaped(&source.scope)),
            text(kept(&source.filter)),
        ]
    });
    let columns = ["SOURCE", "HOST", "KERNEL", "FROM", "TO", "END", "EVENTS OF", "ONLY"];
    let section = Section::new("Sources", columns)
        .spare(&["KERNEL", "EVENTS OF", "ONLY", "HOST", "TO"])
        .rows(rows);
    let more = report.source_count - report.sources.len() as u64;
    if more == 0 { section } else { section.note(format!("{} more are not shown.", Count(more))) }
}

/// What a recorder kept, where that is not all.
fn kept(filter: &Filter) -> String {
    let parts = filter.parts();
    let mut kept = Vec::new();
    if let Some(types) = parts.types {
        kept.extend(types.iter().map(|one| one.name().to_owned()));
        kept.extend(parts.unknown.then(|| "UNKNOWN".to_owned()));
    }
    kept.extend(parts.severity.map(|least| format!("severity {}", least.name())));
    kept.extend(parts.pids.map(|pids| {
        let pids: Vec<String> = pids.iter().take(8).map(u32::to_string).collect();
        format!("pid {}", pids.join(" "))
    }));
    kept.extend(parts.some_gpus.then(|| "some GPUs".to_owned()));
    if kept.is_empty() { "-".to_owned() } else { kept.join(", ") }
}

fn types(report: &Report) -> Section {
    let rows = report.types.iter().map(|(event_type, events)| {
        vec![
            text(type_name(event_type)),
            count(events),
            Cell::Share(Share::of(events, report.events)),
            number(or_dash(per_minute(events, report.observed_ns).map(Rate))),
            Cell::Spark(report.timeline.of_type(event_type).to_vec()),
        ]
    });
    Section::new("Events", ["TYPE", "EVENTS", "SHARE", "A MINUTE", "OVER TIME"])
        .spare(&["OVER TIME", "SHARE"])
        .rows(rows)
}

/// `3 0000:c1:00.0`, with the partition where it is not the first.
fn gpu_name(gpu: GpuId) -> String {
    match gpu.partition {
        0 => format!("{} {}", gpu.index, gpu.bdf),
        partition => format!("{} {}/{partition}", gpu.index, gpu.bdf),
    }
}

fn gpus(report: &Report) -> Section {
    let rows = report.gpus.iter().enumerate().map(|(place, gpu)| {
        let events = gpu.types.total();
        let faults = gpu.types.of(Some(EventType::VmFault));
        let down = Timed { ns: gpu.down_ns, timed: gpu.resets_timed, all: gpu.resets };
        vec![
            text(gpu_of_host(gpu)),
            number(or_dash(Some(gpu.watched_ns).filter(|ns| *ns > 0).map(Length))),
            count(events),
            number(or_dash(per_minute(events, gpu.watched_ns).map(Rate))),
            events_of(report, EventType::VmFault, faults),
            events_of(report, EventType::GpuPreReset, gpu.resets),
            number(down),
            throttled(report, gpu),
            count(gpu.throttle_interrupts),
            count(gpu.gaps),
            Cell::Spark(report.timeline.of_gpu(place).to_vec()),
        ]
    });
    let columns = [
        "GPU",
        "WATCHED",
        "EVENTS",
        "A MINUTE",
        "MEMORY FAULTS",
        "RESETS",
        "DOWN",
        "THROTTLED",
        "INTERRUPTS",
        "GAPS",
        "OVER TIME",
    ];
    let section = Section::new("GPUs", columns)
        .spare(&["OVER TIME", "INTERRUPTS", "A MINUTE", "DOWN", "THROTTLED"])
        .rows(rows);
    if report.throttling.is_empty() { section } else { section.note(THROTTLED) }
}

fn gpu_of_host(gpu: &GpuSummary) -> String {
    match &gpu.host {
        Some(host) => format!("{} {}", Printable(host.as_bytes()), gpu_name(gpu.gpu)),
        None => gpu_name(gpu.gpu),
    }
}

/// Of the time that the GPU was watched; a dash where nobody would have seen it.
fn throttled(report: &Report, gpu: &GpuSummary) -> Cell {
    let unseen = report.left_out.some_of(Some(EventType::ThermalThrottle)) && gpu.throttled_ns == 0;
    let whole = if unseen { 0 } else { gpu.watched_ns };
    Cell::Share(Share::at_most(gpu.throttled_ns, whole))
}

const THROTTLED: &str = "Throttled: at most so long; the driver tells of it once a minute, and each event \
    stands for the minute from it on.";

fn spans(report: &Report) -> Section {
    let told = report.spans.iter().filter(|span| !span.outcomes.is_empty());
    let rows = told.clone().map(|span| {
        let durations = &span.durations;
        let length = |ns: Option<u64>| number(or_dash(ns.map(Length)));
        let others = span.outcomes.iter().filter(|(outcome, _)| !outcome.is_paired());
        let others: Vec<_> = others
            .map(|(outcome, count)| format!("{} {}", Count(*count), outcome.name()))
            .collect();
        vec![
            text(span_name(span.kind)),
            count(durations.count()),
            length(durations.quantile_ns(0.5)),
            length(durations.quantile_ns(0.9)),
            length(durations.quantile_ns(0.99)),
            length(durations.max_ns()),
            number(Length(durations.total_ns())),
            text(if others.is_empty() { "-".to_owned() } else { others.join(", ") }),
        ]
    });
    let columns =
        ["WHAT", "COUNT", "P50", "P90", "P99", "MAX", "TOTAL", "WITHOUT END OR BEGINNING"];
    let section = Section::new("How long things took", columns)
        .spare(&["P90", "P50", "WITHOUT END OR BEGINNING"])
        .rows(rows);
    let nested = told.clone().any(|span| span.kind == SpanKind::QueueEviction);
    let section = match nested {
        true => section.note("Queue evictions nest: the times are those of the outermost."),
        false => section,
    };
    let halves: Vec<&str> =
        told.filter(|span| span.unpaired_by_filter).map(|span| span_name(span.kind)).collect();
    match halves.is_empty() {
        true => section,
        false => section.note(format!(
            "Not paired where beginnings or ends were left out: {}.",
            halves.join(", ")
        )),
    }
}

fn span_name(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Reset => "reset",
        SpanKind::PageFault => "page fault",
        SpanKind::Migration => "migration",
        SpanKind::QueueEviction => "queue eviction",
        SpanKind::Process => "process",
        other => other.name(),
    }
}

fn resets(report: &Report) -> Section {
    let rows = report.resets.iter().map(|reset| {
        let cause = reset.cause.bytes().map(|cause| Printable(cause).to_string());
        vec![
            moment(reset.unix_ns),
            text(gpu_name(reset.gpu)),
            number(reset.sequence),
            number(guessed(reset.down_ns, reset.across_gap)),
            text(or_dash(cause)),
            text(reset.outcome.name()),
        ]
    });
    let section = Section::new("Resets", ["BEGAN", "GPU", "NUMBER", "DOWN", "CAUSE", "OUTCOME"]);
    let all: u64 = report.reset_causes.iter().map(|cause| cause.resets).sum();
    let section = section.spare(&["NUMBER", "CAUSE"]).rows(rows);
    let section = match report.resets.iter().any(|one| one.across_gap && one.down_ns.is_some()) {
        true => section.note(GUESSED),
        false => section,
    };
    if all > report.resets.len() as u64 {
        return section.note(format!("The last of {}.", Count(all)));
    }
    section
}

/// A length of which one end may be that of something else.
fn guessed(ns: Option<u64>, is_guessed: bool) -> String {
    match ns {
        Some(ns) if is_guessed => format!("{} ?", Length(ns)),
        ns => or_dash(ns.map(Length)),
    }
}

/// What a question mark behind a length says.
const GUESSED: &str =
    "? Events may be missing in between: beginning and end may not be of one another.";

fn reset_causes(report: &Report) -> Section {
    let rows = report.reset_causes.iter().map(|cause| {
        vec![
            text(cause.cause.unwrap_or("not told")),
            count(cause.resets),
            number(Timed { ns: cause.down_ns, timed: cause.timed, all: cause.resets }),
        ]
    });
    Section::new("Resets by cause", ["CAUSE", "RESETS", "DOWN"]).rows(rows)
}

fn throttling(report: &Report) -> Section {
    let rows = report.throttling.iter().map(|one| {
        let whole = one.watched_ns;
        vec![
            text(one.reason.unwrap_or("without a name")),
            count(one.events),
            count(one.gpus),
            number(Length(one.throttled_ns)),
            Cell::Share(Share::at_most(one.throttled_ns, whole)),
        ]
    });
    Section::new("Throttling by reason", ["REASON", "EVENTS", "GPUS", "THROTTLED", "OF THEIR TIME"])
        .spare(&["GPUS"])
        .rows(rows)
        .note(THROTTLED)
}

fn memory_faults(report: &Report) -> Section {
    let ranking = &report.memory_faults;
    let rows = ranking.entries.iter().map(|one| {
        vec![
            text(Named(one.who, one.name)),
            count(one.faults),
            moment(one.first_unix_ns),
            moment(one.last_unix_ns),
        ]
    });
    Section::new("Memory faults", ["PROCESS", "FAULTS", "FIRST", "LAST"])
        .rows(rows)
        .of(ranking, "processes")
}

fn processes(report: &Report) -> Section {
    let ranking = &report.processes;
    let rows = ranking.entries.iter().map(|one| {
        let of = |event_type| events_of(report, event_type, one.types.of(Some(event_type)));
        let lived = match (one.lived_ns, one.open) {
            (Some(ns), _) => guessed(Some(ns), one.lived_guessed),
            (None, true) => "not ended".to_owned(),
            (None, false) => "-".to_owned(),
        };
        vec![
            text(Named(one.who, one.name)),
            count(one.types.total()),
            of(EventType::PageFaultStart),
            of(EventType::MigrateStart),
            of(EventType::QueueEviction),
            number(Length(one.evicted_ns)),
            of(EventType::VmFault),
            number(lived),
            moment(one.first_unix_ns),
            moment(one.last_unix_ns),
        ]
    });
    let columns = [
        "PROCESS",
        "EVENTS",
        "PAGE FAULTS",
        "MIGRATIONS",
        "EVICTIONS",
        "EVICTED",
        "MEMORY FAULTS",
        "LIVED",
        "FIRST",
        "LAST",
    ];
    let section = Section::new("Processes", columns)
        .spare(&["MIGRATIONS", "PAGE FAULTS", "LAST", "EVICTED", "EVICTIONS", "LIVED"])
        .rows(rows)
        .of(ranking, "processes");
    let several = "One of several: two processes or more had this number at once, and nobody knows whose it was.";
    let section = match ranking.entries.iter().any(|one| one.who.life.is_shared) {
        true => section.note(several),
        false => section,
    };
    match ranking.entries.iter().any(|one| one.lived_guessed && one.lived_ns.is_some()) {
        true => section.note(GUESSED),
        false => section,
    }
}

fn evictions(report: &Report) -> Section {
    let rows = report.evictions.iter().map(|one| {
        let length = |ns: Option<u64>| number(or_dash(ns.map(Length)));
        vec![
            text(one.trigger.unwrap_or("without a name")),
            count(one.evictions),
            count(one.reschedules),
            length(one.durations.quantile_ns(0.5)),
            length(one.durations.quantile_ns(0.99)),
            length(one.durations.max_ns()),
            number(Length(one.durations.total_ns())),
        ]
    });
    let columns = ["TRIGGER", "EVICTIONS", "RESCHEDULED", "P50", "P99", "MAX", "TOTAL"];
    Section::new("Queue evictions by trigger", columns).spare(&["RESCHEDULED", "P50"]).rows(rows)
}

fn migrations(report: &Report) -> Section {
    let rows = report.migrations.iter().map(|one| {
        vec![
            text(one.direction.name().replace('_', " ")),
            text(one.trigger.unwrap_or("without a name")),
            count(one.moved),
            number(Bytes(one.bytes)),
            count(one.failed),
        ]
    });
    let columns = ["DIRECTION", "TRIGGER", "MIGRATIONS", "MOVED", "FAILED"];
    Section::new("Memory moved", columns).rows(rows)
}

fn thrashing(report: &Report) -> Section {
    let ranking = &report.thrashing;
    let rows = ranking.entries.iter().map(|one| {
        let triggers = one
            .triggers
            .iter()
            .map(|(name, count)| format!("{} {}", Count(*count), name.unwrap_or("without a name")));
        vec![
            text(format!("{:#x}", one.address)),
            number(Bytes(one.size)),
            text(Named(one.who, one.name)),
            count(one.bounces),
            count(one.moves),
            number(Bytes(one.bytes)),
            text(triggers.collect::<Vec<_>>().join(", ")),
        ]
    });
    let columns = ["ADDRESS", "SIZE", "PROCESS", "TURNS", "MOVES", "MOVED", "ASKED FOR BY"];
    Section::new("Ranges that went back and forth", columns)
        .spare(&["ASKED FOR BY", "SIZE", "MOVES"])
        .rows(rows)
        .of(ranking, "ranges")
}

fn fault_hot_spots(report: &Report) -> Section {
    let ranking = &report.fault_hot_spots;
    let rows = ranking.entries.iter().map(|one| {
        vec![
            text(format!("{:#x}", one.address)),
            text(Named(one.who, one.name)),
            count(one.faults),
            count(one.writes),
            count(one.migrated),
            number(Length(one.total_ns)),
        ]
    });
    let columns = ["ADDRESS", "PROCESS", "FAULTS", "WRITES", "MIGRATED", "TOTAL"];
    Section::new("Page faults by range of 2 MiB", columns)
        .spare(&["MIGRATED", "WRITES"])
        .rows(rows)
        .of(ranking, "ranges")
}

fn gaps(report: &Report) -> Section {
    let rows = report.gaps.iter().map(|one| {
        vec![
            text(one.cause.name().replace('_', " ")),
            count(one.gaps),
            count(one.lost),
            count(one.of_unknown_size),
            number(Length(one.total_ns)),
            moment(one.first_unix_ns),
            moment(one.last_unix_ns),
        ]
    });
    let columns = ["CAUSE", "GAPS", "LOST", "UNKNOWN SIZE", "TIME", "FIRST", "LAST"];
    Section::new("Gaps: what is missing", columns).spare(&["LAST", "UNKNOWN SIZE"]).rows(rows)
}

/// Severity of a type, for its colour: that of its worst event.
pub(super) fn severity(event_type: Option<EventType>) -> Severity {
    match event_type {
        Some(EventType::VmFault | EventType::GpuPreReset) => Severity::Critical,
        Some(EventType::ThermalThrottle | EventType::GpuPostReset) => Severity::Warning,
        _ => Severity::Info,
    }
}
