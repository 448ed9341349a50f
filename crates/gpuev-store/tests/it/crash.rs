//! What is left when the writer is killed, or the disk is full.
//!
//! The writer is this program run again: it does what [`a_writer_of_its_own`] says.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gpuev::Item;
use gpuev_store::{Query, Writer};

use crate::driver::fault;
use crate::items::{folder, read, session, write};

const PATH: &str = "GPUEV_TEST_WRITER_PATH";

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

fn start(path: &Path, before: &str) -> Child {
    let test = std::env::current_exe().unwrap();
    Command::new("sh")
        .args([
            "-c",
            &format!("{before} exec \"$0\" crash::a_writer_of_its_own --exact --nocapture"),
        ])
        .arg(test)
        .env(PATH, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn committed(line: &str) -> Option<usize> {
    line.strip_prefix("committed ")?.parse().ok()
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
    let kills = std::env::var("GPUEV_TEST_KILLS").map_or(50, |kills| kills.parse().unwrap());
    let (_folder, path) = folder();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..kills {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = start(&path, "");
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut told = 0;
        let mut line = String::new();
        for _ in 0..=random >> 61 {
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
        for _ in 0..random >> 40 & 0x3fff {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        told = rest.lines().filter_map(committed).next_back().unwrap_or(told);
        check(&path, told);
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
