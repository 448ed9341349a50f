//! A report reads packed events where they are, and rows where not: it says the same.

use std::path::{Path, PathBuf};

use gpuev::{ErrorKind, Filter, GapCause};
use gpuev_store::report::Options;
use gpuev_store::{Histories, Query, Writer};
use rusqlite::Connection;

use super::stream::Stream;
use crate::items::{all_kinds, folder, read, session, write};

fn sql(path: &Path, statement: &str) {
    Connection::open(path).unwrap().execute_batch(statement).unwrap();
}

fn told(path: &Path, query: &Query) -> String {
    Histories::open_file(path).unwrap().report(query, Options::default()).unwrap().json()
}

/// Two sessions in batches of some hundred, with gaps, and one with every kind of line.
fn history(path: &Path) {
    for seed in 0..2 {
        let mut stream = Stream::of_story("mixed", 2, 2_000);
        stream.gap(seed, GapCause::SubscriberSlow, Some(3), 1_000, 2_000);
        let mut writer = Writer::open(path, &session()).unwrap();
        for (number, item) in stream.items.iter().enumerate() {
            writer.append(item).unwrap();
            if number % 700 == 699 {
                writer.commit().unwrap();
            }
        }
        writer.close_import().unwrap();
    }
    write(path, &all_kinds());
}

#[test]
fn from_rows_it_is_the_same() {
    let (_folder, path) = folder();
    history(&path);
    // No version before 4 knows it.
    sql(&path, "UPDATE session SET alive_boot_ns = NULL, alive_unix_ns = NULL");
    let middle = Stream::unix_ns(20_000_000_000);
    let queries = [
        Query::new(),
        Query::new().from_unix_ns(middle),
        Query::new().to_unix_ns(middle),
        Query::new().filter(Filter::new().types([gpuev::EventType::PageFaultStart], true)),
        Query::new().after_item(1_000),
    ];
    let packed = queries.each_ref().map(|query| told(&path, query));
    assert_eq!(packed.iter().collect::<std::collections::HashSet<_>>().len(), queries.len());
    sql(&path, "DELETE FROM packed WHERE last_item % 2 = 0");
    assert_eq!(queries.each_ref().map(|query| told(&path, query)), packed);
    sql(&path, "DELETE FROM packed");
    assert_eq!(queries.each_ref().map(|query| told(&path, query)), packed);
    sql(&path, "DROP TABLE packed; PRAGMA user_version = 1");
    assert_eq!(queries.each_ref().map(|query| told(&path, query)), packed, "a file of version 1");
}

#[test]
fn damage_of_what_is_packed_is_told_and_harms_no_row() {
    let (_folder, path) = folder();
    history(&path);
    let whole = told(&path, &Query::new());
    let rows = read(&path, &Query::new());
    for damage in ["x'ff'", "x'00' || substr(events, 2)", "substr(events, 1, length(events) - 1)"] {
        let copy = PathBuf::from(format!("{}.damaged", path.display()));
        std::fs::copy(&path, &copy).unwrap();
        sql(&copy, &format!("UPDATE packed SET events = CAST({damage} AS BLOB)"));
        let report = Histories::open_file(&copy).unwrap().report(&Query::new(), Options::default());
        let error = report.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{damage}");
        assert!(error.hint().unwrap().contains("DELETE FROM packed"), "{damage}: {error}");
        assert_eq!(read(&copy, &Query::new()), rows);
        sql(&copy, "DELETE FROM packed");
        assert_eq!(told(&copy, &Query::new()), whole.replace("run.db", "run.db.damaged"));
    }
}
