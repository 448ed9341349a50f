//! What happens on all GPUs of this machine, as it happens.
//!
//! `cargo run -p gpuev --example watch_all`

use gpuev::{DEFAULT_LIMIT, Filter, Item, Machine, Monitor};

fn main() -> gpuev::Result<()> {
    let machine = Machine::host();
    // Keep the monitor: the event files close with it.
    let (monitor, items) = Monitor::builder(&machine).start_with(Filter::new(), DEFAULT_LIMIT)?;
    eprintln!("watching {} GPUs: {}", monitor.gpus().len(), monitor.scope().reason);
    for item in items {
        match item {
            Item::Event(event) => {
                println!("GPU {} {}: {}", event.gpu.index, event.type_name(), event.message());
            }
            // Events that were lost, and why: never silently.
            Item::Gap(gap) => println!("GPU {} GAP: {gap}", gap.gpu.index),
        }
    }
    Ok(())
}
