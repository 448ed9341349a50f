//! One GPU, read in your own epoll loop: no thread, no queue, one descriptor more.
//!
//! `cargo run -p gpuev --example own_event_loop`

use std::os::fd::AsFd;

use gpuev::{EventMask, EventReader, EventType, Item, Machine};
use rustix::event::epoll;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::host();
    // By index, PCI address or unique id.
    let gpu = machine.find("0")?;
    let mask: EventMask =
        [EventType::VmFault, EventType::GpuPreReset, EventType::GpuPostReset].into_iter().collect();
    let mut reader = EventReader::open(&machine, &gpu, mask)?;

    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let events = epoll::EventData::new_u64(0);
    epoll::add(&epoll, reader.as_fd(), events, epoll::EventFlags::IN)?;
    loop {
        let mut ready = [const { std::mem::MaybeUninit::uninit() }; 8];
        match epoll::wait(&epoll, &mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The driver holds little: take all that is there before you do anything else.
        while let Some(item) = reader.next()? {
            match item {
                Item::Event(event) => println!("{}", event.message()),
                Item::Gap(gap) => println!("{gap}"),
            }
        }
    }
}
