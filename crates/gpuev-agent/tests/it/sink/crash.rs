//! What is left of what waits when the agent is killed at any moment.
//!
//! The agent is this program run again: it does what [`an_agent_of_its_own`] says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gpuev_agent::sink::{Failure, Message, Sink};

use super::fixture::{Told, firing, impatient, mirror, start, start_with, until};

const PATH: &str = "GPUEV_TEST_SPOOL_PATH";
const KILLS: usize = 12;
const BATCH: usize = 3;
/// Messages that wait when the server comes back, at most.
const OUTAGE: usize = 64;

/// A server that remembers what it took, also when everybody is killed.
struct Recording {
    file: File,
    works: Arc<AtomicBool>,
}

impl Recording {
    fn at(folder: &Path, works: &Arc<AtomicBool>) -> Self {
        let path = folder.join("arrived");
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        Self { file, works: works.clone() }
    }
}

impl Sink for Recording {
    fn batch(&self) -> usize {
        BATCH
    }

    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure> {
        if !self.works.load(Ordering::Relaxed) {
            return Err(Failure::unreachable("down"));
        }
        let ids: String = batch.iter().map(|message| format!("{}\n", message.id)).collect();
        self.file.write_all(ids.as_bytes()).unwrap();
        Ok(0)
    }
}

/// Offers alerts for ever and says which are on disk, while the server comes and goes. Does nothing where it
/// is not asked to.
#[test]
fn an_agent_of_its_own() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let works = Arc::new(AtomicBool::new(true));
    let sink = Recording::at(Path::new(&path), &works);
    let told = Told::default();
    let mirror = mirror(Path::new(&path), &told);
    let outbox = start_with(sink, impatient(), Some(mirror.clone()), &told).unwrap();
    for number in 0_u64.. {
        works.store(number % 64 > 40, Ordering::Relaxed);
        outbox.offer(&firing(&format!("{}-{number:06}", std::process::id())));
        until("it is on disk", || mirror.is_settled());
        println!("\npromised {}-{number:06}.1", std::process::id());
    }
}

/// Runs the agent, kills it in the middle of something, and tells what it had promised.
fn promised_before_a_kill(folder: &Path, lines: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["sink::crash::an_agent_of_its_own", "--exact", "--nocapture"])
        .env(PATH, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    for _ in 0..lines {
        output.read_line(&mut text).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    output.read_to_string(&mut text).unwrap();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.filter_map(|line| Some(line.trim_end().strip_prefix("promised ")?.to_owned())).collect()
}

#[test]
fn what_is_on_disk_survives_any_number_of_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut promised = BTreeSet::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        promised.extend(promised_before_a_kill(folder.path(), 60 + (random >> 56)));
    }
    let works = Arc::new(AtomicBool::new(true));
    let sink = Recording::at(folder.path(), &works);
    let told = Told::default();
    let outbox = start(sink, impatient(), Some(folder.path()), &told).unwrap();
    outbox.offer(&firing("end"));
    let arrived = || std::fs::read_to_string(folder.path().join("arrived")).unwrap_or_default();
    until("all that was left", || arrived().contains("end.1"));
    until("an empty queue", || outbox.is_idle());
    let _left = outbox.stop(Duration::ZERO);
    let arrived = arrived();
    let mut counts = BTreeMap::new();
    for id in arrived.lines() {
        *counts.entry(id).or_insert(0_usize) += 1;
    }
    assert!(promised.len() > 200, "{}", promised.len());
    let missing: Vec<_> = promised.iter().filter(|id| !counts.contains_key(id.as_str())).collect();
    assert_eq!(missing, [""; 0], "promised and gone");
    // What was delivered while the disk was being written may come again, under its old id; nothing else.
    let again = counts.values().filter(|count| **count > 1).count();
    assert!(again <= KILLS * OUTAGE && counts.values().all(|count| *count <= 2), "{counts:?}");
    assert_eq!(told.all(), []);
}
