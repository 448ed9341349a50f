//! Events in an asynchronous program.
//!
//! `cargo run -p gpuev --features tokio --example tokio_stream`

use std::time::Duration;

use gpuev::{DEFAULT_LIMIT, Filter, Item, Machine, Monitor, Severity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> gpuev::Result<()> {
    let severe = Filter::new().severity(Severity::Warning);
    let builder = Monitor::builder(&Machine::host());
    let (_monitor, items) = builder.start_with(severe, DEFAULT_LIMIT)?;
    let mut items = items.into_stream();
    let mut minute = tokio::time::interval(Duration::from_secs(60));
    let mut seen = 0_u64;
    loop {
        tokio::select! {
            item = items.next() => match item {
                Some(Item::Event(event)) => {
                    seen += 1;
                    println!("GPU {}: {}", event.gpu.index, event.message());
                }
                Some(Item::Gap(gap)) => println!("GPU {}: {gap}", gap.gpu.index),
                None => return Ok(()),
            },
            // Cancelling `next` loses nothing.
            _ = minute.tick() => println!("{seen} so far"),
        }
    }
}
