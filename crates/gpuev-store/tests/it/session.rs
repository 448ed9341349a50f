//! Sessions: what tells them apart, how long they live, what they leave out.

use gpuev::time::Anchor;
use gpuev::{EventType, Filter, Severity};
use gpuev_store::report::Options;
use gpuev_store::{Histories, History, Query, RecordedSession, Writer};

use crate::driver::{fault, gap, gpu};
use crate::items::{folder, session, write};

pub(crate) fn sessions(path: &std::path::Path) -> Vec<RecordedSession> {
    Histories::open_file(path).unwrap().sessions().unwrap()
}

#[test]
fn a_session_and_the_number_of_an_item_in_it_are_a_key_in_every_file() {
    let (folder, path) = folder();
    write(&path, &[fault(0, 1_000, 7), fault(1, 2_000, 7)]);
    write(&path, &[fault(0, 3_000, 7)]);
    let other = folder.path().join("other.db");
    write(&other, &[fault(0, 1_000, 7)]);
    let (first, second) = (&sessions(&path)[0], &sessions(&path)[1]);
    assert_eq!([1, 2].map(|item| first.number_of(item)), [1, 2]);
    assert_eq!(second.number_of(3), 1);
    let uids = [first.session.uid, second.session.uid, sessions(&other)[0].session.uid];
    assert!(uids[0] != uids[1] && uids[1] != uids[2] && uids[0] != uids[2]);
    let store = |path| History::open(path).unwrap().uid().unwrap().unwrap();
    assert_ne!(store(&path), store(&other));
}

#[test]
fn what_a_recorder_leaves_out_is_kept_with_its_session() {
    let (_folder, path) = folder();
    let filters = [
        Filter::new(),
        Filter::new().types([EventType::VmFault, EventType::GpuPreReset], false),
        Filter::new().types([], true),
        Filter::new().gpus([gpu(1), gpu(5)]),
        Filter::new().pids([1, 4_000_000_000]).severity(Severity::Warning),
    ];
    for filter in &filters {
        let mut session = session().with_filter(filter.clone());
        session.gpus = (0..6).map(|index| (gpu(index), None)).collect();
        Writer::open(&path, &session).unwrap().close().unwrap();
    }
    let recorded: Vec<Filter> =
        sessions(&path).into_iter().map(|recorded| recorded.session.filter).collect();
    assert_eq!(recorded, filters);
}

#[test]
fn a_session_is_alive_while_it_is_written_and_was_until_its_last_sign() {
    let (_folder, path) = folder();
    let before = Anchor::now();
    let mut writer = Writer::open(&path, &gpuev_store::Session::unknown(Anchor::now())).unwrap();
    let live = sessions(&path).remove(0);
    assert!(live.is_live && !live.is_closed);
    assert!(live.session.alive.unwrap().boot_ns >= before.boot_ns);
    let later = sessions(&path).remove(0);
    assert!(later.session.alive.unwrap().boot_ns > live.session.alive.unwrap().boot_ns);
    writer.append(&fault(0, 1_000, 7)).unwrap();
    writer.commit().unwrap();
    let committed = Anchor::now();
    // Dropped, as a recorder that is killed: the session has no end.
    drop(writer);
    let killed = sessions(&path).remove(0);
    assert!(!killed.is_live && !killed.is_closed && killed.session.ended.is_none());
    let alive = killed.session.alive.unwrap().boot_ns;
    assert!(alive >= before.boot_ns && alive <= committed.boot_ns);
}

#[test]
fn an_import_was_alive_at_its_last_item() {
    let (_folder, path) = folder();
    let mut writer = Writer::import(&path, &session()).unwrap();
    assert!(!sessions(&path)[0].is_live);
    writer.append(&fault(0, 5_000, 7)).unwrap();
    writer.append(&gap(0, 6_000, 9_000, None)).unwrap();
    writer.close_import().unwrap();
    let imported = sessions(&path).remove(0);
    assert_eq!(imported.session.alive.unwrap().boot_ns, 9_000);
    assert!(imported.is_closed && imported.session.ended.is_none());
}

#[test]
fn sessions_of_one_boot_id_are_of_one_boot() {
    let (_folder, path) = folder();
    for boot in [Some("a"), Some("b"), Some("a"), None, None] {
        let mut session = session();
        session.boot_id = boot.map(str::to_owned);
        Writer::import(&path, &session).unwrap().close_import().unwrap();
    }
    let boots: Vec<u32> = sessions(&path).iter().map(|recorded| recorded.boot).collect();
    assert_eq!(boots, [0, 1, 0, 2, 3]);
}

#[test]
fn one_writer_begins_session_after_session() {
    let (_folder, path) = folder();
    let mut writer = Writer::import(&path, &session()).unwrap();
    writer.append(&fault(0, 1_000, 7)).unwrap();
    for _ in 0..3 {
        writer.next_session(&session()).unwrap();
        writer.append(&fault(0, 1_000, 7)).unwrap();
    }
    writer.close_import().unwrap();
    let firsts: Vec<i64> = sessions(&path).iter().map(|recorded| recorded.first_item).collect();
    assert_eq!(firsts, [1, 2, 3, 4]);
}

/// As `kill -9` leaves it, and somebody copies the file without its log.
#[test]
fn the_file_by_itself_is_a_history_from_the_first_moment_and_says_what_it_lacks() {
    let (folder, path) = folder();
    let mut session = session();
    session.gpus = vec![(gpu(0), None)];
    let mut writer = Writer::open(&path, &session).unwrap();
    writer.append(&fault(0, 1_000, 7)).unwrap();
    writer.commit().unwrap();
    let copy = folder.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    let copied = Histories::open_file(&copy).unwrap();
    assert_eq!(copied.sessions().unwrap()[0].session.gpus.len(), 1);
    let report = |history: &Histories| history.report(&Query::new(), Options::default()).unwrap();
    let alone = report(&copied);
    assert!(alone.log_missing && !alone.is_complete());
    assert!(alone.text().contains("-wal"), "{}", alone.text());
    // With the log it lacks nothing.
    let both = folder.path().join("both.db");
    std::fs::copy(&path, &both).unwrap();
    std::fs::copy(folder.path().join("run.db-wal"), folder.path().join("both.db-wal")).unwrap();
    let whole = report(&Histories::open_file(&both).unwrap());
    assert_eq!((whole.events, whole.log_missing), (1, false));
    writer.close().unwrap();
    assert!(!report(&Histories::open_file(&path).unwrap()).log_missing);
}

#[test]
fn a_report_of_a_running_recorder_is_of_the_time_until_now() {
    let (_folder, path) = folder();
    let mut session = gpuev_store::Session::unknown(Anchor::now());
    session.gpus = vec![(gpu(0), None)];
    let writer = Writer::open(&path, &session).unwrap();
    let history = Histories::open_file(&path).unwrap();
    let watched = || {
        let report = history.report(&Query::new(), Options::default()).unwrap();
        let now = Anchor::now().boot_ns - session.started.boot_ns;
        assert!(report.observed_ns <= now);
        assert_eq!(report.gpus[0].watched_ns, report.observed_ns);
        report.observed_ns
    };
    let first = watched();
    assert!(first > 0, "also where nothing happens");
    assert!(watched() > first);
    drop(writer);
    let killed = watched();
    assert_eq!(watched(), killed);
}
