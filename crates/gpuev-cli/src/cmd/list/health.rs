//! How GPUs are doing, as a table and as JSON.

use gpuev::Gpu;
use gpuev::health::{RasErrors, TemperatureSensor};

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
