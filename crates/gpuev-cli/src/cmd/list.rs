//! `gpuev list`: which GPUs there are, and how they are doing.

mod health;

use std::path::Path;

use clap::Args;
use gpuev::{Gpu, GpuId, Inventory, advice, json};

use crate::args::{SourceArgs, open_histories};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output;
use crate::render::table::Table;
use crate::source::Source;

/// List the GPUs of this machine
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// How they are doing: temperature, power, activity, memory, errors
    #[arg(long)]
    health: bool,
}

pub(crate) fn run(args: &ListArgs, source: &SourceArgs) -> Outcome {
    if let Some(path) = Source::history(source) {
        return list_history(&path, args);
    }
    let source = Source::open(source)?;
    let inventory = source.machine.inventory()?;
    let text = match (args.json, args.health) {
        (true, health) => as_json(&inventory, health),
        (false, true) => health::as_table(&inventory.gpus),
        (false, false) => as_table(&inventory),
    };
    output::standard().write_all(text.as_bytes())?;
    if inventory.gpus.is_empty() {
        return Err(Failure::Gpu(advice::none_usable(&inventory)));
    }
    for missing in advice::missing(&inventory) {
        say(&missing);
    }
    Ok(Exit::Success)
}

/// Lists the GPUs that a history, or a folder of them, has seen, each as it was last.
fn list_history(path: &Path, args: &ListArgs) -> Outcome {
    if args.health {
        let what = "--health: a history does not say how its GPUs are doing";
        return Err(Failure::Usage(what.to_owned()));
    }
    let mut gpus: Vec<(GpuId, Option<String>)> = Vec::new();
    for recorded in open_histories(&[path.to_owned()])?.sessions()? {
        for (gpu, name) in recorded.session.gpus {
            let lasting = |id: GpuId| (id.bdf, id.partition, id.unique_id);
            match gpus.iter_mut().find(|(seen, _)| lasting(*seen) == lasting(gpu)) {
                Some(seen) => *seen = (gpu, name.or(seen.1.take())),
                None => gpus.push((gpu, name)),
            }
        }
    }
    gpus.sort();
    let mut text = String::new();
    if args.json {
        for (gpu, name) in &gpus {
            let mut object = json::Object::begin(&mut text, "gpu");
            object.value("gpu", |out| json::write_gpu(out, *gpu));
            match name {
                Some(name) => object.text("name", name),
                None => object.null("name"),
            }
            object.number("kfd_id", gpu.kfd_id);
            object.end();
            text.push('\n');
        }
    } else {
        let mut table = Table::new(["GPU", "PCI", "PART", "NAME", "UNIQUE ID", "KFD"]);
        for (gpu, name) in gpus {
            table.row([
                gpu.index.to_string(),
                gpu.bdf.to_string(),
                gpu.partition.to_string(),
                or_dash(name),
                or_dash(gpu.unique_id),
                gpu.kfd_id.to_string(),
            ]);
        }
        text = table.to_string();
    }
    output::standard().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

fn as_table(inventory: &Inventory) -> String {
    let mut table = Table::new(["GPU", "PCI", "PART", "NAME", "GFX", "UNIQUE ID", "RENDER", "KFD"]);
    for gpu in &inventory.gpus {
        table.row([
            gpu.id.index.to_string(),
            gpu.id.bdf.to_string(),
            partition(gpu),
            gpu.name.clone(),
            or_dash(gpu.gfx_target),
            or_dash(gpu.id.unique_id),
            gpu.render_minor.map_or_else(dash, |minor| format!("renderD{minor}")),
            gpu.id.kfd_id.to_string(),
        ]);
    }
    table.to_string()
}

fn partition(gpu: &Gpu) -> String {
    if gpu.is_partition() { format!("{}/{}", gpu.id.partition, gpu.partitions) } else { dash() }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(dash, |value| value.to_string())
}

fn dash() -> String {
    "-".to_owned()
}

fn as_json(inventory: &Inventory, health: bool) -> String {
    let mut out = String::new();
    let mut told = None;
    for gpu in &inventory.gpus {
        let mut object = json::Object::begin(&mut out, "gpu");
        object.value("gpu", |out| json::write_gpu(out, gpu.id));
        object.text("name", &gpu.name);
        match gpu.gfx_target {
            Some(target) => object.text("gfx_target", target),
            None => object.null("gfx_target"),
        }
        object.number("partitions", gpu.partitions);
        object.raw("apu", if gpu.apu { "true" } else { "false" });
        object.optional("render_minor", gpu.render_minor);
        object.optional("card", gpu.card);
        object.number("kfd_id", gpu.id.kfd_id);
        object.number("kfd_node", gpu.node);
        if health {
            let mut health = gpu.health();
            // What is of the whole GPU is told once, with its first partition.
            if told.replace(gpu.id.bdf) == Some(gpu.id.bdf) {
                health.whole_gpu = None;
            }
            object.value("health", |out| json::write_health(out, &health));
        }
        object.end();
        out.push('\n');
    }
    out
}
