//! How much of the past is kept.

use std::time::Duration;

use gpuev::Item;
use gpuev_store::{History, Query, Retention, Writer};

use crate::driver::fault;
use crate::items::{folder, read, session, write};

const SECOND: u64 = 1_000_000_000;

fn first_seq(items: &[Item]) -> u64 {
    let Some(Item::Event(event)) = items.first() else { panic!("{items:?}") };
    event.seq
}

#[test]
fn what_is_older_than_the_limit_goes_in_whole_batches() {
    let (_folder, path) = folder();
    let retention = Retention { max_age: Some(Duration::from_secs(60)), max_bytes: None };
    let mut writer = Writer::open(&path, &session()).unwrap().with_retention(retention);
    for second in 0..600 {
        writer.append(&fault(second, second * SECOND, 7)).unwrap();
        if second % 10 == 9 {
            writer.commit().unwrap();
        }
    }
    writer.close_import().unwrap();
    let items = read(&path, &Query::new());
    assert_eq!(first_seq(&items), 530);
    assert_eq!(items.len(), 70);
}

#[test]
fn the_file_stays_below_its_limit() {
    let (_folder, path) = folder();
    let retention = Retention { max_age: None, max_bytes: Some(2 << 20) };
    let mut writer = Writer::open(&path, &session()).unwrap().with_retention(retention);
    for seq in 0..120_000 {
        writer.append(&fault(seq, seq * 1_000, 7)).unwrap();
        if seq % 2_000 == 1_999 {
            writer.commit().unwrap();
        }
    }
    writer.close_import().unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert!(bytes < 3 << 20, "{bytes}");
    let items = read(&path, &Query::new());
    assert!(items.len() > 5_000, "{}", items.len());
    assert_eq!(first_seq(&items) + items.len() as u64, 120_000);
}

#[test]
fn sessions_and_processes_go_with_their_items() {
    let (_folder, path) = folder();
    for pid in 1..=5 {
        write(&path, &[fault(0, u64::from(pid) * 3_600 * SECOND, pid)]);
    }
    let retention = Retention { max_age: Some(Duration::from_secs(60)), max_bytes: None };
    let mut writer = Writer::open(&path, &session()).unwrap().with_retention(retention);
    for batch in 0..3 {
        writer.append(&fault(batch, 6 * 3_600 * SECOND + batch, 6)).unwrap();
        writer.commit().unwrap();
    }
    writer.close_import().unwrap();
    assert_eq!(read(&path, &Query::new()).len(), 3);
    let sessions = History::open(&path).unwrap().sessions().unwrap();
    assert_eq!(sessions.iter().map(|session| session.id).collect::<Vec<_>>(), [6]);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let count = |table: &str| -> i64 {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap()
    };
    assert_eq!((count("process"), count("gpu"), count("batch")), (1, 1, 3));
}
