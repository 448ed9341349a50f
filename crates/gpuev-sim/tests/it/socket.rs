//! What only event files that are sockets do.

use std::io::IoSlice;

use gpuev_sim::{Client, Kernel};

use crate::client::{THERMAL, machine, open, open_all, read, readable};

#[test]
fn of_two_masks_in_one_writev_the_second_wins() {
    let machine = machine(Kernel::V7_3);
    let file = open(&machine, 0, &Client::root(), 0);
    let (first, second) = (u64::MAX.to_ne_bytes(), 0_u64.to_ne_bytes());
    let both = [IoSlice::new(&first), IoSlice::new(&second)];
    assert_eq!(rustix::io::writev(&file, &both), Ok(16));
    machine.emit(0, &THERMAL);
    assert!(!readable(&file));
    assert_eq!(machine.event_files()[0].mask, 0);
}

/// A driver whose `read()` gives 8 bytes needs the exact transport; with sockets it reads as all do.
#[test]
fn the_oldest_driver_reads_as_others_through_a_socket() {
    let machine = machine(Kernel::Oldest);
    let file = open_all(&machine, 0);
    machine.emit(0, &THERMAL);
    machine.emit(0, &THERMAL);
    assert_eq!(read(&file, 100).unwrap().len(), 16);
}
