//! Bytes recorded from genuine drivers.

use std::fs;
use std::path::{Path, PathBuf};

use gpuev_kfd::framing::{line, message_length};
use gpuev_kfd::{EventType, Fields, decode};

pub(crate) fn captures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../captures");
    let kernels = fs::read_dir(root).expect("captures should be there");
    let mut files: Vec<_> = kernels
        .flat_map(|kernel| fs::read_dir(kernel.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "bin"))
        .collect();
    files.sort();
    assert!(files.len() >= 170, "{} captures", files.len());
    files
}

pub(crate) fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let Some(length) = message_length(bytes, true) {
        let (message, rest) = bytes.split_at(length);
        found.push(message);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "left over: {}", bytes.escape_ascii());
    found
}

#[test]
fn every_capture_decodes_and_encodes_to_its_bytes() {
    for path in captures() {
        let bytes = fs::read(&path).unwrap();
        let mut encoded = Vec::new();
        for message in messages(&bytes) {
            decode(line(message)).encode(&mut encoded);
            encoded.extend_from_slice(&message[line(message).len()..]);
        }
        assert_eq!(
            encoded.escape_ascii().to_string(),
            bytes.escape_ascii().to_string(),
            "{path:?}"
        );
    }
}

#[test]
fn every_capture_is_the_event_that_its_name_says() {
    for path in captures() {
        let bytes = fs::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let Ok(id) = name[..2].parse::<u32>() else { continue };
        let found = messages(&bytes);
        let first = decode(line(found[0]));
        if name.ends_with("overlong") {
            assert!(matches!(first.fields, Fields::Unknown { id: Some(5), .. }), "{path:?}");
            assert_eq!(found.len(), 1, "{path:?}");
        } else {
            assert_eq!(first.event_type(), EventType::from_id(id), "{path:?}");
            assert!(first.tail.is_empty(), "{path:?}");
        }
    }
}

#[test]
fn an_overflowing_fifo_held_whole_lines() {
    for (kernel, lines) in [("6.1.176", 34), ("6.12.95", 33), ("7.2.13", 264), ("7.3.4", 264)] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../captures");
        let bytes = fs::read(root.join(kernel).join("overflow_3000_pf_start.bin")).unwrap();
        let found = messages(&bytes);
        assert_eq!(found.len(), lines, "{kernel}");
        let faults = found
            .iter()
            .filter(|m| decode(line(m)).event_type() == Some(EventType::PageFaultStart));
        assert_eq!(faults.count(), lines, "{kernel}");
    }
}
