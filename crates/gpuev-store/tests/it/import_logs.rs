//! The driver's lines as loggers pass them on, and text that is no such line.

use gpuev::time::Anchor;
use gpuev::{Clock, Event, Item};
use gpuev_store::History;
use gpuev_store::import::{Assumed, ImportFormat, Importer, import_history};
use proptest::prelude::*;

use crate::driver::BOOTED_UNIX_NS;
use crate::items;

/// A page fault and its end, as the driver writes them.
const FAULT: &str = "7 1810035809094 -4242 @7fff00000(1b11) W";
const MAPPED: &str = "8 1810035857305 -4242 @7fff00000(1b11) M";

fn assumed() -> Assumed {
    let mut assumed = Assumed::by(Anchor { boot_ns: 0, unix_ns: BOOTED_UNIX_NS });
    assumed.written_unix_ns = BOOTED_UNIX_NS + 30 * 86_400_000_000_000;
    assumed
}

fn detecting(text: &[u8]) -> Importer<&[u8]> {
    Importer::detecting("run.log", text, assumed())
}

fn events(text: &str) -> Vec<Event> {
    let mut importer = detecting(text.as_bytes());
    let items: Vec<_> = importer
        .by_ref()
        .map(|item| item.unwrap_or_else(|error| panic!("{error}: {text}")))
        .collect();
    let event = |item| match item {
        Item::Event(event) => event,
        Item::Gap(gap) => panic!("{gap:?}"),
    };
    items.into_iter().map(event).collect()
}

fn raw(event: &Event) -> &str {
    std::str::from_utf8(event.raw()).unwrap()
}

#[test]
fn the_drivers_lines_are_found_behind_what_loggers_write() {
    for before in [
        "",
        "2026-11-22T11:45:01Z ",
        "2026-11-22T11:45:01.5+01:00 ",
        "2026-11-22T11:45:01,123456+01:00 ",
        "2026-11-22T11:45:01+0100 node17 gpu-events[312]: ",
        "2026-11-22T11:45:01.123456+01:00 node17 gpu-events[312]: ",
        "2026-11-22 11:45:01 ",
        "2026-11-22 11:45:01,123 ",
        "[2026-11-22 11:45:01] ",
        "Nov 22 11:45:01 ",
        "Nov 22 11:45:01 node17 gpu-events: ",
        "Nov 22 11:45:01 node17 gpu-events[312]: ",
        "Nov 22 11:45:01.123456 node17.example.org gpu_events.service[312]: ",
        "Nov  2 11:45:01 node17 my-tool(x)[312]: ",
        "<30>Nov 22 11:45:01 node17 gpu-events[312]: ",
        "<30>1 2026-11-22T11:45:01.5Z node17 gpu-events 312 ID47 - ",
        "1 2026-11-22T11:45:01.5Z node17 gpu-events - - [a@1 b=\"]\" c=\"\\\"\"][d@1] ",
        "Sun 2026-11-22 11:45:01 UTC node17 gpu-events[312]: ",
        "Sun Nov 22 11:45:01 2026 ",
        "[12345.678901] ",
        "[12345,678901] ",
        "[12345.678901] node17 gpu-events[312]: ",
        "<6>[12345.678901] ",
        "<6>[12345.678901][  T312] ",
        "kern  :info  : [12345.678901] [    C0] ",
        "[12345.678901 <    0.000014>] ",
        "[  +0.000014] ",
        "[Nov22 11:45] ",
        "[Sun Nov 22 11:45:01 2026] ",
        "6,1234,12345678901,-;",
        "1795344301.123456 node17 gpu-events[312]: ",
        "11:45:01 ",
        "00:00:01.5 ",
        "2026-11-22T11:45:01.123456789Z stdout F ",
        "2026-11-22T11:45:01.123456789Z ",
        "gpu-events-1  | ",
        "gpu-events-1  | 2026-11-22T11:45:01Z ",
        "[pod/gpu-events-abc/main] ",
        "2026-11-22T11:45:01.123456789Z stdout F Nov 22 11:45:01 node17 gpu-events: ",
        "gpu-events: ",
    ] {
        let text = format!("{before}{FAULT}\n{before}0000:83:00.0 {MAPPED}\r\n");
        let read = events(&text);
        assert_eq!(read.iter().map(raw).collect::<Vec<_>>(), [FAULT, MAPPED], "{before:?}");
        assert_eq!(read[1].gpu.bdf.to_string(), "0000:83:00.0", "{before:?}");
        assert!(read.iter().all(|event| event.time.clock == Clock::Driver));
    }
}

#[test]
fn the_journals_and_containers_objects_are_opened() {
    let at = "2026-11-22T10:45:01.123456789Z";
    let bytes: Vec<String> = FAULT.bytes().map(|byte| byte.to_string()).collect();
    let journal = format!(
        r#"{{"__REALTIME_TIMESTAMP":"1795344301123456","_HOSTNAME":"node17","SYSLOG_IDENTIFIER":"gpu","MESSAGE":"{FAULT}"}}"#
    );
    let binary =
        format!(r#"{{"__REALTIME_TIMESTAMP":"1795344301123456","MESSAGE":[{}]}}"#, bytes.join(","));
    let docker = format!(r#"{{"log":"{FAULT}\n","stream":"stdout","time":"{at}"}}"#);
    let program = format!(r#"{{"level":"info","ts":1795344301.123456,"msg":"gpu: {FAULT}"}}"#);
    for (text, nanoseconds) in [
        (journal, 123_456_000),
        (binary, 123_456_000),
        (docker, 123_456_789),
        (program, 123_456_000),
    ] {
        let read = events(&text);
        assert_eq!(raw(&read[0]), FAULT, "{text}");
        let since = read[0].time.unix_ns - 1_795_344_301_000_000_000 - nanoseconds;
        assert!(since.abs() < 1000, "{since}: {text}");
    }
}

#[test]
fn the_journals_export_is_read_with_messages_of_any_bytes() {
    let nul = b"a 1810035857305 -4242 1b11 \0";
    let mut text = b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1795344301123456\n_BOOT_ID=0123456789abcdef0123456789abcdef\n\
        _HOSTNAME=node17\nSYSLOG_IDENTIFIER=gpu\nMESSAGE="
        .to_vec();
    text.extend([FAULT.as_bytes(), b"\n_PID=1\n\n__CURSOR=s=2\nMESSAGE\n"].concat());
    text.extend((nul.len() as u64).to_le_bytes());
    text.extend([nul, &b"\nPRIORITY=6\n\n__CURSOR=s=3\nMESSAGE\n"[..]].concat());
    // Ten bytes: the size has a newline in it.
    text.extend(
        [&10_u64.to_le_bytes()[..], b"c 7 a\nb\nc \n\n__CURSOR=s=4\nMESSAGE=c 7 python3"].concat(),
    );
    let mut importer = detecting(&text);
    let read: Vec<Item> = importer.by_ref().map(Result::unwrap).collect();
    let lines: Vec<&[u8]> = read
        .iter()
        .map(|item| match item {
            Item::Event(event) => event.raw(),
            Item::Gap(gap) => panic!("{gap:?}"),
        })
        .collect();
    assert_eq!(lines[..2], [FAULT.as_bytes(), nul]);
    let session = importer.session_from(Anchor { boot_ns: 0, unix_ns: 0 });
    assert_eq!(session.boot_id.as_deref(), Some("01234567-89ab-cdef-0123-456789abcdef"));
    assert_eq!(session.host.as_deref(), Some("node17"));
}

/// What no driver wrote, however much it looks like it.
const WORDS: [&str; 27] = [
    "3 GPUs found, starting 2 workers",
    "1 of 8 jobs failed",
    "added 17 nodes",
    "bad config",
    "2 retries left",
    "3 errors found",
    "c pid finished",
    "c 2 workers",
    "d 10 done",
    "1 12:30 lunch",
    "1 5:30",
    "2 4:1",
    "3 1 of 5",
    "4 7",
    "a 1 -2 3 4 5 6 of them",
    "e5 1 2",
    "f 1 2 3",
    "dead beef",
    "7 1810035809094",
    "7 1810035809094 -4242 @7fff00000(1b11)",
    "7 1810035809094 -4242 @7fff00000 W",
    "9 -4242 1 0",
    "feed 12 goldfish",
    "0",
    "c 1 ",
    "c 5000000 name",
    "c 7 a name that is longer than fifteen",
];

#[test]
fn text_that_is_no_line_of_the_driver_is_never_an_event() {
    for word in WORDS {
        for before in
            ["", "2026-11-22T11:45:01Z ", "[12345.678901] ", "Nov 22 11:45:01 node17 cron[7]: "]
        {
            let text = format!("{before}{word}\n");
            let mut items = detecting(text.as_bytes()).lenient(true);
            assert!(items.next().is_none(), "{text:?}");
            assert_eq!(items.broken() + items.ignored(), 1, "{text:?}");
            if before.is_empty() {
                assert!(detecting(text.as_bytes()).next().unwrap().is_err(), "{text:?}");
            }
        }
    }
}

#[test]
fn lines_without_a_time_count_where_their_writer_is_known() {
    let writer = format!(
        "Nov 22 11:45:01 node17 gpu[1]: c 7 python3\nNov 22 11:45:02 node17 cron[2]: c 2 workers\nNov 22 11:45:03 node17 gpu[1]: {FAULT}\n"
    );
    let mut items = detecting(writer.as_bytes()).lenient(true);
    let lines: Vec<_> = items
        .by_ref()
        .map(Result::unwrap)
        .map(|item| match item {
            Item::Event(event) => raw(&event).to_owned(),
            Item::Gap(gap) => panic!("{gap:?}"),
        })
        .collect();
    assert_eq!(lines, ["c 7 python3", FAULT]);
    assert!(
        items.first_broken().unwrap().contains("line 2 of run.log: it may be a line of the driver")
    );
    let said = Importer::new(
        "run.log",
        b"c 7 python3\n1f of a later kernel\n".as_slice(),
        ImportFormat::Driver,
        assumed(),
    );
    assert_eq!(said.map(Result::unwrap).count(), 2);
    for certain in [
        "1 1092:python3",
        "3 1 RAS error",
        "0000:03:00.0 c 7 python3",
        "4 2 job hang on ring:gfx_0.0.0",
    ] {
        assert_eq!(detecting(certain.as_bytes()).map(Result::unwrap).count(), 1, "{certain}");
    }
}

#[test]
fn a_line_that_is_cut_is_told_also_in_a_log_of_many_programs() {
    let text = format!(
        "Nov 22 11:45:01 node17 gpu[1]: {FAULT}\nNov 22 11:45:02 node17 sshd[2]: hello\nNov 22 11:45:03 node17 gpu[1]: 7 1810035\n"
    );
    let mut items = detecting(text.as_bytes());
    assert!(items.next().unwrap().is_ok());
    let error = items.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("line 3 of run.log: it is cut or damaged"), "{error}");
    assert_eq!(items.ignored(), 1);
}

#[test]
fn times_of_lines_before_the_drivers_first_are_right() {
    let second = 1_000_000_000;
    let text = "\
2026-11-22T11:45:00Z 0000:03:00.0 c 7 python3
2026-11-22T11:45:01Z 0000:03:00.0 9 101000000000 -7 1 0
2026-11-22T11:45:13Z 0000:03:00.0 a 113000000000 -7 1 
2026-11-22T11:45:14Z 0000:03:00.0 d 7 python3
";
    let times: Vec<_> = events(text).iter().map(|event| event.time.boot_ns).collect();
    assert_eq!(times, [100 * second, 101 * second, 113 * second, 114 * second]);
    // Without any time: at the first that is known.
    let times: Vec<_> =
        events("0000:03:00.0 c 7 python3\n9 101000000000 -7 1 0\n0000:03:00.0 d 7 python3\n")
            .iter()
            .map(|event| event.time.boot_ns)
            .collect();
    assert_eq!(times, [101 * second; 3]);
}

#[test]
fn a_process_that_starts_after_a_reboot_is_of_that_boot() {
    let second = 1_000_000_000;
    let text = "\
2026-11-22T11:45:01Z 0000:03:00.0 9 9001000000000 -7 1 0
2026-11-22T11:45:02Z 0000:03:00.0 c 8 python3
2026-11-22T13:00:00Z 0000:03:00.0 c 7 python3
2026-11-22T13:00:01Z 0000:03:00.0 9 11000000000 -7 1 0
";
    let times: Vec<_> = events(text).iter().map(|event| event.time.boot_ns).collect();
    assert_eq!(times, [9001 * second, 9002 * second, 10 * second, 11 * second]);
    let (_folder, path) = items::folder();
    let imported = import_history(&mut detecting(text.as_bytes()), &path).unwrap();
    assert_eq!((imported.sessions, imported.events), (2, 4));
}

#[test]
fn seconds_of_a_log_do_not_turn_the_order_round() {
    let text = format!(
        "Nov 22 11:45:01 node17 gpu: {FAULT}\nNov 22 11:45:01 node17 gpu: {MAPPED}\nNov 22 11:45:01 node17 gpu: d 1092 python3\n"
    );
    let times: Vec<_> = events(&text).iter().map(|event| event.time.boot_ns).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_step_of_the_wall_clock_does_not_move_what_the_driver_timed() {
    let text = "\
2026-11-22T11:45:01Z 9 101000000000 -7 1 0
2026-11-22T11:46:05Z a 105000000000 -7 1 
2026-11-22T11:46:06Z 0000:03:00.0 d 7 python3
";
    let second = 1_000_000_000;
    let text = text.replace("Z ", "Z 0000:03:00.0 ").replace("0000:03:00.0 0000", "0000");
    let times: Vec<_> = events(&text).iter().map(|event| event.time.boot_ns).collect();
    assert_eq!(times, [101 * second, 105 * second, 106 * second]);
}

#[test]
fn boots_that_the_journal_tells_of_are_sessions() {
    let text = format!(
        "2026-11-22T11:45:01+0100 node17 gpu[1]: {FAULT}\n-- Boot 0123456789abcdef0123456789abcdef --\n2026-11-22T11:50:01+0100 node17 gpu[1]: {MAPPED}\n"
    );
    let (_folder, path) = items::folder();
    let mut importer = detecting(text.as_bytes());
    let imported = import_history(&mut importer, &path).unwrap();
    assert_eq!((imported.sessions, imported.events), (2, 2));
    let of = |boot: char, line: &str| {
        let id: String = std::iter::repeat_n(boot, 32).collect();
        format!(
            r#"{{"_BOOT_ID":"{id}","__REALTIME_TIMESTAMP":"1795344301123456","_HOSTNAME":"node17","MESSAGE":"{line}"}}"#
        )
    };
    let text = format!("{}\n{}\n", of('a', FAULT), of('b', MAPPED));
    let (_folder, path) = items::folder();
    let imported = import_history(&mut detecting(text.as_bytes()), &path).unwrap();
    assert_eq!((imported.sessions, imported.events), (2, 2));
    let sessions = History::open(&path).unwrap().sessions().unwrap();
    let told: Vec<_> = sessions
        .iter()
        .map(|one| (one.session.host.as_deref(), one.session.boot_id.as_deref().map(|id| &id[..3])))
        .collect();
    assert_eq!(told, [(Some("node17"), Some("aaa")), (Some("node17"), Some("bbb"))]);
}

#[test]
fn hosts_are_not_merged() {
    let text = format!(
        "Nov 22 11:45:01 node17 gpu: {FAULT}\nNov 22 11:45:01 node17.example.org gpu: {MAPPED}\nNov 22 11:45:01 node18 gpu: {FAULT}\n"
    );
    let mut items = detecting(text.as_bytes());
    assert_eq!(items.by_ref().take(2).map(Result::unwrap).count(), 2);
    let error = items.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("node18") && error.contains("--host"), "{error}");
    let mut assumed = assumed();
    assumed.host = Some("node18".to_owned());
    let mut items = Importer::detecting("run.log", text.as_bytes(), assumed);
    assert_eq!(items.by_ref().map(Result::unwrap).count(), 1);
    assert_eq!(items.ignored(), 2);
}

#[test]
fn what_amd_smi_event_prints_is_imported() {
    let dict = "EVENT LISTENING:\n\nPress q and hit ENTER when you want to stop (listening will stop within 10 seconds)\n\
        {'processor_handle': c_void_p(94262), 'event': 'VMFAULT', 'message': '1092:python3'}\n\
        {'processor_handle': c_void_p(94300), 'event': 'GPU_PRE_RESET', 'message': 'reset sequence number: 3  reset cause: RAS error'}\n";
    let human = "GPU: 0\n    EVENT: VMFAULT\n    MESSAGE: PID: 4242  task name: python3\n\n\
        GPU: 1\n    EVENT: GPU_PRE_RESET\n    MESSAGE: reset sequence number: 3  reset cause: RAS error\n";
    let json = "[\n    {\n        \"gpu\": 0,\n        \"values\": {\n            \"event\": \"VMFAULT\",\n            \"message\": \"PID: 4242  task name: python3\"\n        }\n    }\n]\n\
        {\"gpu\": 1, \"event\": \"GPU_PRE_RESET\", \"message\": \"reset sequence number: 3  reset cause: RAS error\"}\n";
    let csv = "gpu,event,message\n0,VMFAULT,1092:python3\n1,GPU_PRE_RESET,3 RAS error\n";
    for text in [dict, human, json, csv] {
        let read: Vec<_> =
            events(text).iter().map(|event| (event.gpu.index, raw(event).to_owned())).collect();
        let expected = [(0, "1 1092:python3".to_owned()), (1, "3 3 RAS error".to_owned())];
        assert_eq!(read, expected, "{text}");
    }
    for (event, message, line) in [
        ("THERMAL_THROTTLE", "bitmask: 0x80  counter: 0x1f", "2 80:1f"),
        ("PROCESS_START", "PID: 4242  task: python3", "c 1092 python3"),
        ("GPU_POST_RESET", "reset sequence number: 3", "4 3"),
        ("PAGE_FAULT_START", "1810035809094 -4242 @7fff00000(1b11) W", FAULT),
    ] {
        let text = format!(
            "{{'event': '{event}', 'message': '{message}', 'timestamp': '2026-11-22T11:45:01+01:00'}}"
        );
        let read = events(&text);
        assert_eq!(raw(&read[0]), line);
        assert_eq!(read[0].time.unix_ns, 1_795_344_301_000_000_000);
    }
    // The library cuts the address: no value is better than a wrong one.
    let cut = "{'event': 'PAGE_FAULT_START', 'message': 'ns: 1  pid: 2  addr: fa608127'}";
    let error = detecting(cut.as_bytes()).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("amd-smi does not print"), "{error}");
}

#[test]
fn what_the_file_seems_to_be_is_told() {
    for (text, seems) in [
        ("[12345.678901] amdgpu 0000:03:00.0: amdgpu: GPU reset begin!\n", "kernel log"),
        (
            "Feb 12 10:00:00 node17 kernel: amdgpu 0000:03:00.0: amdgpu: GPU reset begin!\n",
            "kernel log",
        ),
        ("+------------+\n| AMD-SMI |\n", "amd-smi"),
        ("2026-11-22T11:45:01Z bad config\n", "a log with times"),
        ("<idle>-0 [000] 0.000017: mce_record: 2026-11-22 11:45:01 +0000 bank=1\n", "rasdaemon"),
    ] {
        let mut items = detecting(text.as_bytes()).lenient(true);
        assert!(items.next().is_none());
        assert!(items.seems().unwrap().contains(seems), "{text}: {:?}", items.seems());
    }
}

#[test]
fn the_dropped_events_of_a_profile_are_a_gap_by_the_drivers_clock() {
    let text =
        b"ROCr HMM event: 5000 QUEUE_RESTORE GPU0(0x1)\nROCr HMM event: 18203445217186 UNKNOWN \n";
    let items: Vec<_> = detecting(text).map(Result::unwrap).collect();
    let [Item::Event(_), Item::Event(unnamed), Item::Gap(gap)] = &items[..] else {
        panic!("{items:?}")
    };
    assert_eq!((unnamed.time.clock, unnamed.time.boot_ns), (Clock::Driver, 18_203_445_217_186));
    assert_eq!((gap.count, gap.from_boot_ns, gap.to_boot_ns), (None, 5000, 18_203_445_217_186));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Words in any envelope are no event, unless they are a line of the driver.
    #[test]
    fn prose_is_never_an_event(words in prop::collection::vec("[a-zA-Z0-9.,:()-]{1,9}", 1..8), seen in 0..5_usize) {
        let prose = words.join(" ");
        let before = ["", "2026-11-22T11:45:01Z ", "[12345.678901] ", "Nov 22 11:45:01 node17 x[7]: ", "<6>"][seen];
        let text = format!("{before}{prose}\n");
        let read: Vec<_> = detecting(text.as_bytes()).lenient(true).map(Result::unwrap).collect();
        // Of all words only a task's with its name, as `1 a:b`, are like no other text.
        let faulted = |item: &Item| matches!(item, Item::Event(event) if event.type_name() == "VMFAULT");
        prop_assert!(read.iter().all(faulted), "{text:?}: {read:?}");
    }
}
