//! Your own code on a machine without a GPU: the simulator does what the driver would.
//!
//! `cargo run -p gpuev --example test_your_monitor`; in your project, this is a test.

use gpuev::{
    DEFAULT_LIMIT, EventType, Filter, Item, KfdVersion, Machine, Monitor, OpenWith, Scope,
};
use gpuev_sim::{Client, Comm, DriverEvent, Pid, ResetCause, SimMachine, SimProcess};

/// What is to be tested: the processes that a GPU reset follows upon.
fn suspects(items: impl Iterator<Item = Item>) -> Vec<u32> {
    let mut faulted = Vec::new();
    for item in items {
        let Item::Event(event) = item else { continue };
        match event.event_type() {
            Some(EventType::VmFault) => faulted.extend(event.pid()),
            Some(EventType::GpuPreReset) => return faulted,
            _ => {}
        }
    }
    Vec::new()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A machine with two GPUs: a folder with /sys and /proc, and event files that behave as the driver's.
    let sim = SimMachine::builder().gpus(2).build()?;
    let (major, minor) = sim.kfd_version();
    let opener = sim.clone();
    let open = move |gpu: &gpuev::Gpu| opener.open_events(gpu.id.kfd_id, &Client::root());
    let events = OpenWith::new(KfdVersion { major, minor }, Scope::everything("simulated"), open);
    let machine = Machine::at(sim.root()).with_event_source(events);

    sim.add_process(&SimProcess::new(4242, "python3").gpu(1))?;
    let builder = Monitor::builder(&machine);
    let (_monitor, items) = builder.start_with(Filter::new(), DEFAULT_LIMIT)?;
    let (pid, comm) = (Pid::from(4242), Comm::new("python3"));
    sim.emit(1, &DriverEvent::VmFault { pid, comm });
    sim.emit(1, &DriverEvent::PreReset { sequence: 1, cause: Some(ResetCause::JobHang) });
    assert_eq!(suspects(items), [4242]);
    println!("the suspect is found");
    Ok(())
}
