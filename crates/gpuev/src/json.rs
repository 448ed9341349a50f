//! The one serialized form of what gpuev says: one JSON object a line, version 1, `docs/event-schema.md`.
//!
//! Command line, history, network and Python agree because all of them call this. Nothing is allocated
//! but the caller's buffer.

use std::fmt::{self, Display, Write};

use gpuev_kfd::{Access, FaultOutcome, Record, names};

use crate::event::{Event, EventData, Gap, Item, Migration, severity_of, thread_of, tid_of};
use crate::health::Health;
use crate::message::{Escaped, EventMessage, hidden, shown_as_is};
use crate::process::Process;
use crate::span::{Direction, Span, SpanData};
use crate::time::Rfc3339;
use crate::view::EventView;
use crate::{GapCause, GpuId};

/// The version of the serialized form.
pub const VERSION: u32 = 1;

/// Appends `item` as one JSON object, without a newline.
pub fn write_item(out: &mut String, item: &Item) {
    match item {
        Item::Event(event) => write_event(out, event),
        Item::Gap(gap) => write_gap(out, gap),
    }
}

/// Appends `event` as one JSON object, without a newline.
pub fn write_event(out: &mut String, event: &Event) {
    write_decoded(out, event, event.record());
}

/// As [`write_event`], `record` being what the event's line decodes to.
pub fn write_decoded(out: &mut String, event: &Event, record: Record<'_>) {
    let facts = event.facts();
    let mut json = Object::begin(out, "event");
    json.number("seq", event.seq);
    json.word("type", event.type_name());
    json.word("severity", severity_of(&record).name());
    json.value("gpu", |out| write_gpu(out, event.gpu));
    json.text("time", Rfc3339(event.time.unix_ns));
    json.number("boot_ns", event.time.boot_ns);
    json.word("clock", event.time.clock.name());
    json.number("received_boot_ns", event.time.received_boot_ns);
    json.optional("pid", facts.pid_in(&record));
    json.name("process", facts.process_in(&record));
    if let Some(tid) = tid_of(&record) {
        json.number("tid", tid);
        json.name("thread", thread_of(&record));
    }
    json.value("data", |out| write_data(out, EventData::of(&record)));
    json.text("message", EventMessage(EventView { facts, record }));
    json.text("raw", Escaped(event.raw()));
    if event.doubtful {
        json.raw("doubtful", "true");
    }
    json.end();
}

/// Appends `gap` as one JSON object, without a newline.
pub fn write_gap(out: &mut String, gap: &Gap) {
    let mut json = Object::begin(out, "gap");
    json.value("gpu", |out| write_gpu(out, gap.gpu));
    json.word("cause", GapCause::name(gap.cause));
    json.optional("count", gap.count);
    json.number("from_boot_ns", gap.from_boot_ns);
    json.number("to_boot_ns", gap.to_boot_ns);
    json.text("time", Rfc3339(gap.unix_ns));
    json.end();
}

/// Appends `span` as one JSON object, without a newline. `start_boot_ns`, `end_boot_ns` and `duration_ns`
/// are null where start or end was never seen; `time` is that of the start, else of the end.
pub fn write_span(out: &mut String, span: &Span) {
    let mut json = Object::begin(out, "span");
    json.word("type", span.kind().name());
    json.value("gpu", |out| write_gpu(out, span.gpu));
    json.optional("pid", span.pid);
    json.name("process", span.process.bytes());
    if let Some(tid) = span.tid {
        json.number("tid", tid);
    }
    match span.time() {
        Some(time) => json.text("time", Rfc3339(time.unix_ns)),
        None => json.null("time"),
    }
    json.optional("start_boot_ns", span.start.map(|time| time.boot_ns));
    json.optional("end_boot_ns", span.end.map(|time| time.boot_ns));
    json.optional("duration_ns", span.duration_ns());
    json.word("clock", span.clock().name());
    json.word("outcome", span.outcome.name());
    json.value("data", |out| write_span_data(out, span));
    if span.across_gap {
        json.raw("across_gap", "true");
    }
    if span.doubtful {
        json.raw("doubtful", "true");
    }
    json.end();
}

fn write_span_data(out: &mut String, span: &Span) {
    let mut json = Object::nested(out);
    match span.data {
        SpanData::Reset { sequence, cause } => {
            json.number("sequence", sequence);
            match cause.bytes() {
                Some(cause) => json.text("cause", Escaped(cause)),
                None => json.null("cause"),
            }
        }
        SpanData::PageFault { address, node, access } => {
            json.number("address", address);
            match access {
                Some(access) => json.word("access", access_name(access)),
                None => json.null("access"),
            }
            json.number("node", node);
        }
        SpanData::Migration { migration, error } => {
            json.migration(migration);
            json.word("direction", Direction::of(&migration).name());
            json.optional("error", error);
            json.optional("bytes_per_second", span.bytes_per_second());
        }
        SpanData::QueueEviction { node, trigger, reschedules } => {
            json.number("node", node);
            match trigger {
                Some(trigger) => json.trigger(names::eviction_trigger(trigger), trigger),
                None => json.null("trigger"),
            }
            json.number("reschedules", reschedules);
        }
        SpanData::Process => {}
    }
    json.end();
}

fn access_name(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
    }
}

/// Appends the object that names a GPU in every record.
pub fn write_gpu(out: &mut String, gpu: GpuId) {
    let mut json = Object::nested(out);
    json.number("index", gpu.index);
    json.text("bdf", gpu.bdf);
    match gpu.unique_id {
        Some(id) => json.text("unique_id", id),
        None => json.null("unique_id"),
    }
    json.number("partition", gpu.partition);
    json.end();
}

/// Appends the object with what an event's type adds.
pub fn write_data(out: &mut String, data: EventData<'_>) {
    let mut json = Object::nested(out);
    match data {
        EventData::VmFault | EventData::ProcessStart | EventData::ProcessEnd => {}
        EventData::ThermalThrottle { throttlers, count } => {
            json.number("throttlers", throttlers);
            json.words("reasons", names::throttlers(throttlers));
            json.number("count", count);
        }
        EventData::PreReset { sequence, cause } | EventData::PostReset { sequence, cause } => {
            json.number("sequence", sequence);
            match cause {
                Some(cause) => json.text("cause", Escaped(cause)),
                None => json.null("cause"),
            }
        }
        EventData::MigrateStart { migration, prefetch, preferred } => {
            json.migration(migration);
            json.optional("prefetch", prefetch);
            json.optional("preferred", preferred);
        }
        EventData::MigrateEnd { migration, error } => {
            json.migration(migration);
            json.optional("error", error);
        }
        EventData::PageFaultStart { address, node, access } => {
            json.number("address", address);
            json.word("access", access_name(access));
            json.number("node", node);
        }
        EventData::PageFaultEnd { address, node, outcome } => {
            json.number("address", address);
            let migrated = outcome == FaultOutcome::Migrated;
            json.word("outcome", if migrated { "migrated" } else { "mapped" });
            json.number("node", node);
        }
        EventData::QueueEviction { node, trigger } => {
            json.number("node", node);
            json.trigger(names::eviction_trigger(trigger), trigger);
        }
        EventData::QueueRestore { node, rescheduled } => {
            json.number("node", node);
            json.raw("rescheduled", if rescheduled { "true" } else { "false" });
        }
        EventData::UnmapFromGpu { address, size, node, trigger } => {
            json.number("address", address);
            json.number("size", size);
            json.number("node", node);
            json.trigger(names::unmap_trigger(trigger), trigger);
        }
        EventData::Unknown { id } => json.optional("id", id),
    }
    json.end();
}

/// Writes how a GPU is doing: the object `health` of `docs/event-schema.md`.
pub fn write_health(out: &mut String, health: &Health) {
    let mut object = Object::nested(out);
    object.raw("suspended", if health.suspended { "true" } else { "false" });
    object.value("temperatures", |out| {
        write_list(out, &health.temperatures, |object, found| {
            object.text("sensor", found.sensor);
            object.optional("millidegrees", found.current.map(|t| t.0));
            object.optional("critical_millidegrees", found.critical.map(|t| t.0));
        });
    });
    let power = health.power;
    object.optional("power_microwatts", power.average.or(power.current).map(|p| p.0));
    object.optional("power_cap_microwatts", power.cap.map(|p| p.0));
    object.optional("gfx_busy_percent", health.activity.gfx.map(|p| p.0));
    object.optional("memory_busy_percent", health.activity.memory.map(|p| p.0));
    let memory = health.memory;
    for (key, bytes) in [
        ("vram_used", memory.vram.used),
        ("vram_total", memory.vram.total),
        ("gtt_used", memory.gtt.used),
        ("gtt_total", memory.gtt.total),
        ("memory_used", memory.usable.used),
        ("memory_total", memory.usable.total),
    ] {
        object.optional(key, bytes.map(|b| b.0));
    }
    object.value("ras", |out| {
        write_list(out, &health.ras, |object, block| {
            object.text("block", &block.block);
            object.optional("uncorrectable", block.uncorrectable);
            object.optional("correctable", block.correctable);
            object.optional("deferred", block.deferred);
        });
    });
    object.optional("retired_pages", health.bad_pages.map(|pages| pages.retired));
    object.optional("pending_pages", health.bad_pages.map(|pages| pages.pending));
    object.optional("unretired_pages", health.bad_pages.map(|pages| pages.unretired));
    if let Some(whole) = &health.whole_gpu {
        object.value("whole_gpu", |out| write_health(out, whole));
    }
    object.end();
}

/// Writes who is behind a pid and what he belongs to: the object `job` of `docs/event-schema.md`. What is not
/// known is left out.
pub fn write_process(out: &mut String, process: &Process) {
    let belongs = &process.attribution;
    let mut object = Object::nested(out);
    object.number("pid", process.pid);
    if let Some(name) = process.name.bytes() {
        object.text("name", Escaped(name));
    }
    if !process.command.is_empty() {
        object.text("command", Escaped(&process.command.join(&b' ')));
    }
    let words = [
        ("user", process.user.as_deref()),
        ("cgroup", belongs.cgroup.as_deref()),
        ("pod", belongs.kubernetes.as_ref().map(|pod| pod.uid.as_str())),
        ("container", belongs.container.as_ref().map(|container| container.id.as_str())),
        ("unit", belongs.unit.as_deref().or(belongs.user_unit.as_deref())),
    ];
    for (key, text) in words {
        if let Some(text) = text {
            object.text(key, text);
        }
    }
    if let Some(uid) = process.uid {
        object.number("uid", uid);
    }
    if let Some(task) = &belongs.slurm {
        object.number("slurm_job", task.job);
        if let Some(step) = &task.step {
            object.text("slurm_step", step);
        }
    }
    object.end();
}

/// Writes a list of objects.
pub fn write_list<T>(out: &mut String, items: &[T], mut write: impl FnMut(&mut Object<'_>, &T)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let mut object = Object::nested(out);
        write(&mut object, item);
        object.end();
    }
    out.push(']');
}

/// A JSON object that is being written. Writing to a `String` cannot fail, so the results of `write!` are
/// dropped in one place.
pub struct Object<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> Object<'a> {
    /// Begins a record: version and kind come first.
    pub fn begin(out: &'a mut String, record: &str) -> Self {
        let mut object = Self::nested(out);
        object.number("v", VERSION);
        object.word("record", record);
        object
    }

    /// Begins an object inside a record.
    pub fn nested(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, first: true }
    }

    /// Ends the object.
    pub fn end(self) {
        self.out.push('}');
    }

    fn key(&mut self, key: &str) {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    fn put(&mut self, value: impl Display) {
        let _infallible = write!(self.out, "{value}");
    }

    /// A number.
    pub fn number(&mut self, key: &str, number: impl Display) {
        self.key(key);
        self.put(number);
    }

    /// A number or null.
    pub fn optional(&mut self, key: &str, number: Option<impl Display>) {
        match number {
            Some(number) => self.number(key, number),
            None => self.null(key),
        }
    }

    /// A task's name, or null.
    fn name(&mut self, key: &str, name: Option<&[u8]>) {
        match name {
            Some(name) => self.text(key, Escaped(name)),
            None => self.null(key),
        }
    }

    /// Null.
    pub fn null(&mut self, key: &str) {
        self.raw(key, "null");
    }

    /// JSON that is already written.
    pub fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.push_str(json);
    }

    /// A value that `write` appends.
    pub fn value(&mut self, key: &str, write: impl FnOnce(&mut String)) {
        self.key(key);
        write(self.out);
    }

    /// A string that needs no escaping: one of our own names.
    pub fn word(&mut self, key: &str, word: &str) {
        self.key(key);
        self.out.push('"');
        self.out.push_str(word);
        self.out.push('"');
    }

    /// A list of our own names.
    pub fn words<'w>(&mut self, key: &str, words: impl Iterator<Item = &'w str>) {
        self.key(key);
        self.out.push('[');
        for (index, word) in words.enumerate() {
            self.out.push_str(if index > 0 { ",\"" } else { "\"" });
            self.out.push_str(word);
            self.out.push('"');
        }
        self.out.push(']');
    }

    /// A string of any content.
    pub fn text(&mut self, key: &str, text: impl Display) {
        self.key(key);
        self.out.push('"');
        let _infallible = write!(JsonText(self.out), "{text}");
        self.out.push('"');
    }

    /// Why, by name; a number of a later kernel as the number.
    fn trigger(&mut self, name: Option<&'static str>, number: i32) {
        match name {
            Some(name) => self.word("trigger", name),
            None => self.number("trigger", number),
        }
    }

    fn migration(&mut self, migration: Migration) {
        self.number("address", migration.address);
        self.number("size", migration.size);
        self.number("from", migration.from);
        self.number("to", migration.to);
        self.trigger(names::migrate_trigger(migration.trigger), migration.trigger);
    }
}

/// Escapes what goes through it for the inside of a JSON string. What a terminal would obey is escaped too,
/// of the controls beyond ASCII as well: people look at JSON on terminals.
struct JsonText<'a>(&'a mut String);

impl fmt::Write for JsonText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| shown_as_is(byte) && byte != b'"') {
            self.0.push_str(text);
            return Ok(());
        }
        let mut plain_from = 0;
        for (at, character) in text.char_indices() {
            if character != '"' && character != '\\' && !hidden(character) {
                continue;
            }
            self.0.push_str(&text[plain_from..at]);
            plain_from = at + character.len_utf8();
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\t' => self.0.push_str("\\t"),
                // As JSON has it: beyond the first plane two units stand for one character.
                _ => character
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .try_for_each(|unit| write!(self.0, "\\u{unit:04x}"))?,
            }
        }
        self.0.push_str(&text[plain_from..]);
        Ok(())
    }
}
