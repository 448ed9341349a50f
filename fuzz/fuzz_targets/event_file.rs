//! An event file hands out every byte that was written to it, in order, however writes and reads mix.

#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use gpuev_kfd::EventFile;
use gpuev_kfd::framing::{LONGEST_LINE, message_length};
use libfuzzer_sys::fuzz_target;
use rustix::fs::OFlags;

/// Less than a pipe holds, so that no write has to wait for a read.
const LONGEST_STREAM: usize = 48 * 1024;

fuzz_target!(|data: &[u8]| {
    // The first byte says how the stream is cut and when it is read; the captures begin with their event's
    // number, which serves as well.
    let Some(&plan) = data.first() else { return };
    let stream = &data[..data.len().min(LONGEST_STREAM)];
    let (mut file, mut driver) = pipe();
    let mut taken = Vec::with_capacity(stream.len());
    let mut drained_early = false;

    let mut state = u64::from(plan) | 1 << 40;
    let mut rest = stream;
    while !rest.is_empty() {
        let length = rest.len().min(1 + random(&mut state) % (1 << (plan % 12)));
        let (chunk, later) = rest.split_at(length);
        rest = later;
        driver.write_all(chunk).expect("a pipe should hold the stream");
        match random(&mut state) % 8 {
            0 => {}
            1 => {
                read_all(&mut file, &mut taken);
                drained_early = true;
            }
            _ => read_once(&mut file, &mut taken),
        }
    }
    read_all(&mut file, &mut taken);

    let pending = file.pending().to_vec();
    let delivered: Vec<u8> = taken.iter().flatten().copied().chain(pending).collect();
    assert_eq!(delivered, stream, "bytes were lost or made up");
    assert!(taken.iter().all(|message| !message.is_empty() && message.len() <= LONGEST_LINE));
    if !drained_early {
        assert_eq!(taken, split(stream), "the cuts changed the messages");
    }

    drop(driver);
    assert!(file.read().is_err(), "a file that ended is an error");
});

fn pipe() -> (EventFile, File) {
    let (reader, writer) = std::io::pipe().expect("a pipe should open");
    let reader = OwnedFd::from(reader);
    rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK).expect("a pipe can be told not to wait");
    let file = EventFile::new(reader).expect("a pipe can be closed on exec");
    (file, File::from(OwnedFd::from(writer)))
}

fn read_once(file: &mut EventFile, taken: &mut Vec<Vec<u8>>) {
    let new = file.read().expect("a pipe should be readable");
    assert!(new > 0, "it was written to just now");
    take(file, taken);
}

/// Reads until the driver holds no more.
fn read_all(file: &mut EventFile, taken: &mut Vec<Vec<u8>>) {
    while file.read().expect("a pipe should be readable") > 0 {
        take(file, taken);
    }
    take(file, taken);
}

fn take(file: &mut EventFile, taken: &mut Vec<Vec<u8>>) {
    while let Some(message) = file.next_message() {
        taken.push(message.to_vec());
    }
}

fn split(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some(length) = message_length(stream, true) {
        found.push(stream[..length].to_vec());
        stream = &stream[length..];
    }
    found
}

fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 20) as usize
}
