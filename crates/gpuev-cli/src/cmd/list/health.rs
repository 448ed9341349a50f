//! How GPUs are doing, as a table and as JSON.

use gpuev::health::{Health, RasErrors, TemperatureSensor};
use gpuev::{Gpu, json};

use super::{dash, or_dash};
use crate::render::table::Table;

/// One row a GPU; a dash is what it does not tell.
pub(super) fn as_table(gpus: &[Gpu]) -> String {
    let headings = [
        "GPU",
        "PCI",
        "EDGE",
        "JUNCTION",
        "MEMORY",
        "POWER",
        "LIMIT",
        "BUSY",
        "VRAM USED",
        "VRAM",
        "ERRORS",
    ];
    let mut table = Table::new(headings);
    for gpu in gpus {
        let health = gpu.health();
        let temperature = |sensor| or_dash(health.temperature(sensor));
        table.row([
            gpu.id.index.to_string(),
            gpu.id.bdf.to_string(),
            temperature(TemperatureSensor::Edge),
            temperature(TemperatureSensor::Junction),
            temperature(TemperatureSensor::Memory),
            or_dash(health.power.average.or(health.power.current)),
            or_dash(health.power.cap),
            if health.suspended { "asleep".to_owned() } else { or_dash(health.activity.gfx) },
            or_dash(health.memory.vram.used),
            or_dash(health.memory.vram.total),
            errors(&health.ras),
        ]);
    }
    table.to_string()
}

/// The blocks that counted errors; `none` where all counted none.
fn errors(ras: &[RasErrors]) -> String {
    if ras.is_empty() {
        return dash();
    }
    let bad: Vec<_> = ras
        .iter()
        .filter(|block| block.uncorrectable > Some(0) || block.correctable > Some(0))
        .map(|block| {
            let (lost, mended) = (or_dash(block.uncorrectable), or_dash(block.correctable));
            format!("{} {lost} lost {mended} mended", block.block)
        })
        .collect();
    if bad.is_empty() { "none".to_owned() } else { bad.join(", ") }
}

/// The object `health` of `docs/event-schema.md`.
pub(super) fn write_json(out: &mut String, health: &Health) {
    let mut object = json::Object::nested(out);
    object.raw("suspended", if health.suspended { "true" } else { "false" });
    object.value("temperatures", |out| {
        list(out, &health.temperatures, |object, found| {
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
    object.optional("vram_used", health.memory.vram.used.map(|b| b.0));
    object.optional("vram_total", health.memory.vram.total.map(|b| b.0));
    object.value("ras", |out| {
        list(out, &health.ras, |object, block| {
            object.text("block", &block.block);
            object.optional("uncorrectable", block.uncorrectable);
            object.optional("correctable", block.correctable);
            object.optional("deferred", block.deferred);
        });
    });
    object.optional("retired_pages", health.bad_pages.map(|pages| pages.retired));
    object.end();
}

/// A list of objects.
fn list<T>(out: &mut String, items: &[T], write: impl Fn(&mut json::Object<'_>, &T)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let mut object = json::Object::nested(out);
        write(&mut object, item);
        object.end();
    }
    out.push(']');
}
