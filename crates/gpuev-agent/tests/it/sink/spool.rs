//! What waits on disk: restarts, damage, full and broken disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpuev_agent::quantity::Size;
use gpuev_agent::sink::{Notice, OutboxSettings, Stats};

use super::fixture::{Fake, Server, Told, counted, firing, impatient, start, until};

/// Leaves `count` messages that could not be delivered in the spool.
fn fill(folder: &Path, count: usize) {
    let told = Told::default();
    let outbox = start(Fake::new(Server::Fails, 4), impatient(), Some(folder), &told).unwrap();
    for number in 0..count {
        outbox.offer(&firing(&format!("a{number:03}")));
    }
    assert!(outbox.stop(Duration::ZERO).is_empty());
}

/// What a server gets that takes everything.
fn drain(folder: &Path) -> (Vec<String>, Stats, Told) {
    let (fake, told) = (Fake::new(Server::Takes, 4), Told::default());
    let outbox = start(fake.clone(), impatient(), Some(folder), &told).unwrap();
    until("an empty spool", || outbox.is_idle());
    let stats = outbox.stats();
    drop(outbox);
    (fake.ids(), stats, told)
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "spool")).collect();
    paths.sort();
    paths
}

#[test]
fn what_was_not_delivered_comes_after_a_restart_and_what_was_does_not() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 10);
    // Some are delivered, then the server fails again.
    let (fake, told) = (Fake::new(Server::Takes, 1), Told::default());
    let outbox = start(fake.clone(), impatient(), Some(folder.path()), &told).unwrap();
    until("some delivered", || fake.ids().len() >= 3);
    fake.becomes(Server::Fails);
    drop(outbox);
    let mut ids = fake.ids();
    let (rest, stats, _) = drain(folder.path());
    assert_eq!(stats.recovered, 10 - ids.len() as u64);
    ids.extend(rest);
    assert_eq!(ids.len(), 10);
    assert!(ids.is_sorted() && counted(&ids).len() == 10, "{ids:?}");
    // Nothing is left.
    assert_eq!(drain(folder.path()).0, [""; 0]);
    assert_eq!(segments(folder.path()), [""; 0].map(PathBuf::from));
}

#[test]
fn many_restarts_with_a_server_that_fails_keep_order_and_number() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        fill(folder.path(), 5);
    }
    let (ids, stats, _) = drain(folder.path());
    assert_eq!((ids.len(), stats.recovered, stats.lost), (15, 15, 0));
}

#[test]
fn a_torn_end_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 5);
    let segment = &segments(folder.path())[0];
    let whole = fs::read(segment).unwrap();
    for cut in 1..40 {
        fs::write(segment, &whole[..whole.len() - cut]).unwrap();
        let (ids, _, _) = drain(folder.path());
        assert_eq!(ids, ["a000.1", "a001.1", "a002.1", "a003.1"]);
        fs::write(segment, &whole).unwrap();
        fs::remove_file(folder.path().join("position")).unwrap();
    }
}

#[test]
fn a_damaged_record_costs_that_record_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 5);
    let segment = &segments(folder.path())[0];
    let mut bytes = fs::read(segment).unwrap();
    let second = bytes.windows(6).position(|part| part == b"a001.1").unwrap();
    bytes[second] ^= 0x20;
    fs::write(segment, bytes).unwrap();
    let (ids, stats, told) = drain(folder.path());
    assert_eq!(ids, ["a000.1", "a002.1", "a003.1", "a004.1"]);
    assert_eq!(stats.lost, 1);
    assert_eq!(told.all(), [Notice::Damaged { count: 1 }]);
}

#[test]
fn a_damaged_position_repeats_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 5);
    fs::write(folder.path().join("position"), b"nonsense that is long enough").unwrap();
    assert_eq!(drain(folder.path()).0.len(), 5);
}

#[test]
fn any_bytes_for_a_segment_are_survived() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 3);
    let segment = &segments(folder.path())[0];
    let whole = fs::read(segment).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] = !bytes[at];
        fs::write(segment, bytes).unwrap();
        let _removed = fs::remove_file(folder.path().join("position"));
        let (ids, _, _) = drain(folder.path());
        assert!(ids.len() <= 3 && ids.is_sorted(), "{at}: {ids:?}");
    }
}

#[test]
fn a_full_spool_takes_what_fits_keeps_it_and_counts_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (fake, told) = (Fake::of_records(Server::Fails), Told::default());
    let settings = OutboxSettings { spool: Some(Size(64 << 10)), messages: 20, ..impatient() };
    let outbox = start(fake.clone(), settings, Some(folder.path()), &told).unwrap();
    let mut offered = 0;
    until("a full spool", || {
        outbox.offer(&firing(&format!("a{offered:05}")));
        offered += 1;
        outbox.stats().lost > 100
    });
    let size: u64 = segments(folder.path()).iter().map(|s| s.metadata().unwrap().len()).sum();
    assert!(size <= 64 << 10, "{size}");
    fake.becomes(Server::Takes);
    until("an empty spool", || outbox.is_idle());
    let stats = outbox.stats();
    assert_eq!(stats.accepted + stats.lost, offered);
    assert_eq!(stats.accepted, stats.delivered);
    // Every message that is missing is told in its place.
    let taken = fake.taken();
    let told: u64 = taken
        .iter()
        .filter_map(|message| {
            let json: serde_json::Value = serde_json::from_str(&message.json).unwrap();
            json["count"].as_u64().filter(|_| json["record"] == "lost")
        })
        .sum();
    assert_eq!(told, stats.lost);
    assert_eq!(
        taken.len() as u64,
        stats.delivered + taken.iter().filter(|m| m.id.contains('-')).count() as u64
    );
}

#[test]
fn a_disk_that_cannot_be_written_does_not_stop_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let (fake, told) = (Fake::new(Server::Takes, 4), Told::default());
    let outbox = start(fake.clone(), impatient(), Some(&path), &told).unwrap();
    // The folder goes away under it: no segment can be made.
    fs::remove_dir_all(&path).unwrap();
    for number in 0..10 {
        outbox.offer(&firing(&format!("a{number}")));
    }
    until("all delivered", || outbox.is_idle());
    assert_eq!(counted(&fake.ids()).len(), 10);
    assert_eq!(fake.ids().len(), 10);
    assert!(told.count(|notice| matches!(notice, Notice::Spool { .. })) >= 1);
    // And it comes back.
    fs::create_dir(&path).unwrap();
    fake.becomes(Server::Fails);
    outbox.offer(&firing("later"));
    until("a segment", || !segments(&path).is_empty());
    fake.becomes(Server::Takes);
    until("all delivered", || outbox.is_idle());
    assert_eq!(fake.ids().last().unwrap(), "later.1");
}

#[test]
fn two_processes_cannot_share_a_spool() {
    let folder = tempfile::tempdir().unwrap();
    let told = Told::default();
    let _first = start(Fake::new(Server::Takes, 1), impatient(), Some(folder.path()), &told);
    let second = start(Fake::new(Server::Takes, 1), impatient(), Some(folder.path()), &told);
    let error = second.unwrap_err().to_string();
    assert!(error.contains("another process uses this spool"), "{error}");
}
