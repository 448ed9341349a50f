//! The serialized form.

use gpuev::{Gap, Item, json};

use crate::driver::{Driver, NEW, all};

fn line_of(driver: &Driver, text: &[u8]) -> String {
    let mut reader = driver.reader();
    driver.emit(0, text);
    let mut out = String::new();
    for item in all(&mut reader) {
        json::write_item(&mut out, &item);
    }
    out
}

/// Everything after the times, which differ from run to run.
fn after_time(line: &str) -> &str {
    &line[line.find("\"pid\"").unwrap()..]
}

#[test]
fn an_event_has_the_documented_form() {
    let driver = Driver::new(1, NEW);
    driver.name_process(4242, b"python3");
    let line = line_of(&driver, b"7 1810035809094 -4242 @7fff00000(1b11) W\n");
    let head = concat!(
        r#"{"v":1,"record":"event","seq":0,"type":"PAGE_FAULT_START","severity":"info","#,
        r#""gpu":{"index":0,"bdf":"0000:03:00.0","unique_id":null,"partition":0},"time":"#,
    );
    assert!(line.starts_with(head), "{line}");
    assert!(line.contains(r#""boot_ns":1810035809094,"clock":"driver","received_boot_ns":"#));
    assert_eq!(
        after_time(&line),
        concat!(
            r#""pid":4242,"process":"python3","#,
            r#""data":{"address":140733193388032,"access":"write","node":6929},"#,
            r#""message":"page fault: write at 0x7fff00000000 by pid 4242 (python3)","#,
            r#""raw":"7 1810035809094 -4242 @7fff00000(1b11) W"}"#,
        )
    );
}

#[test]
fn names_of_any_bytes_are_escaped_and_can_be_had_back() {
    let driver = Driver::new(1, NEW);
    let line = line_of(&driver, b"1 1234:a\"\\\x01\xff\xe2\x9a\xa1\n");
    let parsed = after_time(&line);
    assert!(
        parsed.starts_with(
            r#""pid":null,"process":null,"tid":4660,"thread":"a\"\\x5c\u0001\\xff⚡","data":{},"#
        ),
        "{parsed}"
    );
    assert_eq!(gpuev::message::unescape("a\"\\x5c\u{1}\\xff⚡"), b"a\"\\\x01\xff\xe2\x9a\xa1");
}

#[test]
fn a_thread_stands_beside_its_process() {
    let driver = Driver::new(1, NEW);
    driver.name_process(4242, b"python3");
    driver.name_thread(4250, 4242, b"worker 3");
    let line = line_of(&driver, b"1 109a:worker 3\n");
    assert_eq!(
        after_time(&line),
        concat!(
            r#""pid":4242,"process":"python3","tid":4250,"thread":"worker 3","data":{},"#,
            r#""message":"memory fault by pid 4242 (python3), thread 4250 (worker 3)","#,
            r#""raw":"1 109a:worker 3"}"#,
        )
    );
}

/// What is hidden is escaped as JSON has it, beyond the first plane of Unicode with two units.
#[test]
fn hidden_characters_of_every_plane_are_escaped() {
    let driver = Driver::new(1, NEW);
    let line = line_of(&driver, "1 1234:a\u{61c}\u{e0041}\u{4c561}\n".as_bytes());
    assert!(line.contains(r"a\u061c\udb40\udc41\ud8f1\udd61"), "{line}");
}

#[test]
fn every_type_has_its_data() {
    let driver = Driver::new(1, NEW);
    let cases: [(&str, &str); 9] = [
        ("2 100000000:7", r#"{"throttlers":4294967296,"reasons":["TEMP_GPU"],"count":7}"#),
        ("3 1 HWS hang", r#"{"sequence":1,"cause":"HWS hang"}"#),
        ("4 1 ", r#"{"sequence":1,"cause":null}"#),
        (
            "5 1 -2 @7(2) 0->64 ffffffff:64 1",
            r#"{"address":28672,"size":8192,"from":0,"to":100,"trigger":"pagefault_gpu","prefetch":null,"preferred":100}"#,
        ),
        (
            "6 1 -2 @7(2) 0->64 9 -12",
            r#"{"address":28672,"size":8192,"from":0,"to":100,"trigger":9,"error":-12}"#,
        ),
        ("8 1 -2 @7(64) U", r#"{"address":28672,"outcome":"mapped","node":100}"#),
        ("9 1 -2 64 2", r#"{"node":100,"trigger":"ttm"}"#),
        ("a 1 -2 64 R", r#"{"node":100,"rescheduled":true}"#),
        ("b 1 -2 @7(1) 64 0", r#"{"address":28672,"size":4096,"node":100,"trigger":"mmu_notify"}"#),
    ];
    for (text, data) in cases {
        let line = line_of(&driver, format!("{text}\n").as_bytes());
        assert!(line.contains(&format!("\"data\":{data},")), "{line}");
    }
}

#[test]
fn a_gap_has_the_documented_form() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    driver.emit(0, b"c 40507688514000 -323990 5\n");
    let items = all(&mut reader);
    let Item::Gap(gap) = &items[1] else { panic!("{items:?}") };
    let mut line = String::new();
    json::write_gap(
        &mut line,
        &Gap { count: Some(5), to_boot_ns: 18_203_445_217_186, ..gap.clone() },
    );
    assert!(line.starts_with(r#"{"v":1,"record":"gap","gpu":{"index":0,"#), "{line}");
    assert!(line.contains(r#""cause":"driver_fifo_full","count":5,"from_boot_ns":"#), "{line}");
    assert!(line.contains(r#""to_boot_ns":18203445217186,"time":""#), "{line}");
}

#[test]
fn a_doubtful_event_says_so() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    driver.emit(0, "1 1234:a\n3 1 HWS\n");
    let items = all(&mut reader);
    let Item::Event(event) = &items[1] else { panic!("{items:?}") };
    let mut out = String::new();
    json::write_event(&mut out, event);
    assert!(out.ends_with(r#""raw":"3 1 HWS","doubtful":true}"#), "{out}");
}

#[test]
fn times_are_rfc_3339_with_nine_digits() {
    let cases = [
        (1_795_348_701_123_456_789, "2026-11-22T11:58:21.123456789Z"),
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
    ];
    for (unix_ns, text) in cases {
        assert_eq!(gpuev::time::Rfc3339(unix_ns).to_string(), text);
    }
}
