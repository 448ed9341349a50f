//! What is no whole history is refused, and why.

use std::fs;
use std::path::Path;

use gpuev::ErrorKind;
use gpuev_store::{History, Query, Writer};
use rusqlite::Connection;

use crate::driver::fault;
use crate::items::{folder, read, session, write};

fn refused(path: &Path) -> (ErrorKind, String) {
    let error = History::open(path).unwrap_err();
    assert!(error.hint().is_some(), "{error}");
    (error.kind(), error.to_string())
}

fn faults(count: u64) -> Vec<gpuev::Item> {
    (0..count).map(|seq| fault(seq, seq, 7)).collect()
}

#[test]
fn no_file() {
    let (_folder, path) = folder();
    let (_, told) = refused(&path);
    assert!(told.contains("run.db") && told.contains("No such file"), "{told}");
    assert!(!path.exists());
}

#[test]
fn an_empty_file_a_folder_and_other_files() {
    let (folder, path) = folder();
    fs::write(&path, "").unwrap();
    assert!(refused(&path).1.contains("empty file"));
    assert!(refused(folder.path()).1.contains("folder"));
    fs::write(&path, "a text, longer than the header of a database file. ".repeat(40)).unwrap();
    assert_eq!(refused(&path).0, ErrorKind::InvalidInput);
    let error = Writer::open(&path, &session()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// And nothing is left beside them.
#[test]
fn a_device_and_a_folder_are_not_written_to() {
    let (folder, _) = folder();
    for (path, told) in [(Path::new("/dev/null"), "device"), (folder.path(), "folder")] {
        let error = Writer::open(path, &session()).unwrap_err();
        assert!(error.to_string().contains(told) && error.hint().is_some(), "{error}");
    }
    assert!(refused(Path::new("/dev/null")).1.contains("device"));
    for left in ["/dev/null.lock", "/dev/null-journal", "/dev/null-wal"] {
        assert!(!Path::new(left).exists(), "{left}");
    }
}

#[test]
fn somebody_elses_database_is_left_alone() {
    let (_folder, path) = folder();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(refused(&path).1.contains("not a history"));
    let error = Writer::open(&path, &session()).unwrap_err();
    assert!(error.to_string().contains("not a history"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_newer_history() {
    let (_folder, path) = folder();
    write(&path, &faults(1));
    let newer = gpuev_store::VERSION + 1;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", newer).unwrap();
    let (kind, told) = refused(&path);
    assert_eq!(kind, ErrorKind::NotSupported);
    assert!(told.contains(&format!("version {newer}")), "{told}");
    assert_eq!(Writer::open(&path, &session()).unwrap_err().kind(), ErrorKind::NotSupported);
}

#[test]
fn a_truncated_history_at_any_length() {
    let (_folder, path) = folder();
    write(&path, &faults(3_000));
    let whole = fs::read(&path).unwrap();
    for length in (1..whole.len()).step_by(4_999).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        let (kind, told) = refused(&path);
        assert_eq!(kind, ErrorKind::InvalidInput, "{length}: {told}");
    }
}

/// Damage is told or does no harm; nothing panics and nothing runs for ever.
#[test]
fn a_damaged_history_at_any_place() {
    let (_folder, path) = folder();
    write(&path, &faults(3_000));
    let whole = fs::read(&path).unwrap();
    let mut told = 0;
    for place in (0..whole.len() - 64).step_by(1_777) {
        let mut damaged = whole.clone();
        damaged[place..place + 64].fill(0xa5);
        fs::write(&path, &damaged).unwrap();
        let history = match History::open(&path) {
            Ok(history) => history,
            Err(error) => {
                assert!(error.to_string().contains("run.db"), "{error}");
                told += 1;
                continue;
            }
        };
        let mut seen = 0;
        for item in history.items(&Query::new()) {
            seen += 1;
            told += u32::from(item.is_err());
        }
        assert!(seen <= 3_001);
    }
    assert!(told > 0);
}

#[test]
fn a_second_writer() {
    let (_folder, path) = folder();
    let mut first = Writer::open(&path, &session()).unwrap();
    let error = Writer::open(&path, &session()).unwrap_err();
    assert!(error.to_string().contains("another gpuev records"), "{error}");
    first.append(&fault(0, 1, 7)).unwrap();
    first.close_import().unwrap();
    write(&path, &[fault(1, 2, 7)]);
    assert_eq!(read(&path, &Query::new()).len(), 2);
}

#[test]
fn a_folder_that_is_not_there() {
    let error = Writer::open(Path::new("/nowhere/run.db"), &session()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/run.db"), "{error}");
    assert!(error.hint().is_some());
}
