//! Decoding and reading allocate nothing, whatever comes.

use std::io::Write;
use std::os::fd::OwnedFd;

use allocation_counter::measure;
use gpuev_kfd::framing::line;
use gpuev_kfd::{EventFile, decode};

use crate::captures::captures;

fn streams() -> Vec<(String, Vec<u8>)> {
    let read =
        |path: std::path::PathBuf| (path.display().to_string(), std::fs::read(path).unwrap());
    captures().into_iter().map(read).collect()
}

#[test]
fn decoding_a_line_allocates_nothing() {
    for (name, stream) in streams() {
        let info = measure(|| {
            for line in stream.split(|&byte| byte == b'\n') {
                std::hint::black_box(decode(line));
            }
        });
        assert_eq!(info.count_total, 0, "{name}");
    }
}

#[test]
fn reading_allocates_one_buffer_for_good() {
    let (reader, mut driver) = std::io::pipe().unwrap();
    let mut file = EventFile::new(OwnedFd::from(reader)).unwrap();
    let mut read_all = |stream: &[u8]| {
        for held in stream.chunks(8192) {
            driver.write_all(held).unwrap();
            file.read().unwrap();
            while let Some(message) = file.next_message() {
                std::hint::black_box(decode(line(message)));
            }
        }
    };
    let streams = streams();
    assert_eq!(measure(|| read_all(&streams[0].1)).count_total, 1, "the buffer");
    for (name, stream) in streams {
        assert_eq!(measure(|| read_all(&stream)).count_total, 0, "{name}");
    }
}
