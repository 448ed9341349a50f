//! The same rows as the writer's, inserted by SQLite alone: what a writer cannot be cheaper than.

use std::path::Path;

use gpuev::Item;
use rusqlite::Connection;

use crate::cpu_seconds;
use crate::stream::Stream;

/// Rows of a transaction, as the writer has them.
const BATCH: u64 = 32_768;

/// Gives the CPU seconds that it took.
pub(crate) fn write(path: &Path, events: u64) -> f64 {
    let made: Vec<Item> = Stream::default().take(200_000).collect();
    let connection = Connection::open(path).expect("it should open");
    connection
        .execute_batch(
            "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE event (id INTEGER PRIMARY KEY, gpu INTEGER NOT NULL, process INTEGER,
                received_boot_ns INTEGER NOT NULL, unix_ns INTEGER NOT NULL, raw NOT NULL, type INTEGER,
                seq INTEGER NOT NULL);",
        )
        .expect("a table should be made");
    let cpu = cpu_seconds();
    let all = made.iter().cycle().zip(0..events);
    for (item, number) in all {
        let Item::Event(event) = item else { continue };
        if number % BATCH == 0 {
            connection.execute_batch("BEGIN").expect("a batch should begin");
        }
        let mut insert = connection
            .prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")
            .expect("it should be prepared");
        let raw = std::str::from_utf8(event.raw()).unwrap_or_default();
        let times = (event.time.received_boot_ns.cast_signed(), event.time.unix_ns);
        let kind = event.event_type().map(gpuev::EventType::id);
        let row = (number.cast_signed() + 1, 1, 1, times.0, times.1, raw, kind, 0);
        insert.execute(row).expect("a row should be written");
        if number % BATCH == BATCH - 1 || number + 1 == events {
            connection.execute_batch("COMMIT").expect("a batch should be committed");
        }
    }
    cpu_seconds() - cpu
}
