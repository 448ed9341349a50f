//! `write()`: the mask.

use gpuev_sim::{Client, DriverEvent, Kernel};

use crate::client::{
    KERNELS, THERMAL, THERMAL_LINE, drain, machine, open, open_all, readable, set_mask,
};

#[test]
fn the_mask_is_0_after_open() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let id = machine.kfd_gpu_id(0).unwrap();
        let file = machine.open_events(id, &Client::root()).unwrap();
        machine.emit(0, &THERMAL);
        assert!(!readable(&file));
        set_mask(&file, 0b10);
        machine.emit(0, &THERMAL);
        assert_eq!(drain(&file), THERMAL_LINE);
    }
}

#[test]
fn bit_63_alone_lets_nothing_through() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open(&machine, 0, &Client::root(), 1 << 63);
        machine.emit(0, &THERMAL);
        assert!(!readable(&file));
    }
}

#[test]
fn each_event_has_its_bit() {
    let machine = machine(Kernel::V7_3);
    let reset = DriverEvent::PreReset { sequence: 1, cause: None };
    let file = open(&machine, 0, &Client::root(), 1 << 2);
    machine.emit(0, &THERMAL);
    machine.emit(0, &reset);
    assert_eq!(drain(&file), "3 1 \n");
}

#[test]
fn unknown_bits_are_accepted() {
    let machine = machine(Kernel::V6_1);
    let file = open_all(&machine, 0);
    machine.emit(0, &THERMAL);
    assert_eq!(drain(&file), THERMAL_LINE);
}

#[test]
fn a_new_mask_acts_at_once_and_does_not_flush() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        machine.emit(0, &THERMAL);
        set_mask(&file, 0);
        machine.emit(0, &THERMAL);
        assert!(readable(&file));
        assert_eq!(drain(&file), THERMAL_LINE);
    }
}
