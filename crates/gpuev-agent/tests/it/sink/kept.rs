//! What waits on disk: restarts, damage, older versions, full and broken disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpuev_agent::sink::{Notice, Stats};

use super::fixture::{
    Fake, Server, Told, close, counted, firing, impatient, mirror, start, start_with, until,
};

/// Leaves `count` messages that could not be delivered.
fn fill(folder: &Path, first: usize, count: usize) {
    let told = Told::default();
    let mirror = mirror(folder, &told);
    let fake = Fake::new(Server::Fails, 4);
    let outbox = start_with(fake, impatient(), Some(mirror.clone()), &told).unwrap();
    for number in first..first + count {
        outbox.offer(&firing(&format!("a{number:03}")));
    }
    let _kept = outbox.stop(Duration::ZERO);
    close(&mirror);
}

/// What a server gets that takes everything, until there are `most`.
fn drain(folder: &Path, most: usize) -> (Vec<String>, Stats, Told) {
    let (fake, told) = (Fake::new(Server::Takes, 4), Told::default());
    let mirror = mirror(folder, &told);
    let outbox = start_with(fake.clone(), impatient(), Some(mirror.clone()), &told).unwrap();
    // The last of it: what was left has come before.
    outbox.offer(&firing("end"));
    until("all that was left", || fake.ids().contains(&"end.1".to_owned()));
    until("an empty queue", || outbox.is_idle());
    let stats = outbox.stats();
    drop(outbox);
    close(&mirror);
    let mut ids = fake.ids();
    ids.retain(|id| id != "end.1");
    assert!(ids.len() <= most, "{ids:?}");
    (ids, stats, told)
}

/// The folder is begun anew: what was told is forgotten.
fn forget(folder: &Path) {
    let file = rusqlite::Connection::open(folder.join("queue.db")).unwrap();
    file.execute("DELETE FROM told", []).unwrap();
}

#[test]
fn what_was_not_delivered_comes_after_a_restart_and_what_was_does_not() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 0, 10);
    // Some are delivered, then the server fails again.
    let (fake, told) = (Fake::new(Server::Takes, 1), Told::default());
    let mirror = mirror(folder.path(), &told);
    let outbox = start_with(fake.clone(), impatient(), Some(mirror.clone()), &told).unwrap();
    until("some delivered", || fake.ids().len() >= 3);
    fake.becomes(Server::Fails);
    let _kept = outbox.stop(Duration::from_secs(60));
    close(&mirror);
    let mut ids = fake.ids();
    let (rest, stats, _) = drain(folder.path(), 10);
    assert_eq!(stats.recovered, 10 - ids.len() as u64);
    ids.extend(rest);
    assert_eq!(ids.len(), 10);
    assert!(ids.is_sorted() && counted(&ids).len() == 10, "{ids:?}");
    forget(folder.path());
    assert_eq!(drain(folder.path(), 0).0, [""; 0], "nothing is left");
}

#[test]
fn many_restarts_with_a_server_that_fails_keep_order_and_number() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        fill(folder.path(), round * 5, 5);
    }
    let (ids, stats, _) = drain(folder.path(), 15);
    assert_eq!((ids.len(), stats.recovered, stats.lost), (15, 15, 0));
    assert!(ids.is_sorted(), "{ids:?}");
}

#[test]
fn a_file_that_is_damaged_or_of_a_newer_version_is_put_aside_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    fill(folder.path(), 0, 3);
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA user_version = 99").unwrap();
    drop(newer);
    let whole = fs::read(&path).unwrap();
    let garbage = b"no database at all, and long enough to be looked at as one".repeat(20);
    for (bytes, said) in [(whole, "newer gpuev"), (garbage, "damaged")] {
        fs::write(&path, &bytes).unwrap();
        let (ids, _, told) = drain(folder.path(), 0);
        assert_eq!(ids, [""; 0]);
        let all = told.all();
        assert!(all.iter().any(|notice| notice.to_string().contains(said)), "{all:?}");
        let mut aside = path.clone().into_os_string();
        aside.push(".damaged");
        assert_eq!(fs::read(PathBuf::from(aside)).unwrap(), bytes);
    }
}

/// A record of a segment as older versions wrote it.
fn record(id: &str, json: &str) -> Vec<u8> {
    let mut payload = vec![7, 2, 1];
    payload.extend(5_i64.to_le_bytes());
    payload.extend(u16::try_from(id.len()).unwrap().to_le_bytes());
    payload.extend(id.bytes().chain(json.bytes()));
    let mut record = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
    record.extend(crc32(&payload).to_le_bytes());
    record.extend(payload);
    record
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = !0_u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

#[test]
fn what_an_older_version_left_is_taken_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool/test.one");
    fs::create_dir_all(&spool).unwrap();
    let message = |id: &str| record(&format!("{id}.1"), &firing(id).json);
    let mut segment = b"GPUEVSP1".to_vec();
    segment.extend(message("delivered"));
    let position = segment.len() as u64;
    segment.extend(message("a1"));
    let mut bad = message("bad");
    *bad.last_mut().unwrap() ^= 1;
    segment.extend(bad);
    segment.extend(message("a2"));
    segment.extend(&message("torn")[..20]);
    fs::write(spool.join("0000000000000003.spool"), segment).unwrap();
    let mut second = b"GPUEVSP1".to_vec();
    second.extend(message("a3"));
    fs::write(spool.join("0000000000000004.spool"), second).unwrap();
    let mut place: Vec<u8> = [3_u64.to_le_bytes(), position.to_le_bytes()].concat();
    place.extend(crc32(&place).to_le_bytes());
    fs::write(spool.join("position"), place).unwrap();
    fs::write(spool.join("lock"), "").unwrap();

    let (ids, stats, told) = drain(folder.path(), 3);
    assert_eq!(ids, ["a1.1", "a2.1", "a3.1"]);
    assert_eq!(stats.recovered, 3);
    assert_eq!(told.all(), [Notice::TakenOver { messages: 3, damaged: 1 }]);
    assert!(!spool.exists());
    forget(folder.path());
    assert_eq!(drain(folder.path(), 0).0, [""; 0], "once");
}

#[test]
fn a_disk_that_cannot_be_written_does_not_stop_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let (fake, told) = (Fake::new(Server::Takes, 4), Told::default());
    // There is no such folder.
    let mirror = mirror(&path, &told);
    let outbox = start_with(fake.clone(), impatient(), Some(mirror.clone()), &told).unwrap();
    for number in 0..10 {
        outbox.offer(&firing(&format!("a{number}")));
    }
    until("all delivered", || outbox.is_idle());
    assert_eq!(counted(&fake.ids()).len(), 10);
    assert_eq!(fake.ids().len(), 10);
    assert_eq!(told.count(|notice| matches!(notice, Notice::NotKept { .. })), 1);
    // And it comes back.
    fake.becomes(Server::Fails);
    outbox.offer(&firing("later"));
    fs::create_dir(&path).unwrap();
    until("it is kept again", || told.count(|notice| *notice == Notice::KeptAgain) == 1);
    drop(outbox);
    close(&mirror);
    forget(&path);
    assert_eq!(drain(&path, 1).0, ["later.1"]);
}

/// A disk that hangs: the file cannot be opened, and cannot be said not to be.
#[test]
fn a_disk_that_hangs_does_not_stop_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let holder = rusqlite::Connection::open(&path).unwrap();
    holder.execute_batch("CREATE TABLE t (x); BEGIN EXCLUSIVE").unwrap();
    let (fake, told) = (Fake::new(Server::Takes, 4), Told::default());
    let outbox = start(fake.clone(), impatient(), Some(folder.path()), &told).unwrap();
    outbox.offer(&firing("a1"));
    until("delivered", || outbox.is_idle());
    assert_eq!(fake.ids(), ["a1.1"]);
    let _left = outbox.stop(Duration::from_secs(1));
    drop(holder);
}
