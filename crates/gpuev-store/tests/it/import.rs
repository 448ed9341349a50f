//! Items from text.

use gpuev::time::Anchor;
use gpuev::{Clock, Event, GapCause, Item};
use gpuev_store::export::{ExportFormat, Exporter};
use gpuev_store::import::{Assumed, Entry, ImportFormat, Imported, Importer, import_history};
use gpuev_store::{History, Query, Writer};
use proptest::prelude::*;

use crate::driver::{BOOTED_UNIX_NS, event, gap, gpu};
use crate::export::{assert_valid_trace, export, export_facts, story};
use crate::items;

fn assumed() -> Assumed {
    Assumed::by(Anchor { boot_ns: 0, unix_ns: BOOTED_UNIX_NS })
}

fn importer(format: ImportFormat, text: &[u8]) -> Importer<&[u8]> {
    Importer::new("run.txt", text, format, assumed())
}

fn import(format: ImportFormat, text: &[u8]) -> Vec<Item> {
    importer(format, text).collect::<gpuev::Result<_>>().unwrap()
}

fn events(format: ImportFormat, text: &str) -> Vec<Event> {
    let event = |item| match item {
        Item::Event(event) => event,
        Item::Gap(gap) => panic!("{gap:?}"),
    };
    import(format, text.as_bytes()).into_iter().map(event).collect()
}

fn raw(event: &Event) -> &str {
    std::str::from_utf8(event.raw()).unwrap()
}

#[test]
fn what_was_exported_comes_back() {
    let text = export(ExportFormat::Ndjson, &story());
    let items = import(ImportFormat::Ndjson, &text);
    assert_eq!(items, story());
    assert_eq!(export(ExportFormat::Ndjson, &items), text);
}

#[test]
fn other_records_and_fields_are_left_alone() {
    let event = r#"{"v":1,"later":{"a":[1]},"record":"event","gpu":{"index":0,"bdf":"0000:03:00.0",
        "unique_id":null,"partition":0,"later":1},"seq":1,"time":"1970-01-01T00:00:01Z",
        "received_boot_ns":5,"process":"a","raw":"7 4 -9 @1(2) W"}"#
        .replace('\n', " ");
    let text = format!("{{\"v\":1,\"record\":\"span\",\"seq\":\"x\"}}\n\n{event}");
    let mut items = importer(ImportFormat::Ndjson, text.as_bytes());
    let Some(Ok(Item::Event(event))) = items.next() else { panic!() };
    assert_eq!((event.time.boot_ns, event.time.clock), (4, Clock::Driver));
    assert_eq!((event.time.unix_ns, event.process()), (1_000_000_000, Some(&b"a"[..])));
    assert!(items.next().is_none());
    assert_eq!(items.ignored(), 2);
}

#[test]
fn a_broken_line_is_named_or_counted() {
    let good = String::from_utf8(export_facts(ExportFormat::Ndjson, &story())).unwrap();
    let cut = &good[..good.len() - 10];
    let cases = [
        (cut.to_owned(), "line 29 of run.txt: EOF"),
        ("{}\n".to_owned(), "line 1 of run.txt: missing field"),
        (good.replacen("\"v\":1", "\"v\":2", 1), "line 1 of run.txt: its version is 2"),
        (good.replacen("0000:03", "0000-03", 1), "is not a PCI address"),
        (good.replacen("T00:", "T99:", 1), "is no time"),
        ("x".repeat(100_000), "longer than 65536 bytes"),
        ("[".repeat(60_000), "line 1 of run.txt: "),
    ];
    for (text, told) in cases {
        let mut items = importer(ImportFormat::Ndjson, text.as_bytes());
        let error = items.find_map(Result::err).unwrap();
        assert!(error.to_string().contains(told), "{error}");
        assert!(items.next().is_none(), "nothing follows an error");
        let mut items = importer(ImportFormat::Ndjson, text.as_bytes()).lenient(true);
        let read = items.by_ref().map(Result::unwrap).count() as u64;
        assert_eq!(items.broken(), 1, "{told}");
        assert!(items.first_broken().unwrap().contains(told));
        assert_eq!(read, text.lines().count() as u64 - 1);
    }
}

#[test]
fn the_rocm_runtimes_profile_becomes_the_drivers_lines() {
    let text = "\
ROCr HMM event: 14601738586508 MIGRATE_START PAGEFAULT_GPU CPU->GPU0(0x55d0c8) [0x7f0f15200000, 0x7f0f17dfffff]
ROCr HMM event: 14601738586600 MIGRATE_END PAGEFAULT_GPU CPU->GPU0(0x55d0c8) [0x7f0f15200000, 0x7f0f17dfffff]
ROCr HMM event: 14601738586700 MIGRATE_START PAGEFAULT_CPU GPU1(0x55d0c9)->CPU [(nil), 0xfff]
ROCr HMM event: 40507688414784 PAGE_FAULT_START Read GPU0(0x55d0c8) 140173920825344
ROCr HMM event: 40507688414785 PAGE_FAULT_START Write GPU0(0x55d0c8) 140173920825344
ROCr HMM event: 40507688514376 PAGE_FAULT_END Map GPU0(0x55d0c8) 140173920825344
ROCr HMM event: 40507688514377 PAGE_FAULT_END Migration GPU0(0x55d0c8) 140173920825344
ROCr HMM event error: Read returned -1, Resource temporarily unavailable (11)
ROCr HMM event: 38086928279363 QUEUE_EVICTION USERPTR GPU1(0x55d0c9)
ROCr HMM event: 38086928279364 QUEUE_EVICTION UNKNOWN GPU1(0x55d0c9)
ROCr HMM event: 38652512365099 QUEUE_RESTORE GPU1(0x55d0c9)
ROCr HMM event: 15203214457186 UNMAP_FROM_GPU UNMAP_FROM_CPU GPU0(0x55d0c8) [0x7f93ac200000, 0x7f93ac3fffff]
ROCr HMM event: 15203214457187 UNKNOWN 
";
    let mut assumed = assumed();
    assumed.gpus = vec![gpu(0), gpu(1)];
    assumed.pid = Some(4242);
    let importer =
        Importer::new("run.txt", text.as_bytes(), ImportFormat::SvmProfile, assumed.clone());
    let mut items: Vec<Item> = importer.map(Result::unwrap).collect();
    // What the runtime has no name for came unasked: it may count dropped events.
    let Some(Item::Gap(gap)) = items.pop() else { panic!("{items:?}") };
    assert_eq!((gap.cause, gap.count), (GapCause::DriverFifoFull, None));
    let Some(Item::Event(unnamed)) = items.last() else { panic!("{items:?}") };
    assert_eq!((unnamed.time.boot_ns, unnamed.time.clock), (15_203_214_457_187, Clock::Driver));
    let lines: Vec<String> = items
        .iter()
        .map(|item| match item {
            Item::Event(event) => format!("{} {}", event.gpu.index, raw(event)),
            Item::Gap(gap) => format!("{} gap of {:?}", gap.gpu.index, gap.count),
        })
        .collect();
    let expected = [
        "0 5 14601738586508 -4242 @7f0f15200(2c00) 0->1b11 ffffffff:ffffffff 1",
        "0 6 14601738586600 -4242 @7f0f15200(2c00) 0->1b11 1",
        "1 5 14601738586700 -4242 @0(1) 1b12->0 ffffffff:ffffffff 2",
        "0 7 40507688414784 -4242 @7f7cc8c1f(1b11) R",
        "0 7 40507688414785 -4242 @7f7cc8c1f(1b11) W",
        "0 8 40507688514376 -4242 @7f7cc8c1f(1b11) U",
        "0 8 40507688514377 -4242 @7f7cc8c1f(1b11) M",
        "1 9 38086928279363 -4242 1b12 1",
        "1 9 38086928279364 -4242 1b12 -1",
        "1 a 38652512365099 -4242 1b12",
        "0 b 15203214457186 -4242 @7f93ac200(200) 1b11 2",
        "0 ROCr HMM event: 15203214457187 UNKNOWN",
    ];
    assert_eq!(lines, expected);
    for item in &items[..11] {
        let Item::Event(event) = item else { unreachable!() };
        assert!(event.event_type().is_some(), "{}", raw(event));
        assert_eq!(event.pid(), Some(4242));
        let unix_ns = BOOTED_UNIX_NS.saturating_add_unsigned(event.time.boot_ns);
        assert_eq!(event.time.unix_ns, unix_ns);
    }
}

#[test]
fn gpus_that_nobody_knows_are_told_apart() {
    let text =
        "ROCr HMM event: 1 QUEUE_RESTORE GPU0(0x1)\nROCr HMM event: 2 QUEUE_RESTORE GPU300(0x2)\n";
    let events = events(ImportFormat::SvmProfile, text);
    let bdfs: Vec<String> = events.iter().map(|event| event.gpu.bdf.to_string()).collect();
    assert_eq!(bdfs, ["ffff:00:00.0", "ffff:2c:01.0"]);
    assert_eq!((raw(&events[0]), raw(&events[1])), ("a 1 -0 1", "a 2 -0 12d"));
    assert_eq!(events[1].pid(), None);
}

#[test]
fn no_profile_is_told_so() {
    for line in [
        "7 1 -2 @1(2) W",
        "ROCr HMM event: x QUEUE_RESTORE GPU0(0x1)",
        "ROCr HMM event: 1 QUEUE_RESTORE GPU9999999(0x1)",
        "ROCr HMM event: 1 QUEUE_RESTORE CPU",
        "ROCr HMM event: 1 PAGE_FAULT_START Write GPU0(0x1) 4097",
        "ROCr HMM event: 1 MIGRATE_START PREFETCH CPU->CPU [0x1000, 0x1fff]",
        "ROCr HMM event: 1 UNMAP_FROM_GPU MMU_NOTIFY GPU0(0x1) [0x1001, 0x1fff]",
    ] {
        let error = importer(ImportFormat::SvmProfile, line.as_bytes()).next().unwrap();
        assert!(error.unwrap_err().to_string().starts_with("line 1 of run.txt: "), "{line}");
    }
}

#[test]
fn lines_of_the_driver_bare_and_from_logs() {
    let text = "\
c 1092 python3
7 1000000000 -4242 @7fff00000(1b11) W
2026-11-22T00:00:02Z 0000:83:00.0 8 2000000000 -4242 @7fff00000(1b11) M
<...>-123 [002] 0.000017: kfd_smi_event: 2026-11-22 01:00:05.25 +0100 3 1 RAS error
e 6000000000 -4242 5
ff of a later kernel
";
    let items = import(ImportFormat::Driver, text.as_bytes());
    let told: Vec<_> = items
        .iter()
        .map(|item| match item {
            Item::Event(event) => (event.type_name(), event.time.boot_ns, event.gpu.index),
            Item::Gap(gap) => {
                assert_eq!((gap.cause, gap.count), (GapCause::DriverFifoFull, None));
                ("gap", gap.to_boot_ns, gap.gpu.index)
            }
        })
        .collect();
    assert_eq!(
        told,
        [
            // It has no time: no earlier one is known.
            ("PROCESS_START", 1_000_000_000, 0),
            ("PAGE_FAULT_START", 1_000_000_000, 0),
            ("PAGE_FAULT_END", 2_000_000_000, 1),
            ("GPU_PRE_RESET", 5_250_000_000, 0),
            ("UNKNOWN", 6_000_000_000, 0),
            ("gap", 6_000_000_000, 0),
            ("UNKNOWN", 6_000_000_000, 0),
        ]
    );
    let Item::Event(reset) = &items[3] else { panic!() };
    assert_eq!(reset.time.unix_ns, BOOTED_UNIX_NS + 5_250_000_000);
    let Item::Event(end) = &items[2] else { panic!() };
    assert_eq!(end.gpu.bdf.to_string(), "0000:83:00.0");
    let nonsense = importer(ImportFormat::Driver, b"hello, world").next().unwrap();
    assert!(nonsense.unwrap_err().to_string().contains("no line of the driver"));
}

#[test]
fn wall_times_of_every_size_come_back() {
    for unix_ns in [i64::MIN, -1, 0, 951_782_400_000_000_001, i64::MAX] {
        let mut items = story();
        let Item::Event(event) = &mut items[0] else { panic!() };
        event.time.unix_ns = unix_ns;
        let text = export_facts(ExportFormat::Ndjson, &items[..1]);
        let Item::Event(event) = &import(ImportFormat::Ndjson, &text)[0] else { panic!() };
        assert_eq!(event.time.unix_ns, unix_ns);
    }
}

#[test]
fn times_of_logs_are_read_as_they_are_written() {
    for (time, unix_ns) in [
        ("2026-11-23T00:00:00Z", BOOTED_UNIX_NS + 86_400_000_000_000),
        ("2026-11-22 00:00:00.000000001Z", BOOTED_UNIX_NS + 1),
        ("2026-11-22T01:00:01+01:00", BOOTED_UNIX_NS + 1_000_000_000),
        // Before the boot that is assumed.
        ("1969-12-31 20:00:00.5 -0400", 500_000_000),
        ("2000-02-29T00:00:00 +00:00", 951_782_400_000_000_000),
    ] {
        let text = format!("at 12{time}x {time} 3 1 RAS error");
        let Item::Event(event) = &import(ImportFormat::Driver, text.as_bytes())[0] else {
            panic!()
        };
        assert_eq!((event.time.unix_ns, raw(event)), (unix_ns, "3 1 RAS error"), "{time}");
    }
    for no_time in ["2001-02-29T00:00:00Z", "1970-01-01T25:00:00Z", "1970-01-01T00:00:00"] {
        let text = format!("{no_time} 3 1 RAS error");
        assert!(importer(ImportFormat::Driver, text.as_bytes()).next().unwrap().is_err(), "{text}");
    }
}

#[test]
fn each_line_is_told_by_what_it_is() {
    let text = "\
ROCr HMM event error: Read returned -1
ROCr HMM event: 1000 QUEUE_RESTORE GPU0(0x1)
7 2000 -2 @1(2) W
0000:03:00.0 c 7 python3

";
    let mut items = Importer::detecting("run.txt", text.as_bytes(), assumed());
    let told: Vec<_> = items.by_ref().map(|item| name_of(&item.unwrap())).collect();
    assert_eq!(told, ["QUEUE_RESTORE", "PAGE_FAULT_START", "PROCESS_START"]);
    assert_eq!((items.ignored(), items.broken(), items.unknown()), (2, 0, 0));
}

fn name_of(item: &Item) -> String {
    match item {
        Item::Event(event) => event.type_name().to_owned(),
        Item::Gap(gap) => format!("gap of {:?}", gap.count),
    }
}

/// What a history exports to, as `gpuev export` does it.
fn exported(path: &std::path::Path) -> String {
    let history = History::open(path).unwrap();
    let sessions = history.sessions().unwrap();
    let mut exporter = Exporter::new(ExportFormat::Ndjson, Vec::new()).unwrap();
    let mut items = history.items(&Query::new());
    let mut before = None;
    while let Some((place, item)) = items.next_placed().unwrap() {
        if before.replace(place.session) != Some(place.session) {
            let recorded = sessions.iter().find(|one| one.id == place.session).unwrap();
            exporter.session(recorded.id, &recorded.session).unwrap();
        }
        exporter.push(&item).unwrap();
    }
    String::from_utf8(exporter.finish().unwrap().0).unwrap()
}

fn import_to(path: &std::path::Path, text: &str) -> Imported {
    import_history(&mut importer(ImportFormat::Ndjson, text.as_bytes()), path).unwrap()
}

#[test]
fn sessions_come_back_and_a_second_import_adds_them_again() {
    let (folder, path) = items::folder();
    let mut session = items::session();
    session.host = Some("node17".to_owned());
    session.scope = Some("all processes: root".to_owned());
    session.gpus = vec![(gpu(0), Some("MI300X".to_owned())), (gpu(7), None)];
    let mut writer = Writer::open(&path, &session).unwrap();
    story().iter().for_each(|item| writer.append(item).unwrap());
    writer.close().unwrap();
    items::write(&path, &items::all_kinds());
    let text = exported(&path);
    let copy = folder.path().join("copy.db");
    let imported = import_to(&copy, &text);
    assert_eq!((imported.sessions, imported.events, imported.gaps), (2, 45, 5));
    assert_eq!(exported(&copy), text);
    let of = |path| History::open(path).unwrap().sessions().unwrap();
    assert_eq!(of(&copy), of(&path), "also what no line of the text shows");
    assert_eq!(items::read(&copy, &Query::new()), items::read(&path, &Query::new()));
    import_to(&copy, &text);
    assert_eq!(exported(&copy), text.repeat(2));
}

#[test]
fn an_import_of_nothing_is_a_history_of_nothing() {
    let (_folder, path) = items::folder();
    let imported = import_to(&path, "");
    assert_eq!((imported.sessions, imported.events, imported.gaps), (1, 0, 0));
    assert_eq!(exported(&path), "");
}

/// What `gpuev watch --json` wrote before and after a reboot, one behind the other, and no word of sessions.
#[test]
fn a_text_that_goes_on_after_a_reboot_is_two_sessions() {
    let event = |boot: i64, boot_ns: u64| {
        let line = format!("7 {boot_ns} -9 @1(1b11) W");
        let Item::Event(event) = crate::driver::event(0, 0, boot_ns + 40, line.as_bytes()) else {
            panic!()
        };
        let mut facts = event.facts();
        facts.time.unix_ns += boot * 3_600_000_000_000;
        Item::Event(Event::from_facts(facts))
    };
    // The second boot is looked at later after its beginning than the first.
    let before = [event(0, 5_000_000_000), event(0, 4_990_000_000), event(0, 9_000_000_000)];
    let after = [event(1, 20_000_000_000), event(1, 19_990_000_000)];
    let both = [&before[..], &after].concat();
    let (_folder, path) = items::folder();
    let text = String::from_utf8(export_facts(ExportFormat::Ndjson, &both)).unwrap();
    assert_eq!(import_to(&path, &text).sessions, 2);
    let history = History::open(&path).unwrap();
    let sessions = history.sessions().unwrap();
    let begun: Vec<_> = sessions.iter().map(|one| (one.first_item, one.session.started)).collect();
    let hour = 3_600_000_000_000;
    let anchor = |boot: i64, boot_ns: u64| Anchor {
        boot_ns,
        unix_ns: (BOOTED_UNIX_NS + boot * hour).saturating_add_unsigned(boot_ns),
    };
    assert_eq!(begun, [(1, anchor(0, 5_000_000_000)), (4, anchor(1, 20_000_000_000))]);
    let time_of = |item: &Item| {
        let Item::Event(event) = item else { panic!() };
        event.time
    };
    let times: Vec<_> = items::read(&path, &Query::new()).iter().map(time_of).collect();
    assert_eq!(times, both.iter().map(time_of).collect::<Vec<_>>());
}

#[test]
fn a_log_of_the_driver_that_goes_on_after_a_reboot_keeps_its_wall_times() {
    let text = "\
2026-11-22T00:00:05Z 7 5000000000 -9 @1(1b11) W
2026-11-22T00:00:06Z 8 6000000000 -9 @1(1b11) M
2026-11-22T01:00:07Z 7 7000000000 -9 @1(1b11) W
2026-11-22T01:00:08Z 3 1 RAS error
";
    let events = events(ImportFormat::Driver, text);
    let times: Vec<_> = events
        .iter()
        .map(|event| (event.time.boot_ns, event.time.unix_ns - BOOTED_UNIX_NS, event.seq))
        .collect();
    let second = 1_000_000_000;
    let hour = 3_600_000_000_000;
    let expected = [
        (5_000_000_000, 5 * second, 0),
        (6_000_000_000, 6 * second, 1),
        (7_000_000_000, hour + 7 * second, 0),
        (8_000_000_000, hour + 8 * second, 1),
    ];
    assert_eq!(times, expected);
    let (_folder, path) = items::folder();
    let mut importer = importer(ImportFormat::Driver, text.as_bytes());
    assert_eq!(import_history(&mut importer, &path).unwrap().sessions, 2);
}

/// Lines of loggers, of the driver and of other programs.
const LOGS: &[u8] = b"\
<30>1 2026-11-22T11:45:01.5Z node17 gpu-events 312 - [a b=\"]\"] 7 1810035809094 -4242 @7fff00000(1b11) W\n\
Nov 22 11:45:01 node17 gpu-events[312]: c 7 python3\n\
{\"MESSAGE\":\"8 1810035857305 -4242 @7fff00000(1b11) M\",\"__REALTIME_TIMESTAMP\":\"1795347901123456\"}\n\
2026-11-22T11:45:01.123456789Z stdout F 2026-11-22 11:45:01,5 +0100 1 1092:python3\n\
kern  :info  : [12345.678901][  T12] amdgpu 0000:03:00.0: amdgpu: GPU reset begin!\n\
{'processor_handle': c_void_p(94262), 'event': 'VMFAULT', 'message': '1092:python3'}\n\
-- Boot 0123456789abcdef0123456789abcdef --\n";

fn drained(format: Option<ImportFormat>, text: &[u8]) -> u64 {
    let entries = match format {
        Some(format) => importer(format, text),
        None => Importer::detecting("run.txt", text, assumed()),
    };
    let mut entries = entries.lenient(true);
    let mut read = 0;
    let mut before = None;
    while let Some(entry) = entries.next_entry().unwrap() {
        // A line that may count dropped events is an event and a gap.
        let inferred = matches!(&entry, Entry::Item(Item::Gap(gap))
            if gap.count.is_none() && before == Some(gap.to_boot_ns));
        read += u64::from(!inferred);
        before = match entry {
            Entry::Item(Item::Event(event)) => Some(event.time.boot_ns),
            _ => None,
        };
    }
    read + entries.broken() + entries.ignored()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No input is a panic, and each line is something.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let lines = bytes.split_inclusive(|&byte| byte == b'\n').count() as u64;
        for format in ImportFormat::ALL.map(Some).into_iter().chain([None]) {
            prop_assert_eq!(drained(format, &bytes), lines);
        }
    }

    /// The same of what looks right and has some bytes changed.
    #[test]
    fn damaged_text_is_read(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        seen in 0..4_usize,
    ) {
        let text: Vec<u8> = match seen {
            0 => export(ExportFormat::Ndjson, &story()),
            1 => LOGS.to_vec(),
            2 => b"ROCr HMM event: 1 UNMAP_FROM_GPU MMU_NOTIFY GPU0(0x1) [0x1000, 0x1fff]\n\
                ROCr HMM event: 1 MIGRATE_START PREFETCH CPU->GPU1(0x1) [0x1000, 0x1fff]\n".to_vec(),
            _ => b"2026-11-22 01:00:05.25 +0100 0000:03:00.0 7 1000 -4 @7(1b11) W\ne 1 -0 5\n".to_vec(),
        };
        let mut text = text;
        for (at, byte) in damage {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let lines = text.split_inclusive(|&byte| byte == b'\n').count() as u64;
        for format in ImportFormat::ALL.map(Some).into_iter().chain([None]) {
            prop_assert_eq!(drained(format, &text), lines);
        }
    }

    /// Export of an import of an export is the export, whatever the names and lines are.
    #[test]
    fn any_line_goes_there_and_back(
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..20),
        pids in prop::collection::vec(any::<u32>(), 0..20),
    ) {
        let mut items: Vec<Item> = (0..)
            .zip(&lines)
            .map(|(seq, line)| crate::driver::doubtful_event(0, seq, seq, line, seq % 2 == 0))
            .collect();
        items.extend(pids.into_iter().map(|pid| {
            let name = pid.to_le_bytes();
            let mut line = format!("c {pid:x} ").into_bytes();
            line.extend(name);
            crate::driver::event(1, 0, u64::from(pid), &line)
        }));
        let text = export(ExportFormat::Ndjson, &items);
        let back = import(ImportFormat::Ndjson, &text);
        prop_assert_eq!(export(ExportFormat::Ndjson, &back), text);
        export(ExportFormat::Csv, &items);
        let trace: Vec<serde_json::Value> =
            serde_json::from_slice(&export(ExportFormat::Trace, &items)).unwrap();
        assert_valid_trace(&trace);
        prop_assert!(trace.len() < 8 * items.len() + 16);
    }

}

proptest! {
    // Each takes two files that are synced.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// The same through histories: gaps, sessions and what spans come of them included.
    #[test]
    fn any_history_goes_there_and_back(
        sessions in prop::collection::vec(prop::collection::vec(any_item(), 0..30), 1..4),
    ) {
        let (folder, path) = items::folder();
        for items in &sessions {
            items::write(&path, items);
        }
        let text = exported(&path);
        let copy = folder.path().join("copy.db");
        import_to(&copy, &text);
        prop_assert_eq!(exported(&copy), text);
    }
}

/// Starts and ends of two processes on few pages, lines of any bytes, and gaps.
fn any_item() -> impl Strategy<Value = Item> {
    let paired = ("[5-8]", 0..4_u64, 1..3_u32, 0..2_u32, 0..50_u64).prop_map(
        |(kind, page, pid, index, at)| {
            let line = match kind.as_str() {
                "5" => format!("5 {at}000 -{pid} @{page}(1) 0->1b11 0:0 1"),
                "6" => format!("6 {at}000 -{pid} @{page}(1) 0->1b11 1 0"),
                "7" => format!("7 {at}000 -{pid} @{page}(1b11) W"),
                _ => format!("8 {at}000 -{pid} @{page}(1b11) M"),
            };
            event(index, at, at * 1_000 + 7, line.as_bytes())
        },
    );
    let any_line = (prop::collection::vec(any::<u8>(), 0..80), 0..2_u32, any::<u32>())
        .prop_map(|(line, index, at)| event(index, 0, u64::from(at), &line));
    let gaps = (0..2_u32, any::<u32>(), any::<u32>(), any::<Option<u64>>())
        .prop_map(|(index, from, to, count)| gap(index, from.min(to).into(), to.into(), count));
    prop_oneof![6 => paired, 1 => any_line, 1 => gaps]
}
