//! What the agent notes beside the events: it counts with them, names the event it is of, and goes with them.

use std::time::Duration;

use gpuev::time::Anchor;
use gpuev_store::export::{ExportFormat, Exporter};
use gpuev_store::{History, Note, NotedEvent, Query, RecordedNote, Retention, Writer};

use crate::driver::{BOOTED_UNIX_NS, fault, gpu};
use crate::items::{folder, read, session};

const SECOND: u64 = 1_000_000_000;

/// A note of GPU 0, taken for the event `of`.
pub(crate) fn note(at_boot_ns: u64, of: Option<u64>) -> Note {
    let json = format!(
        r#"{{"v":1,"record":"health","boot_ns":{at_boot_ns},"health":{{"temperatures":[{{"sensor":"junction","millidegrees":93000}}],"power_microwatts":7}}}}"#
    );
    Note {
        gpu: gpu(0),
        at: Anchor {
            boot_ns: at_boot_ns,
            unix_ns: BOOTED_UNIX_NS.saturating_add_unsigned(at_boot_ns),
        },
        event: of.map(|seq| NotedEvent { seq, received_boot_ns: at_boot_ns }),
        record: "health",
        json,
    }
}

pub(crate) fn notes(history: &History, query: &Query) -> Vec<RecordedNote> {
    let mut notes = history.notes(query);
    std::iter::from_fn(|| notes.next_before(None).unwrap()).collect()
}

#[test]
fn a_note_names_the_event_that_it_was_taken_for() {
    let (_folder, path) = folder();
    let mut writer = Writer::open(&path, &session()).unwrap();
    for seq in 0..100 {
        writer.append(&fault(seq, seq * 1_000, 7)).unwrap();
    }
    writer.append_note(&note(41_000, Some(40))).unwrap();
    writer.append_note(&note(50_000, None)).unwrap();
    writer.append_note(&note(50_000, Some(4_711))).unwrap();
    writer.append(&fault(100, 100_000, 7)).unwrap();
    writer.close_import().unwrap();
    let history = History::open(&path).unwrap();
    let found = notes(&history, &Query::new());
    let places: Vec<_> = found.iter().map(|note| (note.place.item, note.event)).collect();
    assert_eq!(places, [(101, Some(41)), (102, None), (103, None)]);
    assert_eq!(found[0].json, note(41_000, None).json);
    assert_eq!((found[0].gpu, found[0].at), (gpu(0), note(41_000, None).at));
    assert_eq!(read(&path, &Query::new()).len(), 101, "they are no items of the driver's");
    let at = BOOTED_UNIX_NS + 45_000;
    assert_eq!(notes(&history, &Query::new().from_unix_ns(at)).len(), 2);
    assert_eq!(notes(&history, &Query::new().after_item(102)).len(), 1);
    let others = gpuev::Filter::new().gpus([gpu(1)]);
    assert_eq!(notes(&history, &Query::new().filter(others)), []);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let select = "SELECT health.junction_millidegrees, health.power_microwatts, events.seq
        FROM events JOIN health ON health.event = events.id";
    let row: (i64, i64, i64) = connection
        .query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    assert_eq!(row, (93_000, 7, 40));
}

/// What a partition shares with the others of its GPU is told of the whole GPU only.
#[test]
fn the_view_of_health_has_what_a_partition_shares_with_its_gpu() {
    let (_folder, path) = folder();
    let mut writer = Writer::open(&path, &session()).unwrap();
    let mut partition = note(1_000, None);
    partition.json = r#"{"v":1,"record":"health","boot_ns":1000,"health":{"temperatures":[],"power_microwatts":null,
        "vram_used":5,"ras":[],"whole_gpu":{"temperatures":[{"sensor":"junction","millidegrees":71000}],
        "power_microwatts":9,"vram_used":50,"ras":[{"block":"umc","correctable":3}]}}}"#
        .to_owned();
    writer.append_note(&partition).unwrap();
    writer.append_note(&note(2_000, None)).unwrap();
    writer.close_import().unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    let select =
        "SELECT junction_millidegrees, power_microwatts, vram_used, ras FROM health ORDER BY id";
    let mut select = connection.prepare(select).unwrap();
    type Told = (Option<i64>, Option<i64>, Option<i64>, Option<String>);
    let told = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    let told: Vec<Told> = told.unwrap().map(Result::unwrap).collect();
    let ras = r#"[{"block":"umc","correctable":3}]"#.to_owned();
    assert_eq!(told[0], (Some(71_000), Some(9), Some(5), Some(ras)));
    assert_eq!(told[1], (Some(93_000), Some(7), None, None));
}

#[test]
fn a_batch_of_notes_alone_is_a_batch() {
    let (_folder, path) = folder();
    let mut writer = Writer::open(&path, &session()).unwrap();
    for at in 1..=3 {
        writer.append_note(&note(at * SECOND, None)).unwrap();
        writer.commit().unwrap();
    }
    writer.append(&fault(0, 4 * SECOND, 7)).unwrap();
    writer.close_import().unwrap();
    let history = History::open(&path).unwrap();
    assert_eq!((history.last_item().unwrap(), notes(&history, &Query::new()).len()), (4, 3));
    assert_eq!(read(&path, &Query::new()), [fault(0, 4 * SECOND, 7)]);
    // The next session counts on.
    Writer::open(&path, &session()).unwrap().close_import().unwrap();
    assert_eq!(history.sessions().unwrap()[1].first_item, 5);
}

#[test]
fn notes_go_with_the_items_of_their_time() {
    let (_folder, path) = folder();
    let retention = Retention { max_age: Some(Duration::from_secs(60)), max_bytes: None };
    let mut writer = Writer::open(&path, &session()).unwrap().with_retention(retention);
    for second in 0..600 {
        writer.append_note(&note(second * SECOND, None)).unwrap();
        writer.commit().unwrap();
    }
    writer.close_import().unwrap();
    assert_eq!(notes(&History::open(&path).unwrap(), &Query::new()).len(), 61);
}

#[test]
fn only_json_lines_have_a_place_for_them() {
    let (_folder, path) = folder();
    let mut writer = Writer::open(&path, &session()).unwrap();
    writer.append_note(&note(1, None)).unwrap();
    writer.close_import().unwrap();
    let found = notes(&History::open(&path).unwrap(), &Query::new()).remove(0);
    let text = |format| {
        let mut exporter = Exporter::new(format, Vec::new()).unwrap();
        exporter.note(&found).unwrap();
        String::from_utf8(exporter.finish().unwrap().0).unwrap()
    };
    assert_eq!(text(ExportFormat::Ndjson), format!("{}\n", found.json));
    assert!(!text(ExportFormat::Csv).contains("93000"));
}
