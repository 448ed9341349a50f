//! A file of each version of the schema, as that version wrote it. With `GPUEV_BLESS` set, a file that is
//! missing for the present version is written.

use std::path::{Path, PathBuf};

use gpuev_store::{History, Query, VERSION, Writer};

use crate::driver::fault;
use crate::items::{all_kinds, folder, read, session};
use crate::notes::{note, notes};

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}.db"))
}

#[test]
fn every_version_is_read_and_goes_on() {
    let present = fixture(VERSION);
    if !present.exists() && std::env::var_os("GPUEV_BLESS").is_some() {
        let mut writer = Writer::open(&present, &session()).unwrap();
        all_kinds().iter().for_each(|item| writer.append(item).unwrap());
        writer.append_note(&note(10_003, Some(3))).unwrap();
        writer.close_import().unwrap();
    }
    for version in 1..=VERSION {
        assert_eq!(read(&fixture(version), &Query::new()), all_kinds(), "version {version}");
        let (_folder, path) = folder();
        std::fs::copy(fixture(version), &path).unwrap();
        let before = History::open(&path).unwrap().sessions().unwrap();
        let mut writer = Writer::open(&path, &session()).unwrap();
        writer.append(&fault(0, 1, 7)).unwrap();
        writer.append_note(&note(1_001, Some(0))).unwrap();
        writer.close_import().unwrap();
        // A session that had no id has the same one before and after.
        let after = History::open(&path).unwrap().sessions().unwrap();
        assert_eq!(after[..before.len()], before);
        let notes = notes(&History::open(&path).unwrap(), &Query::new());
        let last = notes.last().unwrap();
        assert_eq!(last.event, Some(last.place.item - 1), "version {version}: {notes:?}");
        assert_eq!(notes.len(), if version < 3 { 1 } else { 2 });
        let mut expected = all_kinds();
        expected.push(fault(0, 1, 7));
        assert_eq!(read(&path, &Query::new()), expected, "version {version}");
    }
}

/// What `docs/history-schema.md` promises to those who read with SQL.
#[test]
fn the_view_says_what_the_events_say() {
    let connection = rusqlite::Connection::open_with_flags(
        fixture(VERSION),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .unwrap();
    let select = "SELECT unix_ns, type, gpu_index, bdf, pid, CAST(process AS BLOB), seq, boot_ns,
        clock, received_boot_ns, doubtful, CAST(raw AS BLOB), tid, CAST(thread AS BLOB)
        FROM events ORDER BY id";
    let mut select = connection.prepare(select).unwrap();
    let mut rows = select.query([]).unwrap();
    for item in all_kinds() {
        let gpuev::Item::Event(event) = item else { continue };
        let row = rows.next().unwrap().unwrap();
        let text = |column| row.get::<_, String>(column).unwrap();
        let number = |column| row.get::<_, i64>(column).unwrap();
        let bytes = |column| row.get::<_, Option<Vec<u8>>>(column).unwrap();
        assert_eq!(number(0), event.time.unix_ns);
        assert_eq!(text(1), event.type_name());
        assert_eq!(number(2), i64::from(event.gpu.index));
        assert_eq!(text(3), event.gpu.bdf.to_string());
        let name = bytes(5).filter(|name| !name.is_empty());
        assert_eq!(row.get::<_, Option<u32>>(4).unwrap(), event.pid());
        assert_eq!(name.as_deref(), event.process(), "{event:?}");
        assert_eq!(row.get::<_, Option<u32>>(12).unwrap(), event.tid());
        let thread = bytes(13).filter(|name| !name.is_empty());
        assert_eq!(thread.as_deref(), event.thread(), "{event:?}");
        assert_eq!(number(6), event.seq.cast_signed());
        if event.time.boot_ns < u64::MAX {
            assert_eq!(number(7), event.time.boot_ns.cast_signed());
        }
        assert_eq!(text(8), event.time.clock.name());
        assert_eq!(number(9), event.time.received_boot_ns.cast_signed());
        assert_eq!(number(10) != 0, event.doubtful);
        assert_eq!(bytes(11).unwrap(), event.raw());
    }
    assert!(rows.next().unwrap().is_none());
}
