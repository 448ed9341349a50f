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

#[test]
fn what_became_of_each_line_is_kept_with_the_mask_in_force() {
    use gpuev_sim::Fate;
    let machine = crate::builder().kernel(Kernel::V6_1).keep_lines(true).build().unwrap();
    let file = open(&machine, 0, &Client::root(), 0);
    machine.emit(0, &THERMAL);
    set_mask(&file, 1 << 1);
    machine.emit_batch(0, &vec![THERMAL; 129]);
    machine.emit(0, &DriverEvent::PreReset { sequence: 1, cause: None });
    drop(file);
    // Whether it is closed or not.
    let other = open(&machine, 0, &Client::root(), u64::MAX);
    let lines = machine.file_lines(0);
    let fates: Vec<Fate> = lines.iter().map(|line| line.fate).collect();
    let expected =
        [vec![Fate::Filtered], vec![Fate::Accepted; 128], vec![Fate::Dropped, Fate::Filtered]];
    assert_eq!(fates, expected.concat());
    assert_eq!((lines[0].mask, lines[1].mask, lines[130].id), (0, 2, 3));
    assert!(lines.windows(2).all(|pair| pair[0].boot_ns <= pair[1].boot_ns));
    assert!(machine.file_lines(1).is_empty() && machine.file_lines(9).is_empty());
    drop(other);
}
