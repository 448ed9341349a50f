//! When a GPU throttles or fails: how hot it is, what it draws, how full its memory is.
//!
//! `cargo run -p gpuev --example health_on_events`

use gpuev::health::TemperatureSensor;
use gpuev::{DEFAULT_LIMIT, Filter, Item, Machine, Monitor, Severity};

fn main() -> gpuev::Result<()> {
    let severe = Filter::new().severity(Severity::Warning);
    let builder = Monitor::builder(&Machine::host());
    let (monitor, items) = builder.start_with(severe, DEFAULT_LIMIT)?;
    for item in items {
        let Item::Event(event) = item else { continue };
        println!("GPU {}: {}", event.gpu.index, event.message());
        // A GPU may have gone since.
        let gpus = monitor.gpus();
        let Some(gpu) = gpus.iter().find(|gpu| gpu.id == event.gpu) else { continue };
        let health = gpu.health();
        // What a GPU does not tell is `None`.
        if let Some(junction) = health.temperature(TemperatureSensor::Junction) {
            println!("  junction {junction}");
        }
        if let Some(power) = health.power.average.or(health.power.current) {
            println!("  power {power}");
        }
        if let (Some(used), Some(total)) = (health.memory.vram.used, health.memory.vram.total) {
            println!("  memory {used} of {total}");
        }
    }
    Ok(())
}
