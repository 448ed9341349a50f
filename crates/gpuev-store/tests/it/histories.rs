//! Several files read as one history.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gpuev::time::Anchor;
use gpuev::{EventType, Filter, Item};
use gpuev_store::export::{ExportFormat, Exporter};
use gpuev_store::report::{Options, Report};
use gpuev_store::{Entry, Histories, History, Query, Retention, Session, Writer};

use crate::driver::{BOOTED_UNIX_NS, event, fault, gap, gpu};
use crate::items::{folder, session};

const SECOND: u64 = 1_000_000_000;

/// A session of this host that begins so long after the machine was booted.
fn begun(host: &str, seconds: u64) -> Session {
    let boot_ns = seconds * SECOND;
    let unix_ns = BOOTED_UNIX_NS.saturating_add_unsigned(boot_ns);
    let mut session = Session::unknown(Anchor { boot_ns, unix_ns });
    session.host = Some(host.to_owned());
    session.boot_id = Some(format!("boot of {host}"));
    session.gpus = vec![(gpu(0), None)];
    session
}

fn write(path: &Path, session: &Session, items: &[Item]) {
    let mut writer = Writer::import(path, session).unwrap();
    items.iter().for_each(|item| writer.append(item).unwrap());
    writer.close_import().unwrap();
}

fn faults(seconds: std::ops::Range<u64>) -> Vec<Item> {
    seconds.map(|second| fault(second, second * SECOND, 7)).collect()
}

/// The numbers of the events that each session has, in the order in which all are read.
fn read(histories: &Histories, query: &Query) -> Vec<(i64, Vec<u64>)> {
    let mut read: Vec<(i64, Vec<u64>)> = Vec::new();
    let mut entries = histories.entries(query);
    while let Some(entry) = entries.next_entry().unwrap() {
        match entry {
            Entry::Session(recorded) => read.push((recorded.id, Vec::new())),
            Entry::Item(place, Item::Event(event)) => {
                let last = read.last_mut().unwrap();
                assert_eq!(place.session, last.0);
                last.1.push(event.seq);
            }
            Entry::Item(..) | Entry::Note(_) => {}
        }
    }
    read
}

fn report(histories: &Histories) -> Report {
    histories.report(&Query::new(), Options::default()).unwrap()
}

fn ndjson(histories: &Histories) -> String {
    let mut exporter = Exporter::new(ExportFormat::Ndjson, Vec::new()).unwrap();
    let mut entries = histories.entries(&Query::new());
    while let Some(entry) = entries.next_entry().unwrap() {
        exporter.entry(&entry).unwrap();
    }
    String::from_utf8(exporter.finish().unwrap().0).unwrap()
}

#[test]
fn sessions_of_several_files_come_in_the_order_in_which_they_began() {
    let (folder, _) = folder();
    let [a, b] = ["a.db", "b.db"].map(|name| folder.path().join(name));
    write(&a, &begun("n", 10), &faults(10..13));
    write(&b, &begun("n", 20), &faults(20..22));
    write(&a, &begun("n", 30), &faults(30..31));
    let expected = vec![(1, vec![10, 11, 12]), (2, vec![20, 21]), (3, vec![30])];
    let all = Histories::open(&[folder.path()]).unwrap();
    assert_eq!(read(&all, &Query::new()), expected);
    assert_eq!(read(&Histories::open(&[&b, &a]).unwrap(), &Query::new()), expected);
    let later = Query::new().from_unix_ns(BOOTED_UNIX_NS.saturating_add_unsigned(21 * SECOND));
    assert_eq!(read(&all, &later), [(2, vec![21]), (3, vec![30])]);
    let report = report(&all);
    assert_eq!((report.events, report.source_count), (6, 3));
    assert_eq!(
        report.observed_ns,
        3 * SECOND + 3000,
        "2 s, 1 s, nothing, and 1 µs to read each last event"
    );
    assert_eq!((report.gpus.len(), &report.gpus[0].host), (1, &None));
    // The same with the sessions of one file.
    let one = folder.path().join("one.ndjson");
    std::fs::write(&one, ndjson(&all)).unwrap();
    assert_eq!(ndjson(&all).matches("\"record\":\"session\"").count(), 3);
}

#[test]
fn what_several_files_hold_counts_once() {
    let (folder, run) = folder();
    write(&run, &begun("n", 0), &faults(0..3));
    let copy = folder.path().join("copy.db");
    std::fs::copy(&run, &copy).unwrap();
    write(&run, &begun("n", 10), &faults(10..12));
    std::os::unix::fs::symlink(&run, folder.path().join("link.db")).unwrap();
    let alone = Histories::open_file(&run).unwrap();
    let all = Histories::open(&[folder.path(), &run, &run]).unwrap();
    assert_eq!(all.files().len(), 2);
    assert_eq!(read(&all, &Query::new()), read(&alone, &Query::new()));
    assert_eq!(ndjson(&all), ndjson(&alone));
    let (of_all, of_one) = (report(&all), report(&alone));
    assert_eq!((of_all.events, of_all.observed_ns), (of_one.events, of_one.observed_ns));
    assert_eq!(all.sessions().unwrap().len(), 2);
}

/// The first part of a session was copied before retention took it, the last part came after.
#[test]
fn parts_of_a_session_are_one_and_say_what_all_lack() {
    let (folder, run) = folder();
    let old = folder.path().join("old.db");
    let retention = Retention { max_age: Some(Duration::from_secs(20)), max_bytes: None };
    let mut writer = Writer::import(&run, &begun("n", 0)).unwrap().with_retention(retention);
    for second in 0..100 {
        writer.append(&fault(second, second * SECOND, 7)).unwrap();
        writer.commit().unwrap();
        if second == 29 {
            let source = rusqlite::Connection::open(&run).unwrap();
            source.execute("VACUUM INTO ?1", [old.to_str().unwrap()]).unwrap();
        }
    }
    writer.close_import().unwrap();
    let seqs = |path: &PathBuf| read(&Histories::open(&[path]).unwrap(), &Query::new()).remove(0).1;
    let (first, last) = (seqs(&old), seqs(&run));
    assert!(*first.last().unwrap() == 29 && last[0] > 60);
    let all = Histories::open(&[folder.path()]).unwrap();
    let both: Vec<u64> = first.iter().chain(&last).copied().collect();
    assert_eq!(read(&all, &Query::new()), [(1, both.clone())]);
    let recorded = all.sessions().unwrap().remove(0);
    let lacking: Vec<(i64, i64)> =
        recorded.not_kept.iter().map(|one| (one.first, one.last)).collect();
    let number = |seq: u64| i64::try_from(seq).unwrap() + 1;
    assert_eq!(lacking, [(1, number(first[0]) - 1), (31, number(last[0]) - 1)]);
    let report = report(&all);
    assert_eq!((report.events, report.not_kept), (both.len() as u64, true));
    // What is watched is what some file has: not the time between.
    let watched = first.len() as u64 + last.len() as u64;
    assert!(report.observed_ns.abs_diff(watched * SECOND) <= 3 * SECOND, "{}", report.observed_ns);
}

#[test]
fn what_is_recorded_in_full_counts_before_what_is_filtered() {
    let (folder, run) = folder();
    let whole = begun("n", 0);
    let items: Vec<Item> =
        faults(0..4).into_iter().chain([event(0, 4, 5 * SECOND, b"4 1 ")]).collect();
    write(&run, &whole, &items);
    // Its number is the same, as what is exported of it keeps it.
    let part = folder.path().join("part.db");
    let filter = Filter::new().types([EventType::PageFaultStart], false);
    write(&part, &whole.clone().with_filter(filter.clone()), &faults(0..4));
    let all = Histories::open(&[&part, &run]).unwrap();
    assert_eq!(read(&all, &Query::new()), [(1, vec![0, 1, 2, 3, 4])]);
    assert!(report(&all).is_complete());
    let alone = Histories::open(&[&part]).unwrap();
    assert_eq!(alone.sessions().unwrap()[0].session.filter, filter);
    assert!(!report(&alone).is_complete());
}

#[test]
fn gpus_at_one_address_are_as_many_as_machines() {
    let (folder, _) = folder();
    for (host, count) in [("n1", 3), ("n2", 5)] {
        let path = folder.path().join(format!("{host}.db"));
        let mut items = faults(0..count);
        items.push(event(0, 90, 60 * SECOND, b"3 1 job hang"));
        items.push(event(0, 91, 61 * SECOND, b"4 1 "));
        items.push(gap(0, 70 * SECOND, 71 * SECOND, Some(count)));
        write(&path, &begun(host, 0), &items);
    }
    let report = report(&Histories::open(&[folder.path()]).unwrap());
    let gpus: Vec<(&str, u64, u64, u64, u64)> = report
        .gpus
        .iter()
        .map(|gpu| {
            let host = gpu.host.as_deref().unwrap();
            (host, gpu.types.total(), gpu.resets, gpu.down_ns, gpu.lost)
        })
        .collect();
    assert_eq!(gpus, [("n1", 5, 1, SECOND, 3), ("n2", 7, 1, SECOND, 5)]);
    assert_eq!(report.processes.entries.len(), 2, "7 of one machine is not 7 of the other");
    assert!(report.text().contains("n1 0 0000:03:00.0"), "{}", report.text());
    assert!(report.json().contains(r#""gpus":[{"host":"n1","gpu":"#), "{}", report.json());
}

/// What both recorded cannot be told from what happened twice: the report says so.
#[test]
fn recorders_at_the_same_time_on_one_machine_are_told() {
    let (folder, _) = folder();
    for (name, host, seconds) in [("a", "n1", 0..20), ("b", "n1", 10..30), ("c", "n2", 0..9)] {
        let path = folder.path().join(format!("{name}.db"));
        write(&path, &begun(host, seconds.start), &faults(seconds));
    }
    let paths = |names: &[&str]| -> Vec<PathBuf> {
        names.iter().map(|name| folder.path().join(format!("{name}.db"))).collect()
    };
    let of = |names: &[&str]| report(&Histories::open(&paths(names)).unwrap());
    assert!(of(&["a", "b", "c"]).overlapping && of(&["b", "a"]).overlapping);
    assert!(!of(&["a", "c"]).overlapping && !of(&["b"]).overlapping, "other machines");
    let told = of(&["a", "b"]);
    assert!(told.text().contains("watched one machine at the same time"), "{}", told.text());
    assert!(told.json().contains(r#""overlapping":true"#));
}

#[test]
fn a_folder_is_read_though_some_of_it_is_not_and_the_report_says_so() {
    let (folder, run) = folder();
    write(&run, &session(), &faults(0..2));
    std::fs::write(folder.path().join("text.db"), b"no database at all").unwrap();
    std::fs::write(folder.path().join("notes.txt"), b"no history by its name").unwrap();
    let other = rusqlite::Connection::open(folder.path().join("other.db")).unwrap();
    other.execute_batch("CREATE TABLE mine (x)").unwrap();
    let bytes = std::fs::read(&run).unwrap();
    std::fs::write(folder.path().join("cut.db"), &bytes[..bytes.len() - 20_000]).unwrap();
    let all = Histories::open(&[folder.path()]).unwrap();
    assert_eq!(read(&all, &Query::new()), [(1, vec![0, 1])]);
    let names: Vec<_> =
        all.unreadable().iter().map(|(path, _)| path.file_name().unwrap()).collect();
    assert_eq!(names, ["cut.db", "other.db", "text.db"]);
    let report = report(&all);
    assert!(!report.is_complete() && report.unreadable.len() == 3);
    assert!(report.text().contains("A file is left out: ") && report.text().contains("cut.db"));
    assert!(report.json().contains(r#""complete":false"#) && report.json().contains("cut.db"));
    // Who names a file is told that it is none.
    assert!(Histories::open(&[run, folder.path().join("text.db")]).is_err());
    let empty = tempfile::tempdir().unwrap();
    let error = Histories::open(&[empty.path()]).unwrap_err();
    assert!(error.to_string().contains("no history in it"), "{error}");
}

#[test]
fn files_of_all_versions_are_one_history() {
    let (folder, _) = folder();
    for version in 1..=gpuev_store::VERSION {
        let from =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}.db"));
        let to = folder.path().join(format!("v{version}.db"));
        std::fs::copy(from, &to).unwrap();
    }
    let events =
        crate::items::all_kinds().iter().filter(|item| matches!(item, Item::Event(_))).count()
            as u64;
    let all = Histories::open(&[folder.path()]).unwrap();
    // Sessions of the versions before 4 have no ids: those that began at one time on one machine are one.
    assert_eq!(report(&all).events, 2 * events);
    // One of them as a later version of gpuev makes it: a copy still.
    let old = folder.path().join("v1.db");
    let migrated = folder.path().join("migrated.db");
    std::fs::copy(&old, &migrated).unwrap();
    Writer::import(&migrated, &session()).unwrap().close_import().unwrap();
    assert_eq!(report(&Histories::open(&[folder.path()]).unwrap()).events, 2 * events);
}

/// A cause, a filter, an end that this version does not know: shown as they are, never an error nor something else.
#[test]
fn what_a_later_version_wrote_is_shown_by_its_name() {
    let (_folder, run) = folder();
    let items =
        [fault(0, SECOND, 7), gap(0, 2 * SECOND, 3 * SECOND, Some(4)), fault(1, 4 * SECOND, 7)];
    write(&run, &begun("n", 0), &items);
    let file = rusqlite::Connection::open(&run).unwrap();
    file.execute("UPDATE gap SET cause = 'moon_too_full'", []).unwrap();
    let all = Histories::open_file(&run).unwrap();
    let lines = ndjson(&all);
    assert!(lines.contains(r#""cause":"moon_too_full","count":4"#), "{lines}");
    let found = report(&all);
    assert_eq!((found.events, found.lost(), found.gaps[0].cause.name()), (2, 4, "moon_too_full"));
    assert!(found.text().contains("moon too full"), "{}", found.text());
    // There and back, too.
    let mut importer = gpuev_store::import::Importer::detecting(
        "lines",
        lines.as_bytes(),
        gpuev_store::import::Assumed::by(Anchor { boot_ns: 0, unix_ns: 0 }),
    );
    let copy = run.with_file_name("copy.db");
    gpuev_store::import::import_history(&mut importer, &copy).unwrap();
    assert_eq!(ndjson(&Histories::open_file(&copy).unwrap()), lines);
    // What is no name is not repeated to a terminal.
    file.execute("UPDATE gap SET cause = char(27) || '[2J'", []).unwrap();
    assert_eq!(report(&all).gaps[0].cause.name(), "unknown");
    file.execute("UPDATE session SET filter = '{\"types\":[\"NEW_TYPE\"],\"when\":1}'", [])
        .unwrap();
    let complete = || {
        let found = report(&Histories::open_file(&run).unwrap());
        assert_eq!(found.left_out.by_recorder, !found.is_complete());
        found.is_complete()
    };
    assert!(!complete());
    file.execute("UPDATE session SET filter = '{\"severity\":\"apocalyptic\"}'", []).unwrap();
    assert!(!complete());
}

/// What is exported in slices is one history again: each item has its number.
#[test]
fn slices_of_an_export_are_one_history_again() {
    let (folder, run) = folder();
    let mut session = begun("n", 0);
    session.ended = Some(session.started);
    write(&run, &session, &faults(0..30));
    let whole = Histories::open_file(&run).unwrap();
    let slice = |name: &str, query: &Query| {
        let mut exporter = Exporter::new(ExportFormat::Ndjson, Vec::new()).unwrap();
        let mut entries = whole.entries(query);
        while let Some(entry) = entries.next_entry().unwrap() {
            exporter.entry(&entry).unwrap();
        }
        let lines = exporter.finish().unwrap().0;
        let assumed = gpuev_store::import::Assumed::by(Anchor { boot_ns: 0, unix_ns: 0 });
        let mut importer = gpuev_store::import::Importer::detecting(name, &lines[..], assumed);
        let path = folder.path().join("slices").join(name);
        gpuev_store::import::import_history(&mut importer, &path).unwrap();
        path
    };
    std::fs::create_dir(folder.path().join("slices")).unwrap();
    let at = |second: u64| BOOTED_UNIX_NS.saturating_add_unsigned(second * SECOND);
    let late = slice("late.db", &Query::new().from_unix_ns(at(20)));
    slice("middle.db", &Query::new().from_unix_ns(at(5)).to_unix_ns(at(22)));
    let lacking = |histories: &Histories| -> Vec<(i64, i64)> {
        let recorded = histories.sessions().unwrap().remove(0);
        recorded.not_kept.iter().map(|one| (one.first, one.last)).collect()
    };
    let late = Histories::open_file(&late).unwrap();
    assert_eq!(lacking(&late), [(1, 20)]);
    assert!(!report(&late).is_complete(), "its session began before its first item");
    let slices = [folder.path().join("slices")];
    let two = Histories::open(&slices).unwrap();
    assert_eq!(read(&two, &Query::new()), [(1, (5..30).collect())]);
    assert_eq!(lacking(&two), [(1, 5)]);
    slice("early.db", &Query::new().to_unix_ns(at(9)));
    let all = Histories::open(&slices).unwrap();
    assert_eq!(read(&all, &Query::new()), [(1, (0..30).collect())]);
    assert_eq!((lacking(&all), report(&all).events), (vec![], 30));
    let lines = |histories: &Histories| {
        let lines = ndjson(histories);
        lines.lines().filter(|line| !line.contains("\"session\"")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(lines(&all), lines(&whole));
}

#[test]
fn a_reader_of_several_files_follows_their_writers() {
    let (folder, run) = folder();
    let other = folder.path().join("other.db");
    write(&other, &begun("m", 0), &faults(0..2));
    let mut writer = Writer::open(&run, &Session::unknown(Anchor::now())).unwrap();
    writer.append(&fault(2, 2 * SECOND, 7)).unwrap();
    writer.commit().unwrap();
    let all = Histories::open(&[folder.path()]).unwrap();
    let mut entries = all.entries(&Query::new());
    let mut next = |count: usize| {
        let mut seqs = Vec::new();
        while let Some(entry) = entries.next_entry().unwrap() {
            if let Entry::Item(_, Item::Event(event)) = entry {
                seqs.push(event.seq);
            }
        }
        assert_eq!(seqs.len(), count, "{seqs:?}");
        seqs
    };
    assert_eq!(next(3), [0, 1, 2]);
    writer.append(&fault(3, 3 * SECOND, 7)).unwrap();
    assert_eq!(next(0), [0_u64; 0]);
    writer.commit().unwrap();
    assert_eq!(next(1), [3]);
    writer.close().unwrap();
    write(&run, &begun("n", 0), &faults(4..6));
    assert_eq!(next(2), [4, 5]);
    assert_eq!(History::open(&run).unwrap().sessions().unwrap().len(), 2);
}
