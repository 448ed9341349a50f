//! How GPUs are doing, as a table and as JSON.

use gpuev::Gpu;
use gpuev::health::{BadPages, Health, RasErrors, TemperatureSensor};

use super::{dash, or_dash, partition};
use crate::render::table::Table;

const HEADINGS: [&str; 12] = [
    "GPU",
    "PCI",
    "PART",
    "EDGE",
    "JUNCTION",
    "MEMORY",
    "POWER",
    "LIMIT",
    "BUSY",
    "MEM USED",
    "MEM TOTAL",
    "ERRORS",
];

/// One row a GPU; a dash is what it does not tell. A GPU with partitions has a row of its own, with what is known of
/// the whole only, above those of its partitions.
pub(super) fn as_table(gpus: &[Gpu]) -> String {
    let mut table = Table::new(HEADINGS);
    let mut whole = None;
    for gpu in gpus {
        let health = gpu.health();
        if let Some(of_gpu) = &health.whole_gpu
            && whole.replace(gpu.id.bdf) != Some(gpu.id.bdf)
        {
            table.row(row([dash(), gpu.id.bdf.to_string(), "all".to_owned()], of_gpu));
        }
        let place = [gpu.id.index.to_string(), gpu.id.bdf.to_string(), partition(gpu)];
        table.row(row(place, &health));
    }
    table.to_string()
}

fn row([index, bdf, part]: [String; 3], health: &Health) -> [String; 12] {
    let temperature = |sensor| or_dash(health.temperature(sensor));
    [
        index,
        bdf,
        part,
        temperature(TemperatureSensor::Edge),
        temperature(TemperatureSensor::Junction),
        temperature(TemperatureSensor::Memory),
        or_dash(health.power.average.or(health.power.current)),
        or_dash(health.power.cap),
        if health.suspended { "asleep".to_owned() } else { or_dash(health.activity.gfx) },
        or_dash(health.memory.usable.used),
        or_dash(health.memory.usable.total),
        errors(&health.ras, health.bad_pages),
    ]
}

/// The blocks that counted errors of whatever kind, and pages that went bad; `none` where all counted none, and
/// `unknown` where the counters cannot be read now.
fn errors(ras: &[RasErrors], pages: Option<BadPages>) -> String {
    let counts = |block: &RasErrors| {
        [(block.uncorrectable, "lost"), (block.correctable, "mended"), (block.deferred, "deferred")]
    };
    let of_block = |block: &RasErrors| {
        let counted = counts(block).into_iter().filter(|(count, _)| *count > Some(0));
        let told: Vec<_> =
            counted.map(|(count, what)| format!("{} {what}", or_dash(count))).collect();
        (!told.is_empty()).then(|| format!("{} {}", block.block, told.join(" ")))
    };
    let pages = pages.unwrap_or_default();
    let kinds =
        [(pages.retired, "retired"), (pages.pending, "pending"), (pages.unretired, "not retired")];
    let of_pages = kinds
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("pages {count} {what}"));
    let told: Vec<String> = ras.iter().filter_map(of_block).chain(of_pages).collect();
    let known = |block: &RasErrors| counts(block).iter().any(|(count, _)| count.is_some());
    match (told.is_empty(), ras.is_empty()) {
        (false, _) => told.join(", "),
        (true, true) => dash(),
        (true, false) if ras.iter().all(known) => "none".to_owned(),
        (true, false) => "unknown".to_owned(),
    }
}
