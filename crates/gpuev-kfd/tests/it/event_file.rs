//! The event file, over a socket in the driver's place.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use gpuev_kfd::{EventFile, EventMask, EventType};

fn pair() -> (UnixStream, EventFile) {
    let (driver, reader) = UnixStream::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    (driver, EventFile::new(OwnedFd::from(reader)).unwrap())
}

#[test]
fn programs_started_from_here_do_not_inherit_the_file() {
    let (_driver, file) = pair();
    let flags = rustix::io::fcntl_getfd(file.as_fd()).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn the_mask_is_eight_bytes_in_one_write() {
    let (mut driver, file) = pair();
    let mask: EventMask = [EventType::VmFault, EventType::ProcessEnd].into_iter().collect();
    file.set_mask(mask.of_all_processes()).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(driver.read(&mut bytes).unwrap(), 8);
    let bits = u64::from_ne_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bits, 1 << 63 | 1 << 12 | 1);
}

#[test]
fn an_empty_file_is_nothing_read_and_a_closed_one_is_an_end() {
    let (driver, mut file) = pair();
    assert_eq!(file.read().unwrap(), 0);
    drop(driver);
    assert_eq!(file.read().unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn lines_in_fragments_of_every_size_arrive_whole() {
    let text = b"2 400:7\n7 1 -2 @7(1) R\na 1 -2 5a21 \0\n";
    for size in 1..=text.len() {
        let (mut driver, mut file) = pair();
        let mut found = Vec::new();
        for piece in text.chunks(size) {
            driver.write_all(piece).unwrap();
            assert_eq!(file.read().unwrap(), piece.len());
            while let Some(message) = file.next_message() {
                found.push(message.to_vec());
            }
        }
        assert_eq!(found.len(), 3, "pieces of {size}");
        assert_eq!(found.concat(), text);
        assert!(file.pending().is_empty());
    }
}

#[test]
fn a_drained_over_long_message_is_handed_out() {
    let (mut driver, mut file) = pair();
    driver.write_all(&[b'5'; 95]).unwrap();
    file.read().unwrap();
    assert_eq!(file.next_message(), None);
    assert_eq!(file.read().unwrap(), 0, "EAGAIN: the driver holds no more");
    assert_eq!(file.next_message().map(<[u8]>::len), Some(95));
}

#[test]
fn reading_before_taking_loses_nothing() {
    let (mut driver, mut file) = pair();
    let line = b"2 400:7\n";
    for _ in 0..5000 {
        driver.write_all(line).unwrap();
        file.read().unwrap();
    }
    let mut count = 0;
    while let Some(message) = file.next_message() {
        assert_eq!(message, line);
        count += 1;
    }
    assert_eq!(count, 5000);
}
