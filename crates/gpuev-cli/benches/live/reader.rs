//! The readers in Rust, run as programs of their own: an `EventReader` in a loop, and a `Monitor`.

use std::hint::black_box;
use std::io::Write;

use gpuev::{EventData, EventMask, EventReader, Filter, Item, Machine, Monitor};

type Failure = Box<dyn std::error::Error>;

/// Reads until the GPU throttles, and prints how many events and gaps there were; `latency N` reads N events and
/// prints how old each was.
pub(crate) fn run(how: &str, rest: &[&str]) -> Result<(), Failure> {
    let latencies = match rest {
        ["latency", count] => count.parse()?,
        _ => 0,
    };
    let machine = Machine::host();
    let mut seen =
        Seen { latencies: Vec::with_capacity(latencies), wanted: latencies, ..Seen::default() };
    match how {
        "one" => one_gpu(&machine, &mut seen)?,
        _ => all_gpus(&machine, &mut seen)?,
    }
    seen.print()
}

fn one_gpu(machine: &Machine, seen: &mut Seen) -> Result<(), Failure> {
    let gpu = machine.find("0")?;
    let mut reader = EventReader::open(machine, &gpu, EventMask::ALL)?;
    loop {
        match reader.wait(None) {
            Ok(Some(item)) if seen.is_last(&item) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn all_gpus(machine: &Machine, seen: &mut Seen) -> Result<(), Failure> {
    let monitor = Monitor::start(machine)?;
    let mut subscription = monitor.subscribe(Filter::new());
    while let Some(item) = subscription.wait(None) {
        if seen.is_last(&item) {
            break;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Seen {
    events: u64,
    gaps: u64,
    latencies: Vec<u64>,
    wanted: usize,
}

impl Seen {
    /// Takes in what came, all of its fields.
    fn is_last(&mut self, item: &Item) -> bool {
        let Item::Event(event) = item else {
            self.gaps += 1;
            return false;
        };
        self.events += 1;
        if self.wanted > 0 {
            self.latencies.push(gpuev_sim::boot_ns().saturating_sub(event.time.boot_ns));
            return self.latencies.len() >= self.wanted;
        }
        matches!(black_box(event.data()), EventData::ThermalThrottle { .. })
    }

    fn print(&self) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if self.wanted == 0 {
            writeln!(out, "{} {}", self.events, self.gaps)?;
        }
        for latency in &self.latencies {
            writeln!(out, "{latency}")?;
        }
        Ok(())
    }
}
