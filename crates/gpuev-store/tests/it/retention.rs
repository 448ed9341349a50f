//! How much of the past is kept.

use std::time::Duration;

use gpuev::Item;
use gpuev::time::Anchor;
use gpuev_store::report::Options;
use gpuev_store::{Histories, History, Query, Retention, Session, Writer};

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
    let sessions = Histories::open_file(&path).unwrap().sessions().unwrap();
    assert_eq!(sessions.iter().map(|session| session.id).collect::<Vec<_>>(), [6]);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let count = |table: &str| -> i64 {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap()
    };
    assert_eq!((count("process"), count("gpu"), count("batch")), (1, 1, 3));
}

/// The numbers of the events that are left of sessions that begin at these anchors and have an event each second,
/// which a recorder of an hour's memory wrote one after the other.
fn left_of(sessions: &[(Option<&str>, Anchor, u64)]) -> Vec<usize> {
    let (_folder, path) = folder();
    let retention = Retention { max_age: Some(Duration::from_secs(3_600)), max_bytes: None };
    for (boot_id, started, seconds) in sessions {
        let mut session = Session::unknown(*started);
        session.boot_id = boot_id.map(str::to_owned);
        let mut writer = Writer::import(&path, &session).unwrap().with_retention(retention);
        for second in 0..*seconds {
            let boot_ns = started.boot_ns + second * SECOND;
            let Item::Event(event) = fault(second, boot_ns, 7) else { panic!() };
            let mut facts = event.facts();
            facts.time.unix_ns = started.unix_ns_of(boot_ns);
            writer.append(&Item::Event(gpuev::Event::from_facts(facts))).unwrap();
            if second % 10 == 9 {
                writer.commit().unwrap();
            }
        }
        writer.close_import().unwrap();
    }
    let history = History::open(&path).unwrap();
    let mut left = vec![0; sessions.len()];
    let visit = |place: gpuev_store::Place, _: gpuev_store::Row<'_>| {
        left[usize::try_from(place.session).unwrap() - 1] += 1;
        std::ops::ControlFlow::Continue(())
    };
    history.visit(&Query::new(), visit).unwrap();
    left
}

const NOW: i64 = 1_795_305_600_000_000_000;
const HOUR: u64 = 3_600 * SECOND;

fn at(boot_ns: u64, unix_ns: i64) -> Anchor {
    Anchor { boot_ns, unix_ns }
}

#[test]
fn no_step_of_the_wall_clock_deletes_anything() {
    // Without a battery it is 1970 until the network says otherwise; or somebody sets it to another century.
    for (before, after) in [(0, NOW), (NOW, 4_000_000_000_000_000_000), (NOW, 0)] {
        let first = (Some("a"), at(2 * HOUR, before), 100);
        let second = (Some("a"), at(2 * HOUR + 200 * SECOND, after), 100);
        assert_eq!(left_of(&[first, second]), [100, 100], "{before} {after}");
    }
    // In the first hour after a boot the clock is not believed.
    let first = (Some("a"), at(2 * HOUR, NOW), 100);
    let second = (Some("b"), at(60 * SECOND, 4_000_000_000_000_000_000), 100);
    assert_eq!(left_of(&[first, second]), [100, 100]);
}

#[test]
fn a_machine_that_was_off_for_long_has_grown_older() {
    let first = (Some("a"), at(2 * HOUR, NOW), 100);
    let day = 24 * 3_600 * 1_000_000_000;
    let second = (Some("b"), at(2 * HOUR, NOW + day), 100);
    assert_eq!(left_of(&[first, second]), [0, 100]);
}

#[test]
fn what_is_deleted_is_told_and_counts_as_not_watched() {
    let (_folder, path) = folder();
    let retention = Retention { max_age: Some(Duration::from_secs(60)), max_bytes: None };
    let session = Session::unknown(at(1_000 * SECOND, NOW));
    let mut writer = Writer::import(&path, &session).unwrap().with_retention(retention);
    for second in 0..600 {
        writer.append(&fault(second, (1_000 + second) * SECOND, 7)).unwrap();
        if second % 10 == 9 {
            writer.commit().unwrap();
        }
    }
    writer.close_import().unwrap();
    let history = Histories::open_file(&path).unwrap();
    let recorded = history.sessions().unwrap().remove(0);
    let [gone] = &recorded.not_kept[..] else { panic!("{:?}", recorded.not_kept) };
    assert_eq!((gone.first, gone.last, &*gone.cause), (1, 530, "retention"));
    let report = history.report(&Query::new(), Options::default()).unwrap();
    // Up to the receipt of the last event that is gone nothing is known.
    assert_eq!((report.events, report.observed_ns), (70, 70 * SECOND));
    assert!(report.not_kept && !report.is_complete());
}

#[test]
fn the_file_and_its_log_stay_below_the_limit() {
    let (_folder, path) = folder();
    let limit = 8 << 20;
    let retention = Retention { max_age: None, max_bytes: Some(limit) };
    let mut writer = Writer::open(&path, &session()).unwrap().with_retention(retention);
    let mut most = 0;
    for seq in 0..200_000 {
        writer.append(&fault(seq, seq * 1_000, 7)).unwrap();
        most = most.max(writer.size_bytes());
    }
    assert!(most <= limit, "{most}");
    assert!(!writer.is_log_held());
}

#[test]
fn a_reader_that_holds_the_log_is_noticed() {
    let (_folder, path) = folder();
    let retention = Retention { max_age: None, max_bytes: Some(4 << 20) };
    let mut writer = Writer::open(&path, &session()).unwrap().with_retention(retention);
    let reader = rusqlite::Connection::open(&path).unwrap();
    let hold = reader.unchecked_transaction().unwrap();
    let sessions: i64 =
        hold.query_row("SELECT count(*) FROM session", [], |row| row.get(0)).unwrap();
    assert_eq!(sessions, 1);
    let mut held = false;
    for seq in 0..60_000 {
        writer.append(&fault(seq, seq * 1_000, 7)).unwrap();
        held |= writer.is_log_held();
    }
    assert!(held);
    drop(hold);
    for seq in 60_000..100_000 {
        writer.append(&fault(seq, seq * 1_000, 7)).unwrap();
    }
    writer.commit().unwrap();
    assert!(!writer.is_log_held(), "{}", writer.log_bytes());
}

#[test]
fn what_is_too_old_goes_though_nothing_comes() {
    let (_folder, path) = folder();
    let retention = Retention { max_age: Some(Duration::from_millis(1)), max_bytes: None };
    let now = Anchor::now();
    let mut writer = Writer::open(&path, &Session::unknown(now)).unwrap().with_retention(retention);
    writer.append(&fault(0, now.boot_ns - SECOND, 7)).unwrap();
    writer.commit().unwrap();
    assert_eq!(read(&path, &Query::new()).len(), 1, "the newest stays while something comes");
    while !read(&path, &Query::new()).is_empty() {
        let next = writer.tick().unwrap();
        assert!(next <= Duration::from_secs(1));
        std::thread::sleep(next);
    }
    // The number of what is gone is not given again.
    writer.append(&fault(1, now.boot_ns, 7)).unwrap();
    drop(writer);
    assert_eq!(History::open(&path).unwrap().last_item().unwrap(), 2);
}
