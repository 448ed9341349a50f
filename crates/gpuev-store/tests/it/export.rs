//! A history in the formats of other programs.
//!
//! The golden files lie in `export`, beside this; `GPUEV_BLESS=1` writes them anew.

use std::path::PathBuf;

use gpuev::span::{Span, Spans};
use gpuev::{EventType, Filter, Item, Severity, json};
use gpuev_store::export::{Batch, ColumnData, ColumnInfo, Entries, Entry, Origin};
use gpuev_store::export::{ExportFormat, Exporter, Written, columns};
use gpuev_store::{Histories, Query, Session};
use serde_json::Value;

use crate::driver::{doubtful_event, event, gap, gpu};
use crate::items;

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

/// Who recorded it, in names that want to be something else.
fn session() -> Session {
    let mut session = items::session();
    session.uid = "0123456789abcdef0123456789abcdef".parse().unwrap();
    session.host = Some("node\"17\\".to_owned());
    session.boot_id = Some("4e9d".to_owned());
    session.recorder = "gpuev".to_owned();
    session.gpus = vec![(gpu(0), Some("MI300X".to_owned())), (gpu(1), None)];
    session
}

fn export_by<'i>(
    mut exporter: Exporter<Vec<u8>>,
    items: impl IntoIterator<Item = &'i Item>,
) -> (Vec<u8>, Written) {
    for item in items {
        exporter.push(item).unwrap();
    }
    exporter.finish().unwrap()
}

/// Events, gaps and spans of one session.
pub(crate) fn export(format: ExportFormat, items: &[Item]) -> Vec<u8> {
    let mut exporter = Exporter::new(format, Vec::new()).unwrap();
    exporter.session(1, &session()).unwrap();
    export_by(exporter, items).0
}

/// Events and gaps alone.
pub(crate) fn export_facts(format: ExportFormat, items: &[Item]) -> Vec<u8> {
    export_by(Exporter::new(format, Vec::new()).unwrap().without_spans(), items).0
}

fn text(format: ExportFormat, items: &[Item]) -> String {
    String::from_utf8(export(format, items)).unwrap()
}

fn lines(format: ExportFormat, items: &[Item]) -> Vec<Value> {
    text(format, items).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
fn ndjson_is_as_it_was() {
    assert_golden("story.ndjson", &text(ExportFormat::Ndjson, &story()));
}

/// The items, each with the spans that end with it.
fn with_spans(items: &[Item]) -> Vec<(Option<&Item>, Vec<Span>)> {
    let mut spans = Spans::default();
    let mut all = Vec::new();
    for item in items {
        let mut done = Vec::new();
        spans.push(item, |span| done.push(span));
        all.push((Some(item), done));
    }
    let mut done = Vec::new();
    spans.finish(|span| done.push(span));
    all.push((None, done));
    all
}

#[test]
fn ndjson_is_that_of_every_other_output() {
    let (mut facts, mut expected) = (String::new(), String::new());
    for (item, spans) in with_spans(&story()) {
        if let Some(item) = item {
            json::write_item(&mut facts, item);
            facts.push('\n');
            json::write_item(&mut expected, item);
            expected.push('\n');
        }
        for span in spans {
            json::write_span(&mut expected, &span);
            expected.push('\n');
        }
    }
    let found = text(ExportFormat::Ndjson, &story());
    let (session, records) = found.split_once('\n').unwrap();
    assert!(session.starts_with(r#"{"v":1,"record":"session","uid":"0123456789abcdef0123456789abcdef","host":"node\"17\\","#), "{session}");
    assert_eq!(records, expected);
    assert_eq!(export_facts(ExportFormat::Ndjson, &story()), facts.as_bytes());
}

#[test]
fn a_filter_chooses_after_starts_and_ends_have_met() {
    let count = |filter: Filter| {
        let exporter = Exporter::new(ExportFormat::Ndjson, Vec::new()).unwrap().only(filter);
        let (text, written) = export_by(exporter, &story());
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        assert_eq!(lines.count() as u64, written.events + written.gaps + written.spans);
        let text = String::from_utf8(text).unwrap();
        ((written.events, written.gaps, written.spans), text)
    };
    let ends = count(Filter::new().types([EventType::MigrateEnd], false));
    assert_eq!(ends.0, (4, 2, 4));
    assert_eq!(ends.1.matches("\"outcome\":\"completed\"").count(), 2, "{}", ends.1);
    assert_eq!(count(Filter::new().types([EventType::VmFault], false)).0, (3, 2, 0));
    assert_eq!(count(Filter::new().severity(Severity::Critical)).0, (4, 2, 1));
    let (second, text) = count(Filter::new().gpus([gpu(1)]).pids([4243]));
    assert_eq!(second, (5, 1, 3), "{text}");
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
    let spans: usize = with_spans(&items).iter().map(|(_, spans)| spans.len()).sum();
    assert_eq!(records.len(), items.len() + spans + 1);
    let header = &records[0];
    assert!(records.iter().all(|record| record.len() == header.len()));
    let column = |name: &str| header.iter().position(|column| column == name).unwrap();
    let (raw, process) = (column("raw"), column("process"));
    let facts = records[1..].iter().filter(|record| record[0] != "span");
    for (record, item) in facts.zip(&items) {
        let Item::Event(event) = item else { continue };
        assert_eq!(gpuev::message::unescape(&record[raw]), event.raw());
        let name = gpuev::message::unescape(&record[process]);
        assert_eq!(name, event.process().unwrap_or_default());
        let computed = |field: &String| field.starts_with(['=', '@', '+']);
        assert!(!record.iter().any(computed), "a spreadsheet would compute {record:?}");
        assert!(!record[process].starts_with('-'));
    }
}

/// What a column holds, as the JSON of the same record has it.
fn of_json<'v>(record: &'v Value, column: &str) -> &'v Value {
    let data = &record["data"];
    match column {
        "gpu_index" => &record["gpu"]["index"],
        "bdf" | "unique_id" | "partition" => &record["gpu"][column],
        "from_node" => &data["from"],
        "to_node" => &data["to"],
        "unknown_id" => &data["id"],
        "cause" | "count" | "outcome" if record.get(column).is_some() => &record[column],
        _ => data.get(column).unwrap_or(&record[column]),
    }
}

#[test]
fn a_row_says_what_the_json_says() {
    let items = story();
    let rows = csv_records(&text(ExportFormat::Csv, &items));
    let records = &lines(ExportFormat::Ndjson, &items)[1..];
    assert_eq!(rows.len() - 1, records.len());
    let mut said = 0;
    for (row, record) in rows[1..].iter().zip(records) {
        for (column, cell) in rows[0].iter().zip(row) {
            let expected = match (column.as_str(), of_json(record, column)) {
                ("session", _) => "1".to_owned(),
                ("session_id", _) => session().uid.to_string(),
                ("message", _) if record["record"] == "gap" => continue,
                ("doubtful" | "across_gap", Value::Null) if record["record"] != "gap" => {
                    let absent = column == "across_gap" && record["record"] == "event";
                    if absent { String::new() } else { "false".to_owned() }
                }
                (_, Value::Null) => String::new(),
                (_, Value::String(text)) => text.clone(),
                (_, Value::Array(words)) => {
                    let words: Vec<_> = words.iter().map(|word| word.as_str().unwrap()).collect();
                    words.join(" ")
                }
                (_, other) => other.to_string(),
            };
            // What a spreadsheet would compute, and controls, are escaped in CSV only.
            let unescaped = |text: &str| gpuev::message::unescape(text);
            let texts = matches!(column.as_str(), "process" | "thread" | "raw" | "cause");
            let same = *cell == expected || (texts && unescaped(cell) == unescaped(&expected));
            assert!(same, "{column}: {cell:?} is not {expected:?} of {record}");
            said += usize::from(!cell.is_empty());
        }
    }
    assert!(said > 15 * records.len(), "{said}");
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

fn trace(items: &[Item]) -> Vec<Value> {
    let page: Value = serde_json::from_str(&text(ExportFormat::Trace, items)).unwrap();
    page.as_array().unwrap().clone()
}

/// Microseconds with three digits as nanoseconds.
fn ns(value: &Value) -> u64 {
    let text = value.to_string();
    let (whole, digits) = text.split_once('.').unwrap_or((&text, "0"));
    whole.parse::<u64>().unwrap() * 1000 + format!("{digits:0<3}").parse::<u64>().unwrap()
}

/// The rules of the trace event format, as Perfetto reads it (`json_trace_parser`): what it would drop or draw
/// elsewhere than told is an error. Gives how many slices lie on tracks and how many apart.
pub(crate) fn assert_valid_trace(page: &[Value]) -> (usize, usize) {
    let mut tracks = std::collections::HashMap::<(u64, u64), Vec<(u64, u64)>>::new();
    let mut named = std::collections::HashSet::new();
    let mut apart = std::collections::HashMap::new();
    let mut ended = 0;
    for event in page {
        let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("{key}: {event}"));
        let track = (number("pid"), number("tid"));
        assert!(event["name"].is_string(), "{event}");
        let phase = event["ph"].as_str().unwrap();
        if phase == "M" {
            match event["name"].as_str().unwrap() {
                "process_name" | "thread_name" => assert!(event["args"]["name"].is_string()),
                "process_sort_index" | "thread_sort_index" => {
                    // Perfetto reads 32 bits with a sign.
                    assert!(i32::try_from(event["args"]["sort_index"].as_i64().unwrap()).is_ok());
                }
                other => panic!("{other}"),
            }
            named.insert(track);
            continue;
        }
        assert!(named.contains(&track), "a track without a name: {event}");
        let at = ns(&event["ts"]);
        let key = || (track.0, event["cat"].to_string(), event["id"].as_str().unwrap().to_owned());
        match phase {
            "X" => tracks.entry(track).or_default().push((at, at + ns(&event["dur"]))),
            "i" => assert!(matches!(event["s"].as_str(), Some("g" | "p" | "t")), "{event}"),
            "C" => {
                let values = event["args"].as_object().unwrap();
                assert!(!values.is_empty() && values.values().all(Value::is_number), "{event}");
            }
            "b" => assert!(apart.insert(key(), (at, event["name"].clone())).is_none(), "{event}"),
            "e" => {
                let (begun, name) = apart.remove(&key()).expect("an end has a beginning");
                assert!(begun <= at && name == event["name"], "{event}");
                ended += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(apart.is_empty(), "begun and not ended: {apart:?}");
    for slices in tracks.values_mut() {
        slices.sort_unstable();
        assert!(slices.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{slices:?}");
    }
    (tracks.values().map(Vec::len).sum(), ended)
}

#[test]
fn slices_of_a_track_do_not_overlap_and_every_track_has_a_name() {
    assert_eq!(assert_valid_trace(&trace(&story())), (10, 0));
    let kinds = items::all_kinds();
    // One is later than a JSON number tells exactly.
    let (before, after) = (&kinds[..11], &kinds[12..]);
    assert_eq!(assert_valid_trace(&trace(&[before, after].concat())).1, 0);
}

#[test]
fn any_number_of_slices_may_overlap() {
    let line =
        |kind: char, pid: u64, rest: &str| format!("{kind} {pid}000 -9 @{pid:x}(1b11) {rest}");
    let starts = (1..=500).map(|page| line('7', page, "W"));
    let ends = (1..=500).map(|page| line('8', page, "M").replace("000 -9", "000000 -9"));
    let lines: Vec<String> = starts.chain(ends).collect();
    let items: Vec<Item> = (0..)
        .zip(&lines)
        .map(|(seq, line)| event(0, seq, 1_000_000_000 + seq, line.as_bytes()))
        .collect();
    let page = trace(&items);
    let (on_tracks, apart) = assert_valid_trace(&page);
    assert_eq!(on_tracks + apart, 500);
    assert!(apart > 100 && on_tracks >= 64, "{on_tracks} {apart}");
    let faults = page.iter().filter(|event| event["args"]["outcome"] == "migrated").count();
    assert_eq!(faults, 500);
}

#[test]
fn a_trace_holds_every_span_and_every_byte_that_moved() {
    let items = story();
    let page = trace(&items);
    let expected: Vec<Span> = with_spans(&items).into_iter().flat_map(|(_, spans)| spans).collect();
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
    assert_eq!(trace(&[]), Vec::<Value>::new());
}

#[test]
fn a_later_boot_lies_later_and_pairs_with_nothing_before() {
    let mut exporter = Exporter::new(ExportFormat::Trace, Vec::new()).unwrap();
    exporter.push(&event(0, 0, 900_000_000_000, b"3 1 job hang")).unwrap();
    exporter.session(2, &session()).unwrap();
    let mut after_boot = event(0, 0, 1_000_000_000, b"4 1 ");
    let Item::Event(later) = &mut after_boot else { unreachable!() };
    later.time.unix_ns += 1_000_000_000_000;
    exporter.push(&after_boot).unwrap();
    let text = String::from_utf8(exporter.finish().unwrap().0).unwrap();
    let page: Vec<Value> = serde_json::from_str(&text).unwrap();
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

/// What stands in a row of a column, as text; empty where there is no value.
fn value(column: &ColumnData, kind: &str, row: usize) -> String {
    if column.validity[row / 8] >> (row % 8) & 1 == 0 {
        return String::new();
    }
    let u32_at = |from: &[u8], row| u32::from_ne_bytes(from[4 * row..][..4].try_into().unwrap());
    let u64_at = |row: usize| u64::from_ne_bytes(column.data[8 * row..][..8].try_into().unwrap());
    match kind {
        "name" | "text" => {
            let [from, to] = [row, row + 1].map(|row| u32_at(&column.offsets, row) as usize);
            String::from_utf8(column.data[from..to].to_vec()).unwrap()
        }
        "bool" => (column.data[row / 8] >> (row % 8) & 1 == 1).to_string(),
        "i32" => u32_at(&column.data, row).cast_signed().to_string(),
        "u32" => u32_at(&column.data, row).to_string(),
        "u64" => u64_at(row).to_string(),
        "time" => gpuev::time::Rfc3339(u64_at(row).cast_signed()).to_string(),
        _ => panic!("{kind}"),
    }
}

/// All entries of two sessions of the story.
fn entries(only: Filter, spans: bool) -> Vec<(Origin, Entry)> {
    let (_folder, path) = items::folder();
    items::write(&path, &story());
    items::write(&path, &story());
    let history = Histories::open_file(&path).unwrap();
    let entries = Entries::new(history, &Query::new(), only);
    let mut entries = if spans { entries } else { entries.without_spans() };
    let found = std::iter::from_fn(|| entries.next_entry().unwrap()).collect();
    assert_eq!(entries.next_entry().unwrap(), None, "the end is the end");
    found
}

/// The table of the same.
fn table(only: &Filter, spans: bool) -> Vec<Vec<String>> {
    let exporter = Exporter::new(ExportFormat::Csv, Vec::new()).unwrap().only(only.clone());
    let mut exporter = if spans { exporter } else { exporter.without_spans() };
    for number in [1, 2] {
        exporter.session(number, &session()).unwrap();
        for item in &story() {
            exporter.push(item).unwrap();
        }
    }
    csv_records(std::str::from_utf8(&exporter.finish().unwrap().0).unwrap())
}

#[test]
fn batches_of_entries_have_what_the_table_has() {
    let ends = Filter::new().types([EventType::MigrateEnd, EventType::GpuPostReset], false);
    for (only, spans) in [(Filter::new(), true), (Filter::new(), false), (ends, true)] {
        let entries = entries(only.clone(), spans);
        let table = table(&only, spans);
        assert_eq!(entries.len(), table.len() - 1);
        let mut batch = Batch::default();
        assert!(entries.iter().all(|(origin, entry)| batch.push(entry, origin)));
        assert_eq!(batch.rows(), entries.len());
        let data = batch.into_columns();
        assert_eq!(data.len(), columns().count());
        // What a history knows, and a stream does not: the key of each item.
        let keys = ["session_id", "item"];
        for (row, (origin, entry)) in entries.iter().enumerate() {
            let key = columns().zip(&data).filter(|(info, _)| keys.contains(&info.name));
            let key: Vec<String> =
                key.map(|(info, column)| value(column, info.kind, row)).collect();
            assert_eq!(key[0], origin.uid.unwrap().to_string());
            assert_eq!(key[1].is_empty(), matches!(entry, Entry::Span(_)), "{origin:?} {key:?}");
        }
        let rest = columns().enumerate().zip(&data);
        let rest = rest.filter(|((_, info), _)| !keys.contains(&info.name));
        for ((place, info), column) in rest {
            for (row, line) in table[1..].iter().enumerate() {
                // A table for spreadsheets escapes more.
                let unescaped = gpuev::message::unescape(&line[place]);
                let told = gpuev::message::unescape(&value(column, info.kind, row));
                assert_eq!(told, unescaped, "{} of row {row}", info.name);
            }
        }
    }
}
