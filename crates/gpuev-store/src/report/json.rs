//! A report as one JSON object, `docs/report-schema.md`.

use gpuev::json::{Object, write_gpu, write_list};
use gpuev::message::Escaped;
use gpuev::time::Rfc3339;
use gpuev::{Comm, EventType};

use crate::filter_text::FilterText;

use super::duration::Durations;
use super::summary::{
    CauseSummary, EvictionSummary, FaultHotSpot, GapSummary, GpuSummary, MemoryFaults,
    MigrationSummary, ProcessSummary, Ranking, Report, ResetSummary, Source, SpanSummary,
    ThrashingRange, ThrottleSummary, TypeCounts, Who, per_minute, type_name,
};

/// Appends `report`.
pub(super) fn write(out: &mut String, report: &Report) {
    let mut json = Object::begin(out, "report");
    list(&mut json, "sources", &report.sources, write_source);
    json.number("source_count", report.source_count);
    time(&mut json, "first_time", report.first_unix_ns);
    time(&mut json, "last_time", report.last_unix_ns);
    json.number("observed_ns", report.observed_ns);
    json.raw("complete", boolean(report.is_complete()));
    json.raw("not_kept", boolean(report.not_kept));
    json.raw("log_missing", boolean(report.log_missing));
    if report.overlapping {
        json.raw("overlapping", "true");
    }
    if !report.unreadable.is_empty() {
        let escaped = report.unreadable.iter().map(|why| Escaped(why.as_bytes()).to_string());
        json.raw("unreadable", &serde_json::json!(escaped.collect::<Vec<_>>()).to_string());
    }
    let left_out = EventType::ALL.into_iter().map(Some).chain([None]);
    let left_out = left_out.filter(|one| report.left_out.some_of(*one)).map(type_name);
    json.words("left_out", left_out);
    json.number("events", report.events);
    json.number("doubtful", report.doubtful);
    json.number("lost", report.lost());
    json.optional("events_per_minute", report.events_per_minute());
    json.value("peak_minute", |out| match report.peak_minute {
        None => out.push_str("null"),
        Some(peak) => {
            let mut json = Object::nested(out);
            json.text("time", Rfc3339(peak.unix_ns));
            json.number("events", peak.events);
            json.end();
        }
    });
    types(&mut json, "types", &report.types);
    let mut place = 0;
    list(&mut json, "gpus", &report.gpus, |json, gpu| {
        write_gpu_summary(json, gpu, report.timeline.of_gpu(place));
        place += 1;
    });
    json.value("timeline", |out| write_timeline(out, report));
    list(&mut json, "spans", &report.spans, write_span);
    list(&mut json, "resets", &report.resets, write_reset);
    list(&mut json, "reset_causes", &report.reset_causes, write_cause);
    list(&mut json, "throttling", &report.throttling, write_throttling);
    ranking(&mut json, "memory_faults", &report.memory_faults, write_memory_faults);
    ranking(&mut json, "processes", &report.processes, write_process);
    list(&mut json, "evictions", &report.evictions, write_eviction);
    list(&mut json, "migrations", &report.migrations, write_migration);
    ranking(&mut json, "thrashing", &report.thrashing, write_range);
    ranking(&mut json, "fault_hot_spots", &report.fault_hot_spots, write_hot_spot);
    list(&mut json, "gaps", &report.gaps, write_gap);
    json.end();
}

fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn list<T>(
    json: &mut Object<'_>,
    key: &str,
    entries: &[T],
    write: impl FnMut(&mut Object<'_>, &T),
) {
    json.value(key, |out| write_list(out, entries, write));
}

fn ranking<T>(
    json: &mut Object<'_>,
    key: &str,
    ranking: &Ranking<T>,
    write: impl FnMut(&mut Object<'_>, &T),
) {
    json.value(key, |out| {
        let mut json = Object::nested(out);
        list(&mut json, "entries", &ranking.entries, write);
        json.number("more", ranking.more);
        json.number("missing_at_most", ranking.missing_at_most);
        json.end();
    });
}

fn numbers(json: &mut Object<'_>, key: &str, numbers: &[u64]) {
    json.value(key, |out| {
        out.push('[');
        for (index, number) in numbers.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(&number.to_string());
        }
        out.push(']');
    });
}

fn time(json: &mut Object<'_>, key: &str, unix_ns: Option<i64>) {
    match unix_ns {
        Some(unix_ns) => json.text(key, Rfc3339(unix_ns)),
        None => json.null(key),
    }
}

fn name(json: &mut Object<'_>, key: &str, name: Option<&'static str>) {
    match name {
        Some(name) => json.word(key, name),
        None => json.null(key),
    }
}

fn bytes(json: &mut Object<'_>, key: &str, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => json.text(key, Escaped(bytes)),
        None => json.null(key),
    }
}

fn process(json: &mut Object<'_>, who: Who, name: Comm) {
    json.number("boot", who.boot);
    json.number("pid", who.pid);
    json.number("life", who.life.number);
    if who.life.is_shared {
        json.raw("several", "true");
    }
    bytes(json, "process", name.bytes());
}

pub(super) fn types(json: &mut Object<'_>, key: &str, counts: &TypeCounts) {
    json.value(key, |out| {
        let mut json = Object::nested(out);
        counts.iter().for_each(|(one, count)| json.number(type_name(one), count));
        json.end();
    });
}

fn write_source(json: &mut Object<'_>, source: &Source) {
    let text = |text: &Option<String>| text.clone().map(String::into_bytes);
    bytes(json, "name", Some(source.name.as_bytes()));
    bytes(json, "host", text(&source.host).as_deref());
    bytes(json, "kernel", text(&source.kernel).as_deref());
    bytes(json, "boot_id", text(&source.boot_id).as_deref());
    bytes(json, "scope", text(&source.scope).as_deref());
    time(json, "from", source.from_unix_ns);
    time(json, "to", source.to_unix_ns);
    json.word("end", source.end.name());
    match FilterText::of(&source.filter, source.gpus.iter().copied()) {
        Some(filter) => json.raw("filter", &filter.to_json()),
        None => json.null("filter"),
    }
}

fn write_gpu_summary(json: &mut Object<'_>, gpu: &GpuSummary, over_time: &[u64]) {
    if let Some(host) = &gpu.host {
        json.text("host", Escaped(host.as_bytes()));
    }
    json.value("gpu", |out| write_gpu(out, gpu.gpu));
    json.number("events", gpu.types.total());
    types(json, "types", &gpu.types);
    json.number("watched_ns", gpu.watched_ns);
    json.optional("events_per_minute", per_minute(gpu.types.total(), gpu.watched_ns));
    json.number("resets", gpu.resets);
    json.number("resets_timed", gpu.resets_timed);
    json.optional("down_ns", down(gpu.resets, gpu.resets_timed, gpu.down_ns));
    json.number("throttled_ns", gpu.throttled_ns);
    json.number("throttle_interrupts", gpu.throttle_interrupts);
    json.number("gaps", gpu.gaps);
    json.number("lost", gpu.lost);
    numbers(json, "over_time", over_time);
}

/// How long resets took; unknown where none of them tells.
fn down(resets: u64, timed: u64, down_ns: u64) -> Option<u64> {
    (resets == 0 || timed > 0).then_some(down_ns)
}

fn write_timeline(out: &mut String, report: &Report) {
    let timeline = &report.timeline;
    let mut json = Object::nested(out);
    time(&mut json, "from", timeline.from_unix_ns());
    json.number("bucket_ns", timeline.width_ns());
    numbers(&mut json, "events", &timeline.events());
    numbers(&mut json, "gaps", timeline.gaps());
    numbers(&mut json, "watched_ns", timeline.watched_ns());
    json.value("types", |out| {
        let mut json = Object::nested(out);
        for event_type in EventType::ALL.into_iter().map(Some).chain([None]) {
            if report.types.of(event_type) > 0 {
                numbers(&mut json, type_name(event_type), timeline.of_type(event_type));
            }
        }
        json.end();
    });
    json.end();
}

fn write_durations(json: &mut Object<'_>, durations: &Durations) {
    json.number("count", durations.count());
    json.optional("p50_ns", durations.quantile_ns(0.5));
    json.optional("p90_ns", durations.quantile_ns(0.9));
    json.optional("p99_ns", durations.quantile_ns(0.99));
    json.optional("max_ns", durations.max_ns());
    json.number("total_ns", durations.total_ns());
}

fn write_span(json: &mut Object<'_>, span: &SpanSummary) {
    json.word("type", span.kind.name());
    write_durations(json, &span.durations);
    json.raw("unpaired_by_filter", boolean(span.unpaired_by_filter));
    json.value("outcomes", |out| {
        let mut json = Object::nested(out);
        span.outcomes.iter().for_each(|(one, count)| json.number(one.name(), count));
        json.end();
    });
}

fn write_reset(json: &mut Object<'_>, reset: &ResetSummary) {
    json.value("gpu", |out| write_gpu(out, reset.gpu));
    json.text("time", Rfc3339(reset.unix_ns));
    json.number("sequence", reset.sequence);
    bytes(json, "cause", reset.cause.bytes());
    json.optional("down_ns", reset.down_ns);
    json.raw("guessed", boolean(reset.across_gap && reset.down_ns.is_some()));
    json.word("outcome", reset.outcome.name());
}

fn write_cause(json: &mut Object<'_>, cause: &CauseSummary) {
    name(json, "cause", cause.cause);
    json.number("resets", cause.resets);
    json.number("resets_timed", cause.timed);
    json.optional("down_ns", down(cause.resets, cause.timed, cause.down_ns));
}

fn write_throttling(json: &mut Object<'_>, one: &ThrottleSummary) {
    name(json, "reason", one.reason);
    json.number("events", one.events);
    json.number("gpus", one.gpus);
    json.number("watched_ns", one.watched_ns);
    json.number("throttled_ns", one.throttled_ns);
}

fn write_memory_faults(json: &mut Object<'_>, one: &MemoryFaults) {
    process(json, one.who, one.name);
    json.number("faults", one.faults);
    time(json, "first_time", Some(one.first_unix_ns));
    time(json, "last_time", Some(one.last_unix_ns));
}

fn write_process(json: &mut Object<'_>, one: &ProcessSummary) {
    process(json, one.who, one.name);
    json.number("events", one.types.total());
    types(json, "types", &one.types);
    time(json, "first_time", Some(one.first_unix_ns));
    time(json, "last_time", Some(one.last_unix_ns));
    json.optional("lived_ns", one.lived_ns);
    json.raw("lived_guessed", boolean(one.lived_guessed && one.lived_ns.is_some()));
    json.raw("open", boolean(one.open));
    json.number("evicted_ns", one.evicted_ns);
}

fn write_eviction(json: &mut Object<'_>, one: &EvictionSummary) {
    name(json, "trigger", one.trigger);
    json.number("evictions", one.evictions);
    json.number("reschedules", one.reschedules);
    json.value("durations", |out| {
        let mut json = Object::nested(out);
        write_durations(&mut json, &one.durations);
        json.end();
    });
}

fn write_migration(json: &mut Object<'_>, one: &MigrationSummary) {
    json.word("direction", one.direction.name());
    name(json, "trigger", one.trigger);
    json.number("moved", one.moved);
    json.number("bytes", one.bytes);
    json.number("failed", one.failed);
}

fn write_range(json: &mut Object<'_>, one: &ThrashingRange) {
    process(json, one.who, one.name);
    json.number("address", one.address);
    json.number("size", one.size);
    json.number("bounces", one.bounces);
    json.number("moves", one.moves);
    json.number("bytes", one.bytes);
    list(json, "triggers", &one.triggers, |json, (trigger, moves)| {
        name(json, "trigger", *trigger);
        json.number("moves", moves);
    });
}

fn write_hot_spot(json: &mut Object<'_>, one: &FaultHotSpot) {
    process(json, one.who, one.name);
    json.number("address", one.address);
    json.number("faults", one.faults);
    json.number("writes", one.writes);
    json.number("migrated", one.migrated);
    json.number("total_ns", one.total_ns);
}

fn write_gap(json: &mut Object<'_>, gap: &GapSummary) {
    json.word("cause", gap.cause.name());
    json.number("gaps", gap.gaps);
    json.number("lost", gap.lost);
    json.number("of_unknown_size", gap.of_unknown_size);
    json.number("total_ns", gap.total_ns);
    time(json, "first_time", Some(gap.first_unix_ns));
    time(json, "last_time", Some(gap.last_unix_ns));
}
