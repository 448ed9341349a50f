//! Recorded streams through the FIFO.

use std::path::Path;
use std::time::Duration;

use gpuev_sim::{Capture, Client, Kernel, SimMachine};

use crate::client::{open, read};

fn captures(version: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../captures").join(version);
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn every_capture_comes_out_as_it_went_in() {
    for (version, kernel) in [("6.1.176", Kernel::V6_1), ("7.3.4", Kernel::V7_3)] {
        let machine = SimMachine::builder().kernel(kernel).build().unwrap();
        let file = open(&machine, 0, &Client::unprivileged(5), u64::MAX >> 1);
        for capture in captures(version) {
            let played = machine.play_capture(0, Capture::new(&capture)).unwrap();
            assert_eq!(played.bytes, capture.len() as u64);
            let mut out = Vec::new();
            while let Ok(bytes) = read(&file, 1 << 16) {
                out.extend(bytes);
            }
            assert_eq!(out, capture);
        }
    }
}

/// What is longer than the FIFO waits for the reader.
#[test]
fn a_long_stream_waits_for_the_reader() {
    let machine = SimMachine::builder().kernel(Kernel::V6_1).build().unwrap();
    let file = open(&machine, 0, &Client::root(), u64::MAX);
    let stream: Vec<u8> = captures("6.1.176").concat().repeat(4);
    let stream: Vec<u8> =
        stream.split_inclusive(|byte| *byte == b'\n').flatten().copied().collect();
    let out = std::thread::scope(|scope| {
        let player = scope.spawn(|| machine.play_capture(0, Capture::new(&stream)).unwrap());
        let mut out = Vec::new();
        while out.len() < stream.len() {
            match read(&file, 100) {
                Ok(bytes) => out.extend(bytes),
                Err(_) => std::thread::yield_now(),
            }
        }
        assert_eq!(player.join().unwrap().bytes, stream.len() as u64);
        out
    });
    assert!(out == stream);
    assert_eq!(machine.event_files()[0].dropped_lines, 0);
}

#[test]
fn an_overload_drops_by_the_rules() {
    let machine = SimMachine::builder().kernel(Kernel::V6_1).build().unwrap();
    let file = open(&machine, 0, &Client::root(), u64::MAX);
    let stream = b"2 400:7\n".repeat(1000);
    let played = machine.play_capture(0, Capture::new(&stream).overload()).unwrap();
    assert_eq!(played.messages, 1000);
    let stats = machine.event_files()[0];
    assert_eq!((stats.accepted_lines, stats.dropped_lines), (128, 872));
    assert_eq!(read(&file, 1 << 16).unwrap(), b"2 400:7\n".repeat(128));
}

#[test]
fn a_reader_that_never_reads_is_given_up_on() {
    let machine = SimMachine::builder().kernel(Kernel::V6_1).build().unwrap();
    let _file = open(&machine, 0, &Client::root(), u64::MAX);
    let stream = b"2 400:7\n".repeat(1000);
    let capture = Capture::new(&stream).patience(Duration::from_millis(1));
    let error = machine.play_capture(0, capture).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("messages: 128"), "{error}");
}

#[test]
fn a_name_with_a_newline_is_one_message() {
    let machine = SimMachine::builder().kernel(Kernel::V7_3).build().unwrap();
    let file = open(&machine, 0, &Client::root(), 1);
    let played = machine.play_capture(0, Capture::new(b"1 1234:a\nb\n7 12 -3 @1(2) W\n")).unwrap();
    assert_eq!(played.messages, 2);
    assert_eq!(read(&file, 100).unwrap(), b"1 1234:a\nb\n", "the mask lets faults through only");
}

#[test]
fn noise_is_played_too() {
    let machine = SimMachine::new().unwrap();
    let file = open(&machine, 0, &Client::root(), u64::MAX);
    let noise: Vec<u8> = (0..=255).cycle().take(4000).collect();
    assert_eq!(machine.play_capture(0, Capture::new(&noise)).unwrap().bytes, 4000);
    assert_eq!(read(&file, 1 << 16).unwrap(), noise);
}
