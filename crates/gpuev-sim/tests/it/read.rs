//! `read()`.

use std::os::fd::AsRawFd;

use rustix::fs::{OFlags, SeekFrom};
use rustix::io::{Errno, FdFlags, IoSliceMut};

use crate::client::{
    KERNELS, THERMAL, THERMAL_LINE, drain, flags, machine, open_all, read, set_mask,
};
use gpuev_sim::Kernel;

#[test]
fn an_empty_file_gives_eagain() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        assert_eq!(read(&file, 8192), Err(Errno::AGAIN));
        machine.emit(0, &THERMAL);
        drain(&file);
        assert_eq!(read(&file, 1), Err(Errno::AGAIN), "after draining, too");
    }
}

#[test]
fn bytes_come_in_order_cut_anywhere() {
    for size in [1, 3, 8, 16, 64, 100, 1000] {
        let machine = machine(Kernel::V7_3);
        let file = open_all(&machine, 0);
        for _ in 0..100 {
            machine.emit(0, &THERMAL);
        }
        let mut all = Vec::new();
        while let Ok(bytes) = read(&file, size) {
            assert_eq!(bytes.len(), size.min(800 - all.len()));
            all.extend(bytes);
        }
        assert_eq!(all, THERMAL_LINE.repeat(100).as_bytes(), "reads of {size}");
    }
}

#[test]
fn a_read_returns_at_most_the_size_of_the_fifo_and_ends_on_a_line() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        machine.emit_batch(0, &vec![THERMAL; 3000]);
        let all = read(&file, 1 << 16).unwrap();
        assert_eq!(all.len(), kernel.fifo_bytes());
        assert!(all.ends_with(b"\n"));
        assert_eq!(read(&file, 1 << 16), Err(Errno::AGAIN));
    }
}

#[test]
fn a_buffer_below_the_fifo_tears_lines() {
    let machine = machine(Kernel::V7_2);
    let file = open_all(&machine, 0);
    let fault = gpuev_sim::DriverEvent::PageFaultStart { pid: 9.into(), page: 1, write: true };
    machine.emit_batch(0, &vec![fault; 200]);
    let torn = [1024, 4096].map(|size| read(&file, size).unwrap().ends_with(b"\n"));
    assert!(!torn[0] || !torn[1]);
}

#[test]
fn readv_fills_one_buffer_after_the_other() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    machine.emit(0, &THERMAL);
    machine.emit(0, &THERMAL);
    let (mut first, mut second) = ([0; 5], [0; 20]);
    let mut buffers = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(rustix::io::readv(&file, &mut buffers), Ok(16));
    assert_eq!((&first, &second[..11]), (b"2 400", &b":7\n2 400:7\n"[..]));
}

#[test]
fn the_file_has_no_positions_and_no_pages() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    machine.emit(0, &THERMAL);
    assert_eq!(rustix::io::pread(&file, &mut [0; 8], 0), Err(Errno::SPIPE));
    assert_eq!(rustix::io::pwrite(&file, &[0; 8], 0), Err(Errno::SPIPE));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Start(0)), Err(Errno::SPIPE));
    // SAFETY: a new mapping at a place that the kernel chooses touches no memory of ours.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_SHARED,
            crate::client::number(&file),
            0,
        )
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(mapped, libc::MAP_FAILED);
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    assert_eq!(drain(&file), THERMAL_LINE, "and nothing was lost by asking");
}

#[test]
fn the_file_is_for_reading_and_writing_and_leaks_through_exec() {
    let machine = machine(Kernel::V7_3);
    let file = open_all(&machine, 0);
    let (status, descriptor) = flags(&file);
    assert!(status.contains(OFlags::RDWR));
    assert_eq!(descriptor, FdFlags::empty());
}

#[test]
fn a_gpu_has_any_number_of_files() {
    let machine = machine(Kernel::V7_3);
    let files: Vec<_> = (0..150).map(|_| open_all(&machine, 0)).collect();
    machine.emit(0, &THERMAL);
    assert!(files.iter().all(|file| drain(file) == THERMAL_LINE));
    set_mask(&files[0], 0);
    assert_eq!(machine.event_files().len(), 150);
}

/// The driver gives `EAGAIN`: the crate's documentation lists it among what a socket cannot imitate.
#[test]
fn a_read_of_no_bytes_takes_nothing() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        machine.emit(0, &THERMAL);
        assert_eq!(rustix::io::read(&file, &mut [0_u8; 0]), Ok(0));
        assert_eq!(drain(&file), THERMAL_LINE);
    }
}

/// The driver loses the bytes: the crate's documentation lists it among what a socket cannot imitate.
#[test]
fn a_read_into_a_bad_address_is_efault() {
    for kernel in KERNELS {
        let machine = machine(kernel);
        let file = open_all(&machine, 0);
        machine.emit(0, &THERMAL);
        // SAFETY: the kernel checks the address before it writes there, and nothing is mapped below 64 KiB.
        let read =
            unsafe { libc::read(file.as_raw_fd(), std::ptr::without_provenance_mut(1), 8192) };
        assert_eq!(read, -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
        assert_eq!(drain(&file), THERMAL_LINE);
    }
}
