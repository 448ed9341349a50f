//! What is written is what is read.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gpuev::time::Anchor;
use gpuev::{EventType, Filter, Item};
use gpuev_store::{History, Place, Query, Row, Session, Writer};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::driver::{BOOTED_UNIX_NS, doubtful_event, event, fault, gap, gpu};

pub(crate) fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    (folder, path)
}

pub(crate) fn session() -> Session {
    Session::unknown(Anchor { boot_ns: 0, unix_ns: BOOTED_UNIX_NS })
}

pub(crate) fn write(path: &Path, items: &[Item]) {
    let mut writer = Writer::open(path, &session()).unwrap();
    for item in items {
        writer.append(item).unwrap();
    }
    writer.close_import().unwrap();
}

pub(crate) fn read(path: &Path, query: &Query) -> Vec<Item> {
    History::open(path).unwrap().items(query).map(Result::unwrap).collect()
}

/// Every kind of line, odd ones included, and gaps between them.
pub(crate) fn all_kinds() -> Vec<Item> {
    let lines: [&[u8]; 18] = [
        b"1 1234:my job",
        b"1 1234:a\nb",
        b"1 1234:\xff\xfe",
        b"2 400:7",
        b"3 1 job hang on ring:gfx_0.0.0",
        b"4 1 ",
        b"5 5000 -4660 @7f0000000(200) 0->1b11 ffffffff:ffffffff 1",
        b"6 6000 -4660 @7f0000000(200) 0->1b11 1 -12",
        b"7 7000 -4660 @7fff00000(1b11) W",
        b"8 18446744073709551615 -4660 @7fff00000(1b11) M",
        b"9 9000 -0 1b11 1",
        b"a 9100 -4660 1b11 \0",
        b"b 9200 -4660 @7f0000000(200) 1b11 0",
        b"c 1234 ",
        b"d 1234 python3",
        b"ff unheard of",
        b"",
        b"7 999999999999999999999999 -1 @0(0) R",
    ];
    let mut items: Vec<Item> = (0..)
        .zip(lines)
        .map(|(seq, line)| {
            let index = u32::try_from(seq % 8).unwrap();
            doubtful_event(index, seq, 10_000 + seq, line, seq % 5 == 4)
        })
        .collect();
    items.insert(3, gap(2, 100, 900, None));
    items.insert(4, gap(2, 100, 900, Some(u64::MAX)));
    items.push(gap(7, 100, 90_000, Some(3)));
    items
}

#[test]
fn what_is_read_is_what_was_written() {
    let (_folder, path) = folder();
    let items = all_kinds();
    write(&path, &items);
    assert_eq!(read(&path, &Query::new()), items);
}

#[test]
fn a_second_session_goes_on_in_the_same_file() {
    let (_folder, path) = folder();
    write(&path, &all_kinds());
    let later = [event(1, 0, 50, b"2 400:8"), gap(1, 60, 70, None)];
    write(&path, &later);
    let expected: Vec<Item> = all_kinds().into_iter().chain(later).collect();
    assert_eq!(read(&path, &Query::new()), expected);
    let history = History::open(&path).unwrap();
    let sessions = history.sessions().unwrap();
    let first_items: Vec<i64> = sessions.iter().map(|session| session.first_item).collect();
    assert_eq!(first_items, [1, 22]);
    let mut of_second = 0;
    let visit = |place: Place, _: Row<'_>| {
        of_second += i32::from(place.session == 2);
        ControlFlow::Continue(())
    };
    assert_eq!(history.visit(&Query::new(), visit).unwrap(), 23);
    assert_eq!(of_second, 2);
}

#[test]
fn a_session_says_where_and_when() {
    let (_folder, path) = folder();
    let mut session = session();
    session.host = Some("node17".to_owned());
    session.boot_id = Some("4e9d".to_owned());
    session.kernel = Some("6.12.95".to_owned());
    session.gpus = vec![(gpu(0), Some("MI300X".to_owned())), (gpu(1), None)];
    Writer::open(&path, &session).unwrap().close().unwrap();
    let mut recorded = History::open(&path).unwrap().sessions().unwrap().remove(0).session;
    assert!(recorded.ended.is_some());
    assert_eq!(recorded.alive.take(), recorded.ended.take());
    assert_eq!(recorded, session);
}

#[test]
fn a_reader_follows_the_writer() {
    let (_folder, path) = folder();
    let mut writer = Writer::open(&path, &session()).unwrap();
    let history = History::open(&path).unwrap();
    let mut items = history.items(&Query::new());
    assert!(items.next().is_none());
    for round in 0..5_u64 {
        for seq in round * 700..(round + 1) * 700 {
            writer.append(&fault(seq, seq * 1_000, 7)).unwrap();
        }
        assert!(items.next().is_none(), "not before it is committed");
        writer.commit().unwrap();
        let seqs: Vec<u64> = items.by_ref().map(|item| seq(&item.unwrap())).collect();
        assert_eq!(seqs, Vec::from_iter(round * 700..(round + 1) * 700));
    }
}

fn seq(item: &Item) -> u64 {
    let Item::Event(event) = item else { panic!("{item:?}") };
    event.seq
}

#[test]
fn time_and_filter_choose() {
    let (_folder, path) = folder();
    let mut writer = Writer::open(&path, &session()).unwrap();
    for seq in 0..1_000_u64 {
        let pid = 7 + u32::try_from(seq % 2).unwrap();
        writer.append(&fault(seq, seq * 1_000_000, pid)).unwrap();
        if seq % 50 == 49 {
            writer.commit().unwrap();
        }
    }
    writer.append(&gap(1, 300_000_000, 900_000_000, None)).unwrap();
    writer.close_import().unwrap();
    let at = |ms: i64| BOOTED_UNIX_NS + ms * 1_000_000;
    let chosen = |query: Query| {
        let (events, gaps): (Vec<_>, Vec<_>) =
            read(&path, &query).into_iter().partition(|item| matches!(item, Item::Event(_)));
        let seqs: Vec<u64> = events.iter().map(seq).collect();
        (seqs, gaps.len())
    };
    let between = Query::new().from_unix_ns(at(295)).to_unix_ns(at(298));
    assert_eq!(chosen(between), (vec![295, 296, 297], 0));
    let between = Query::new().from_unix_ns(at(500)).to_unix_ns(at(501));
    assert_eq!(chosen(between), (vec![500], 1), "a gap counts where it touches the time");
    let of_pid = Query::new().filter(Filter::new().pids([8])).from_unix_ns(at(995));
    assert_eq!(chosen(of_pid), (vec![995, 997, 999], 0));
    let of_gpu = Query::new().filter(Filter::new().gpus([gpu(1)]));
    assert_eq!(chosen(of_gpu), (vec![], 1));
    let of_type = Query::new().filter(Filter::new().types([EventType::VmFault], false));
    assert_eq!(chosen(of_type), (vec![], 1));
    assert_eq!(chosen(Query::new().after_item(997)), (vec![997, 998, 999], 1));
    assert_eq!(chosen(Query::new().from_unix_ns(at(1_000))), (vec![], 0));
}

#[test]
fn a_visit_stops_where_it_is_told_to_and_may_read_on() {
    let (_folder, path) = folder();
    write(&path, &Vec::from_iter((0..100).map(|seq| fault(seq, seq, 7))));
    let history = History::open(&path).unwrap();
    let last = history
        .visit(&Query::new(), |place, _| {
            assert_eq!(history.last_item().unwrap(), 100);
            if place.item == 42 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(last, 42);
    assert_eq!(history.items(&Query::new().after_item(last)).count(), 58);
}

#[test]
fn a_file_that_is_closed_is_one_file_and_needs_no_rights_to_write() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = folder();
    write(&path, &all_kinds());
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["run.db"]);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o555)).unwrap();
    assert_eq!(read(&path, &Query::new()), all_kinds());
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Any bytes, in any order, in any batches.
    #[test]
    fn any_bytes_come_back(
        rows in prop::collection::vec(
            (
                0..8_u32,
                any::<u64>(),
                0..=u64::MAX / 4,
                prop::collection::vec(any::<u8>(), 0..140),
                any::<bool>(),
                0..8_u8,
            ),
            0..60,
        ),
    ) {
        let (_folder, path) = folder();
        let mut writer = Writer::open(&path, &session()).unwrap();
        let mut items = Vec::new();
        for (index, seq, received, line, doubtful, what) in rows {
            let item = if what == 0 {
                gap(index, received / 2, received, Some(seq))
            } else {
                doubtful_event(index, seq, received, &line, doubtful)
            };
            writer.append(&item).unwrap();
            if what == 1 {
                writer.commit().unwrap();
            }
            items.push(item);
        }
        writer.close_import().unwrap();
        prop_assert_eq!(read(&path, &Query::new()), items);
    }
}
