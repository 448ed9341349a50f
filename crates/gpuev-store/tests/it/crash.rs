//! What is left when the writer is killed, or the disk is full.
//!
//! The writer is this program run again: it does what [`a_writer_of_its_own`] says.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gpuev::Item;
use gpuev_store::{EventLog, Query, Writer};

use crate::driver::fault;
use crate::items::{folder, read, session, write};

const PATH: &str = "GPUEV_TEST_WRITER_PATH";
const LOG_PATH: &str = "GPUEV_TEST_LOG_PATH";

/// How often a writer is killed; GPUEV_TEST_KILLS says otherwise.
fn kills() -> u32 {
    std::env::var("GPUEV_TEST_KILLS").map_or(160, |kills| kills.parse().unwrap())
}

/// The same numbers in every run (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        let Self(state) = self;
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state
    }

    /// Lets some time pass: up to some ten microseconds.
    fn dally(&mut self) {
        for _ in 0..self.next() >> 40 & 0x3fff {
            std::hint::spin_loop();
        }
    }
}

/// Writes and commits for ever, and says what is committed. Does nothing where it is not asked to.
#[test]
fn a_writer_of_its_own() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let first = gpuev_store::History::open(Path::new(&path))
        .map_or(0, |history| u64::try_from(history.last_item().unwrap()).unwrap());
    let mut writer = Writer::open(Path::new(&path), &session()).unwrap();
    for seq in first.. {
        let appended = writer.append(&fault(seq, seq * 1_000, 7));
        let done = if seq % 97 == 96 { appended.and_then(|()| writer.commit()) } else { appended };
        match done {
            Ok(()) if seq % 97 == 96 => println!("\ncommitted {}", seq + 1),
            Ok(()) => {}
            Err(error) => {
                println!("\nfailed {error}");
                return;
            }
        }
    }
}

/// Logs for ever, and says how many events are in the log. Does nothing where it is not asked to.
#[test]
fn a_logger_of_its_own() {
    let Some(path) = std::env::var_os(LOG_PATH) else { return };
    let mut log = EventLog::create(Path::new(&path), []).unwrap();
    println!("\nlogged 0");
    for round in 0.. {
        let items: Vec<Item> =
            (0..round % 7 + 1).map(|event| fault(round + event, round * 1_000, 7)).collect();
        match log.append(&items) {
            Ok(()) => println!("\nlogged {}", items.len()),
            Err(error) => {
                println!("\nfailed {error}");
                return;
            }
        }
    }
}

fn start(path: &Path, before: &str) -> Child {
    start_test("crash::a_writer_of_its_own", (PATH, path), before)
}

fn start_test(test: &str, (variable, path): (&str, &Path), before: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("{before} exec \"$0\" {test} --exact --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .env(variable, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn committed(line: &str) -> Option<usize> {
    line.strip_prefix("committed ")?.parse().ok()
}

fn logged(line: &str) -> Option<u64> {
    line.strip_prefix("logged ")?.parse().ok()
}

/// The log is one object, and has at least `least` events.
fn check_log(path: &Path, least: u64) {
    let text = std::fs::read_to_string(path).unwrap();
    let log: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error} in {} bytes", text.len()));
    let events = log["events"].as_array().unwrap().len() as u64;
    assert_eq!(log["total_events"], events);
    assert!(events >= least, "{events} of {least}");
}

/// The items are the first ones, without a hole, and at least `least` of them.
fn check(path: &Path, least: usize) -> usize {
    let items = read(path, &Query::new());
    for (seq, item) in (0..).zip(&items) {
        assert!(matches!(item, Item::Event(event) if event.seq == seq), "{seq}: {item:?}");
    }
    assert!(items.len() >= least, "{} of {least}", items.len());
    items.len()
}

#[test]
fn a_killed_writer_costs_what_was_not_committed() {
    let (_folder, path) = folder();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..kills() {
        let mut child = start(&path, "");
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut told = 0;
        let mut line = String::new();
        for _ in 0..=random.next() >> 61 {
            loop {
                line.clear();
                assert!(lines.read_line(&mut line).unwrap() > 0);
                if let Some(count) = committed(line.trim_end()) {
                    told = count;
                    break;
                }
            }
        }
        // Anywhere in what it does next.
        random.dally();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        told = rest.lines().filter_map(committed).next_back().unwrap_or(told);
        check(&path, told);
    }
}

#[test]
fn a_killed_logger_leaves_one_whole_object_with_all_that_it_had_written() {
    let (folder, _) = folder();
    let path = folder.path().join("gpu_events.json");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..kills() {
        let mut child = start_test("crash::a_logger_of_its_own", (LOG_PATH, &path), "");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let logged = |line: String| logged(&line);
        let wanted = usize::try_from(random.next() >> 59).unwrap() + 1;
        let mut least: u64 = lines.by_ref().filter_map(logged).take(wanted).sum();
        random.dally();
        child.kill().unwrap();
        child.wait().unwrap();
        least += lines.filter_map(logged).sum::<u64>();
        check_log(&path, least);
    }
}

/// The write-ahead log of `path`, as far as it is on the disk.
fn log_of(path: &Path) -> Vec<u8> {
    std::fs::read(path.with_extension("db-wal")).unwrap()
}

/// A copy of the history whose write-ahead log is `log`.
fn copy_with(path: &Path, log: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let (folder, copy) = folder();
    std::fs::copy(path, &copy).unwrap();
    std::fs::write(copy.with_extension("db-wal"), log).unwrap();
    (folder, copy)
}

/// Power that fails leaves of the log what the disk had taken: a front of it, or one that ends in what was there
/// before. What was committed before the cut is there, and nothing that was not.
#[test]
fn a_log_that_is_cut_anywhere_costs_what_was_not_yet_on_disk() {
    let (_folder, path) = folder();
    let mut writer = Writer::open(&path, &session()).unwrap();
    let mut commits = vec![(log_of(&path).len(), 0)];
    for seq in 0..300 {
        writer.append(&fault(seq, seq * 1_000, 7)).unwrap();
        if seq % 30 == 29 {
            writer.commit().unwrap();
            commits.push((log_of(&path).len(), usize::try_from(seq).unwrap() + 1));
        }
    }
    let log = log_of(&path);
    assert!(commits.is_sorted_by(|a, b| a.0 < b.0), "the log is one: {commits:?}");
    let mut random = Random(0x6c07_8965_0123_4567);
    let anywhere = (0..200).map(|_| usize::try_from(random.next() >> 33).unwrap() % log.len());
    let ends = commits.iter().flat_map(|(end, _)| [end.saturating_sub(1), *end, end + 1]);
    for cut in anywhere.chain(ends).filter(|cut| (commits[0].0..=log.len()).contains(cut)) {
        let committed = commits.iter().rev().find(|(end, _)| *end <= cut).unwrap().1;
        let mut torn = log[..cut].to_vec();
        let (_folder, copy) = copy_with(&path, &torn);
        assert_eq!(check(&copy, committed), committed, "cut at {cut} of {}", log.len());
        torn.resize(log.len(), 0xa5);
        let (_folder, copy) = copy_with(&path, &torn);
        assert_eq!(check(&copy, committed), committed, "torn at {cut} of {}", log.len());
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_what_was_committed() {
    for blocks in [600, 1_000, 2_000] {
        let (_folder, path) = folder();
        let limit = format!("trap '' XFSZ; ulimit -f {blocks};");
        let mut child = start(&path, &limit);
        let (mut told, mut failure) = (0, None);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            told = committed(&line).unwrap_or(told);
            failure = failure.or(line.strip_prefix("failed ").map(str::to_owned));
        }
        child.wait().unwrap();
        let failure = failure.expect("the limit should be met");
        assert!(failure.contains("run.db") && failure.contains("committed is kept"), "{failure}");
        let left = check(&path, told);
        write(&path, &[fault(left as u64, 1, 7)]);
        check(&path, left + 1);
    }
}

/// The kernel writes up to the limit and no more: a short write, then an error.
#[test]
fn a_short_write_of_a_log_is_told_and_leaves_what_was_there() {
    for blocks in [7, 64, 501] {
        let (folder, _) = folder();
        let path = folder.path().join("gpu_events.json");
        let limit = format!("trap '' XFSZ; ulimit -f {blocks};");
        let mut child = start_test("crash::a_logger_of_its_own", (LOG_PATH, &path), &limit);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let lines: Vec<String> = lines.collect();
        child.wait().unwrap();
        let failure = lines.iter().find_map(|line| line.strip_prefix("failed "));
        let failure = failure.expect("the limit should be met");
        assert!(failure.contains("gpu_events.json") && failure.contains("what was logged before"));
        check_log(&path, lines.iter().filter_map(|line| logged(line)).sum());
    }
}
