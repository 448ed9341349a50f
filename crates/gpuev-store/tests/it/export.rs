//! A history in the formats of other programs.
//!
//! The golden files lie in `export`, beside this; `GPUEV_BLESS=1` writes them anew.

use std::path::PathBuf;

use gpuev::Item;
use gpuev_store::export::{ColumnInfo, ExportFormat, Exporter, columns};

use crate::driver::{doubtful_event, event, gap};

/// A second of a machine: spans of every kind, starts without ends, names that want to be something else.
pub(crate) fn story() -> Vec<Item> {
    const MS: u64 = 1_000_000;
    let at = |ms: u64| 5_000_000_000 + ms * MS;
    let lines: [(u32, u64, String); 26] = [
        (0, 0, "c 1092 python3".into()),
        (0, 1, format!("7 {} -4242 @7fff00000(1b11) W", at(1))),
        (0, 2, format!("5 {} -4242 @7fff00000(200) 0->1b11 ffffffff:1b11 1", at(1) + 20_500)),
        (0, 2, format!("7 {} -4242 @7fff10000(1b11) R", at(2))),
        (0, 3, format!("6 {} -4242 @7fff00000(200) 0->1b11 1 0", at(2) + 1)),
        (0, 3, format!("8 {} -4242 @7fff00000(1b11) M", at(3))),
        (0, 4, format!("8 {} -4242 @7fff10000(1b11) U", at(4))),
        (0, 9, format!("9 {} -4242 1b11 2", at(9))),
        (0, 11, format!("a {} -4242 1b11 R", at(11))),
        (0, 12, format!("a {} -4242 1b11 0", at(12))),
        (0, 13, format!("b {} -4242 @7fff00000(10) 1b11 0", at(13))),
        (1, 50, "2 100000001:7".into()),
        (1, 60, "1 1093:=cmd|' /C calc'!A0".into()),
        (1, 61, "1 1094:a,\"b\"\nc\\".into()),
        (1, 62, format!("5 {} -4243 @10(8) 1b11->1b12 0:ffffffff 9", at(62))),
        (1, 63, format!("6 {} -4243 @10(8) 1b11->1b12 9 -12", at(63))),
        (1, 70, "3 1 job hang on ring:gfx_0.0.0".into()),
        (1, 250, "4 1 ".into()),
        (1, 260, "d 1093 -x".into()),
        (1, 300, format!("7 {} -4243 @1(1b12) R", at(300))),
        (0, 400, format!("8 {} -4242 @2(1b11) M", at(400))),
        (0, 410, format!("6 {} -4242 @100(400) 1b11->0 2", at(410))),
        (0, 420, "ff of a later kernel".into()),
        (0, 421, "not a line".into()),
        (0, 430, format!("5 {} -4242 @100(400) 1b11->0 0:0 2", at(430))),
        (0, 900, format!("6 {} -4242 @100(400) 1b11->0 2", at(900))),
    ];
    let mut items: Vec<Item> = (0..)
        .zip(lines)
        .map(|(seq, (gpu, ms, line))| {
            doubtful_event(gpu, seq, at(ms) + 500_000, line.as_bytes(), seq == 16)
        })
        .collect();
    items.insert(20, gap(1, at(260), at(310), None));
    items.insert(21, gap(0, at(290), at(320), Some(17)));
    items.push(event(0, 26, at(999), b"1 1092:\xff\xfe"));
    items
}

pub(crate) fn export(format: ExportFormat, items: &[Item]) -> Vec<u8> {
    let mut exporter = Exporter::new(format, Vec::new()).unwrap();
    for item in items {
        exporter.push(item).unwrap();
    }
    exporter.finish().unwrap()
}

fn text(format: ExportFormat, items: &[Item]) -> String {
    String::from_utf8(export(format, items)).unwrap()
}

fn assert_golden(name: &str, found: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/it/export", name].iter().collect();
    if std::env::var_os("GPUEV_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == found,
        "{} differs; look at it, then run with GPUEV_BLESS=1\n{found}",
        path.display()
    );
}

#[test]
fn csv_is_as_it_was() {
    assert_golden("story.csv", &text(ExportFormat::Csv, &story()));
}

#[test]
fn a_trace_is_as_it_was() {
    assert_golden("story.trace.json", &text(ExportFormat::Trace, &story()));
}

#[test]
fn ndjson_is_that_of_every_other_output() {
    let mut expected = String::new();
    for item in story() {
        gpuev::json::write_item(&mut expected, &item);
        expected.push('\n');
    }
    assert_eq!(text(ExportFormat::Ndjson, &story()), expected);
}

/// A strict reader of RFC 4180: records of fields.
fn csv_records(text: &str) -> Vec<Vec<String>> {
    let mut records = vec![vec![String::new()]];
    let mut rest = text.chars().peekable();
    let mut quoted = false;
    while let Some(next) = rest.next() {
        let record = records.last_mut().unwrap();
        let field = record.last_mut().unwrap();
        match (next, quoted) {
            ('"', true) if rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            ('"', true) => {
                quoted = false;
                assert!(matches!(rest.peek(), Some(',' | '\r')), "text behind a quote");
            }
            ('"', false) => {
                assert!(field.is_empty(), "a quote inside a bare field");
                quoted = true;
            }
            (',', false) => record.push(String::new()),
            ('\r', false) => {
                assert_eq!(rest.next(), Some('\n'));
                records.push(vec![String::new()]);
            }
            ('\n', false) => panic!("a bare newline"),
            (other, _) => field.push(other),
        }
    }
    assert_eq!(records.pop(), Some(vec![String::new()]), "the last line is ended");
    records
}

#[test]
fn csv_has_one_record_an_item_whatever_the_names_are() {
    let items = story();
    let records = csv_records(&text(ExportFormat::Csv, &items));
    assert_eq!(records.len(), items.len() + 1);
    let header = &records[0];
    assert!(records.iter().all(|record| record.len() == header.len()));
    let column = |name: &str| header.iter().position(|column| column == name).unwrap();
    let (raw, process) = (column("raw"), column("process"));
    for (record, item) in records[1..].iter().zip(&items) {
        let Item::Event(event) = item else { continue };
        assert_eq!(gpuev::message::unescape(&record[raw]), event.raw());
        let name = gpuev::message::unescape(&record[process]);
        assert_eq!(name, event.process().unwrap_or_default());
        let computed = |field: &String| field.starts_with(['=', '@', '+']);
        assert!(!record.iter().any(computed), "a spreadsheet would compute {record:?}");
        assert!(!record[process].starts_with('-'));
    }
}

#[test]
fn every_column_is_documented() {
    let document = include_str!("../../../../docs/export-formats.md");
    let table = document.replace('`', "").replace("|  |", "| |");
    for ColumnInfo { name, kind, unit, .. } in columns() {
        let row = format!("\n| {name} | {kind} | {unit} | ").replace("|  |", "| |");
        assert!(table.contains(&row), "{row}");
    }
    let header: Vec<&str> = columns().map(|column| column.name).collect();
    assert_eq!(text(ExportFormat::Csv, &[]), header.join(",") + "\r\n");
}

fn trace(items: &[Item]) -> Vec<serde_json::Value> {
    let text = text(ExportFormat::Trace, items);
    let page: serde_json::Value = serde_json::from_str(&text).unwrap();
    page.as_array().unwrap().clone()
}

/// Microseconds with three digits as nanoseconds.
fn ns(value: &serde_json::Value) -> u64 {
    let text = value.to_string();
    let (whole, digits) = text.split_once('.').unwrap_or((&text, "0"));
    whole.parse::<u64>().unwrap() * 1000 + format!("{digits:0<3}").parse::<u64>().unwrap()
}

#[test]
fn slices_of_a_track_do_not_overlap_and_every_track_has_a_name() {
    let page = trace(&story());
    let mut tracks = std::collections::HashMap::<u64, Vec<(u64, u64)>>::new();
    let mut named = std::collections::HashSet::new();
    for event in &page {
        let track = event["tid"].as_u64().unwrap();
        match event["ph"].as_str().unwrap() {
            "M" => {
                named.insert(track);
            }
            "X" => {
                assert!(named.contains(&track));
                let from = ns(&event["ts"]);
                tracks.entry(track).or_default().push((from, from + ns(&event["dur"])));
            }
            "i" | "C" => assert!(named.contains(&track)),
            other => panic!("{other}"),
        }
    }
    for slices in tracks.values_mut() {
        slices.sort_unstable();
        assert!(slices.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{slices:?}");
    }
}

#[test]
fn a_trace_holds_every_span_and_every_byte_that_moved() {
    let items = story();
    let page = trace(&items);
    let mut spans = gpuev::span::Spans::default();
    let mut expected = Vec::new();
    items.iter().for_each(|item| spans.push(item, |span| expected.push(span)));
    spans.finish(|span| expected.push(span));
    let kinds = gpuev::span::SpanKind::ALL.map(gpuev::span::SpanKind::name);
    let found: Vec<_> = page
        .iter()
        .filter(|event| event["cat"].as_str().is_some_and(|cat| kinds.contains(&cat)))
        .collect();
    assert_eq!(found.len(), expected.len());
    for (event, span) in found.iter().zip(&expected) {
        assert_eq!(event["cat"], span.kind().name());
        assert_eq!(event["args"]["outcome"], span.outcome.name());
        assert_eq!(ns(&event["ts"]), span.time().unwrap().boot_ns);
        if let Some(duration) = span.duration_ns() {
            assert_eq!(ns(&event["dur"]), duration);
        }
    }
    let moved = |direction: &str| {
        page.iter().filter_map(|event| event["args"][direction].as_u64()).sum::<u64>()
    };
    assert_eq!(moved("to_gpu"), 0x200 * 4096);
    assert_eq!(moved("to_system"), 2 * 0x400 * 4096, "the failed one moved nothing");
    assert_eq!(moved("between_gpus"), 0);
    assert_eq!(moved("faults"), 3);
}

#[test]
fn a_trace_of_nothing_is_one_too() {
    assert_eq!(trace(&[]), Vec::<serde_json::Value>::new());
}

#[test]
fn a_later_boot_lies_later_and_pairs_with_nothing_before() {
    let mut exporter = Exporter::new(ExportFormat::Trace, Vec::new()).unwrap();
    exporter.push(&event(0, 0, 900_000_000_000, b"3 1 job hang")).unwrap();
    exporter.new_session().unwrap();
    let mut after_boot = event(0, 0, 1_000_000_000, b"4 1 ");
    let Item::Event(later) = &mut after_boot else { unreachable!() };
    later.time.unix_ns += 1_000_000_000_000;
    exporter.push(&after_boot).unwrap();
    let text = String::from_utf8(exporter.finish().unwrap()).unwrap();
    let page: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let resets: Vec<_> = page.iter().filter(|event| event["cat"] == "RESET").collect();
    assert_eq!(resets.len(), 2);
    assert_eq!(resets[0]["args"]["outcome"], "open");
    assert_eq!(resets[1]["args"]["outcome"], "start_missing");
    assert_eq!(ns(&resets[1]["ts"]), 1_001_000_000_000);
}

/// Fails as a closed pipe does.
struct Closed;

impl std::io::Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_fails_is_told_as_it_failed() {
    for &format in ExportFormat::ALL {
        let failed = Exporter::new(format, Closed).and_then(|mut exporter| {
            for _ in 0..1_000 {
                story().iter().try_for_each(|item| exporter.push(item))?;
            }
            exporter.finish().map(drop)
        });
        assert_eq!(failed.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe, "{format:?}");
    }
}
