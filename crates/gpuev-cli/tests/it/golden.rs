//! Every recorded stream of a genuine driver through `watch --json`, held against what was accepted before.
//!
//! `GPUEV_BLESS=1 cargo nextest run -p gpuev-cli golden` accepts what comes now: read the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{parse, run};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn captures(version: &str) -> Vec<PathBuf> {
    let folder = Path::new(HERE).join("../../captures").join(version);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 36, "{} captures", paths.len());
    paths
}

/// Times of this run become 0: the driver's own stay.
fn normalised(line: &str) -> String {
    let line = blank(line, "\"time\":", "\"\"");
    let line = blank(&line, "\"received_boot_ns\":", "0");
    if line.contains("\"clock\":\"receipt\"") { blank(&line, "\"boot_ns\":", "0") } else { line }
}

/// Replaces the value of `key`, which no string of the line can hold: quotes are escaped in them.
fn blank(line: &str, key: &str, with: &str) -> String {
    let at = line.find(key).unwrap_or_else(|| panic!("{key} is not in {line}")) + key.len();
    let end = at + line[at..].find(",\"").unwrap_or_else(|| panic!("{key} is last in {line}"));
    format!("{}{with}{}", &line[..at], &line[end..])
}

/// The events of one capture. How full the FIFO becomes is a matter of timing, and so are the gaps inferred.
fn watched(path: &Path, kernel: &str) -> String {
    let source = format!("file:{},kernel={kernel}", path.display());
    let ended = run(["watch", "--json", "--source", &source]).good();
    let mut text = String::new();
    for line in ended.out.lines() {
        let value = parse(line);
        if value["record"] == "gap" {
            assert_eq!(value["cause"], "driver_fifo_full", "{line}");
        } else {
            writeln!(text, "{}", normalised(line)).unwrap();
        }
    }
    text
}

fn golden(version: &str, kernel: &str) {
    let mut now = String::new();
    for path in captures(version) {
        writeln!(now, "# {}", path.file_name().unwrap().to_str().unwrap()).unwrap();
        now += &watched(&path, kernel);
    }
    let file = Path::new(HERE).join(format!("tests/golden/{version}.txt"));
    if std::env::var_os("GPUEV_BLESS").is_some() {
        return fs::write(file, now).unwrap();
    }
    let accepted = fs::read_to_string(&file).unwrap();
    for (number, (now, accepted)) in now.lines().zip(accepted.lines()).enumerate() {
        assert_eq!(now, accepted, "{}:{}", file.display(), number + 1);
    }
    assert_eq!(now.lines().count(), accepted.lines().count());
}

#[test]
fn captures_of_6_1() {
    golden("6.1.176", "6.1");
}

#[test]
fn captures_of_6_12() {
    golden("6.12.95", "6.12");
}

#[test]
fn captures_of_7_2() {
    golden("7.2.13", "7.2");
}

#[test]
fn captures_of_7_3() {
    golden("7.3.4", "7.3");
}
