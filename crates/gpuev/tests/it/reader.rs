//! One GPU.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use gpuev::{Clock, ErrorKind, EventData, EventType, GapCause, Item, Severity};

use crate::driver::{Driver, NEW, OLD, all, raw};

const FAULT: &str = "7 40507688414784 -4242 @7fff00000(64) W\n";

fn events(items: &[Item]) -> Vec<&gpuev::Event> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Event(event) => Some(event),
            Item::Gap(_) => None,
        })
        .collect()
}

#[test]
fn an_event_says_what_when_whose_and_how_it_is_known() {
    let driver = Driver::new(1, NEW);
    driver.name_process(4242, b"python3");
    let mut reader = driver.reader();
    driver.emit(0, FAULT);
    driver.emit(0, "2 400000000:7\n");
    let items = all(&mut reader);
    let [fault, thermal] = events(&items)[..] else { panic!("{items:?}") };
    assert_eq!(fault.event_type(), Some(EventType::PageFaultStart));
    assert_eq!((fault.pid(), fault.process()), (Some(4242), Some(&b"python3"[..])));
    assert_eq!((fault.time.boot_ns, fault.time.clock), (40_507_688_414_784, Clock::Driver));
    assert_eq!(
        fault.message().to_string(),
        "page fault: write at 0x7fff00000000 by pid 4242 (python3)"
    );
    assert_eq!((fault.seq, thermal.seq), (0, 1));
    assert_eq!((thermal.time.clock, thermal.severity()), (Clock::Receipt, Severity::Warning));
    assert_eq!(thermal.time.boot_ns, thermal.time.received_boot_ns);
    assert!(thermal.message().to_string().starts_with("throttling: TEMP_MEM (throttled 7 times"));
}

#[test]
fn nothing_there_is_none_and_a_wait_ends_in_time() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    assert!(reader.next().unwrap().is_none());
    assert!(reader.wait(Some(Duration::ZERO)).unwrap().is_none());
    driver.emit(0, FAULT);
    assert!(reader.wait(None).unwrap().is_some());
}

#[test]
fn a_wait_ends_with_each_event_whoever_took_those_before() {
    for version in [OLD, NEW] {
        let driver = Driver::new(1, version);
        let mut reader = driver.reader();
        let (go, rounds) = mpsc::channel();
        thread::scope(|scope| {
            let driver = &driver;
            scope.spawn(move || rounds.iter().for_each(|()| driver.emit(0, FAULT)));
            for round in 0..1000 {
                go.send(()).unwrap();
                let item = match round % 3 {
                    // Taken without a wait: the next must not end for this one.
                    0 => std::iter::repeat_with(|| reader.next().unwrap()).flatten().next(),
                    1 => reader.wait(Some(Duration::from_secs(600))).unwrap(),
                    _ => reader.wait(None).unwrap(),
                };
                assert!(matches!(item, Some(Item::Event(event)) if event.seq == round));
            }
            drop(go);
        });
        assert!(reader.wait(Some(Duration::from_millis(1))).unwrap().is_none());
    }
}

#[test]
fn a_wait_on_a_gpu_that_is_gone_ends_each_time() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    driver.emit(0, FAULT);
    assert!(reader.wait(None).unwrap().is_some());
    driver.remove_gpu(0);
    for _ in 0..3 {
        assert_eq!(reader.wait(None).unwrap_err().kind(), ErrorKind::GpuRemoved);
    }
}

#[test]
fn stopping_twice_is_fine_and_reading_after_it_is_an_error() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    reader.stop();
    reader.stop();
    assert_eq!(reader.next().unwrap_err().kind(), ErrorKind::Stopped);
}

#[test]
fn a_gpu_that_goes_is_an_error_that_says_so() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    driver.emit(0, FAULT);
    driver.remove_gpu(0);
    assert!(reader.next().unwrap().is_some(), "what came before still comes");
    let error = reader.next().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GpuRemoved);
    assert!(error.to_string().contains("0000:03:00.0"), "{error}");
}

#[test]
fn readers_of_one_gpu_are_independent() {
    let driver = Driver::new(1, NEW);
    let (mut first, mut second) = (driver.reader(), driver.reader());
    driver.emit(0, FAULT);
    first.stop();
    assert_eq!(all(&mut second).len(), 1);
}

#[test]
fn unknown_and_malformed_lines_are_delivered_whole() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    driver.emit(0, b"1f 5 a later kernel\nnonsense \xff\x1b[2J\n\n");
    let items = all(&mut reader);
    let lines: Vec<_> = items.iter().map(raw).collect();
    assert_eq!(lines, ["1f 5 a later kernel", "nonsense \\xff\\x1b[2J", ""]);
    assert_eq!(events(&items)[0].type_name(), "UNKNOWN");
    let message = events(&items)[1].message().to_string();
    assert_eq!(message, "malformed line: nonsense \\xff\\x1b[2J");
}

#[test]
fn a_full_fifo_is_a_gap_before_what_came_after_it() {
    let driver = Driver::new(1, OLD);
    let mut reader = driver.reader();
    let line = "7 27433766456 -179 @7f0000000(5a21) W\n";
    driver.emit(0, line.repeat(1024 / line.len()));
    let items = all(&mut reader);
    let at = items.iter().position(|item| matches!(item, Item::Gap(_))).unwrap();
    let Item::Gap(gap) = &items[at] else { unreachable!() };
    assert_eq!((gap.cause, gap.count), (GapCause::DriverFifoFull, None));
    assert!(gap.from_boot_ns <= gap.to_boot_ns);
    let before = at * line.len();
    assert!((1024 - 103..=1024 - 103 + line.len()).contains(&before), "after {before} bytes");
    assert_eq!(items.len(), 1024 / line.len() + 1, "one gap for one fill");
    driver.emit(0, line);
    assert_eq!(all(&mut reader).len(), 1, "and none afterwards");
}

#[test]
fn number_14_is_unknown_and_no_loss_by_itself() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    // A count of dropped events, a rescheduled restore, or the same in digits that both have.
    for line in ["e 18203445217186 -323990 5", "e 1820344521 -7 5a21", "e 1820344521 -7 5a21 0"] {
        driver.emit(0, format!("{line}\n"));
        let items = all(&mut reader);
        let [event] = events(&items)[..] else { panic!("{items:?}") };
        assert_eq!((event.type_name(), items.len()), ("UNKNOWN", 1));
        assert_eq!(event.data(), EventData::Unknown { id: Some(14) });
        let says_so = event.message().to_string().contains("may tell that it dropped events");
        assert_eq!(says_so, line.ends_with(" 5"), "{}", event.message());
    }
}

#[test]
fn what_tells_of_drops_under_another_number_is_shown_and_a_possible_loss() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    for line in ["c 40507688514000 -323990 5", "c 9876543 -42 5", "1f 40507688514000 -323990 5"] {
        let before = gpuev::time::boot_now_ns();
        driver.emit(0, format!("{line}\n2 400:7\n"));
        let items = all(&mut reader);
        let [Item::Event(event), Item::Gap(gap), Item::Event(_)] = &items[..] else {
            panic!("{items:?}")
        };
        assert_eq!((event.type_name(), event.raw()), ("UNKNOWN", line.as_bytes()));
        assert_eq!((gap.cause, gap.count), (GapCause::DriverFifoFull, None));
        assert!(gap.from_boot_ns <= before && gap.to_boot_ns >= before, "{gap:?} at {before}");
    }
    driver.emit(0, "c 2674 -42 5\n");
    let items = all(&mut reader);
    assert_eq!(events(&items)[0].event_type(), Some(EventType::ProcessStart));
    assert_eq!(items.len(), 1, "a process may be called so");
}

#[test]
fn a_name_that_proc_confirms_swallows_its_forged_line() {
    let driver = Driver::new(1, NEW);
    driver.name_process(0x1234, b"a\n3 1 HWS");
    let mut reader = driver.reader();
    driver.emit(0, "1 1234:a\n3 1 HWS\n");
    let items = all(&mut reader);
    let [fault] = events(&items)[..] else { panic!("{items:?}") };
    assert_eq!(fault.process(), Some(&b"a\n3 1 HWS"[..]));
    assert_eq!(fault.message().to_string(), "memory fault by pid 4660 (a\\x0a3 1 HWS)");
    assert!(!fault.doubtful);
}

#[test]
fn a_short_name_that_proc_confirms_leaves_the_next_event_alone() {
    let driver = Driver::new(1, NEW);
    driver.name_process(0x1234, b"a");
    let mut reader = driver.reader();
    driver.emit(0, "1 1234:a\n3 1 HWS\n");
    let items = all(&mut reader);
    assert_eq!(items.len(), 2);
    assert!(events(&items).iter().all(|event| !event.doubtful));
}

#[test]
fn what_cannot_be_decided_is_marked() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    driver.emit(0, "1 1234:a\n3 1 HWS\n2 10:0\n");
    let items = all(&mut reader);
    let doubtful: Vec<_> = events(&items).iter().map(|event| event.doubtful).collect();
    assert_eq!(doubtful, [false, true, false], "a\\n3 1 HWS\\n2 10:0 would be too long for a name");
    assert!(events(&items)[1].message().to_string().contains("doubtful"));
}

#[test]
fn the_drivers_counters_unmask_a_forgery() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    driver.emit(0, "3 5 HWS hang\n4 5 \n2 0:9\n");
    assert_eq!(all(&mut reader).len(), 3);
    for forged in ["3 5 HWS", "4 4 ", "2 0:8", "hello"] {
        driver.emit(0, format!("1 1234:a\n{forged}\n"));
        let items = all(&mut reader);
        assert_eq!(items.iter().map(raw).collect::<Vec<_>>(), [format!("1 1234:a\\n{forged}")]);
    }
}

#[test]
fn a_line_too_long_for_a_name_is_never_doubted() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    driver.emit(0, format!("c 1234 a\n{FAULT}"));
    assert!(events(&all(&mut reader)).iter().all(|event| !event.doubtful));
}

#[test]
fn the_end_of_a_process_is_its_own_although_proc_no_longer_has_it() {
    let driver = Driver::new(1, NEW);
    driver.name_process(4242, b"python3");
    driver.name_thread(4250, 4242, b"worker");
    let mut reader = driver.reader();
    driver.emit(0, "c 109a worker\n");
    let mut items = all(&mut reader);
    driver.remove("proc/4242");
    driver.remove("proc/4250");
    driver.remove("sys/class/kfd/kfd/proc/4242");
    driver.emit(0, "1 109a:worker\nd 109a worker\n1 109a:worker\n");
    items.extend(all(&mut reader));
    let owners: Vec<_> = events(&items).iter().map(|event| (event.pid(), event.tid())).collect();
    let (known, unknown) = ((Some(4242), Some(4250)), (None, Some(4250)));
    assert_eq!(owners, [known, known, known, unknown], "after its end the number is anybody's");
}

#[test]
fn a_bystander_who_has_the_number_now_is_not_taken_for_the_process() {
    let driver = Driver::new(1, NEW);
    driver.name_process(4242, b"python3");
    driver.name_thread(4250, 99, b"worker");
    let mut reader = driver.reader();
    driver.emit(0, "1 109a:worker\n");
    let items = all(&mut reader);
    let [fault] = events(&items)[..] else { panic!("{items:?}") };
    assert_eq!((fault.pid(), fault.process(), fault.tid()), (None, None, Some(4250)));
}
