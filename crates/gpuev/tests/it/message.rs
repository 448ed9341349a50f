//! Events in words.

use gpuev::{Comm, Event, EventFacts, EventView, Item};

use crate::span::{event, gpu};

/// The smallest and the largest numbers, what has no name, and what must not reach a terminal.
const LINES: [(&str, &str); 17] = [
    ("1 1:a\\b \u{1b}é", "memory fault by pid 1 (a\\x5cb \\x1bé)"),
    ("1 0:", "memory fault"),
    ("2 0:0", "throttling: no reason given (throttled 0 times since the driver was loaded)"),
    (
        "2 8200001000000401:ffffffffffffffff",
        "throttling: PPT0, TEMP_HOTSPOT, FIT, mask 0x8000000000000400 \
         (throttled 18446744073709551615 times since the driver was loaded)",
    ),
    ("2 100:a", "throttling: mask 0x100 (throttled 10 times since the driver was loaded)"),
    ("3 ffffffff job hang", "GPU reset 4294967295 begins: job hang"),
    ("4 0 ", "GPU reset 0 is over"),
    (
        "5 1 -4194304 @0(1) 0->ffffffff 0:0 1",
        "migration: 4.0 KiB at 0x0 from system memory to GPU 0xffffffff (pagefault_gpu) \
         by pid 4194304 (python3)",
    ),
    (
        "6 1 -1 @1(0) a->10 -2147483648 -12",
        "migrated: 0 bytes at 0x1000 from GPU 0xa to GPU 0x10 (trigger -2147483648) \
         by pid 1 (python3): failed, Cannot allocate memory (os error 12)",
    ),
    ("7 1 -0 @ffffffffffffffff(64) W", "page fault: write at 0xffffffffffffffff"),
    ("8 1 -9 @fff(64) U", "page fault resolved: mapped at 0xfff000 by pid 9 (python3)"),
    ("9 1 -10 64 6", "queues evicted (trigger 6) by pid 10 (python3)"),
    ("a 1 -99 64 R", "queue restore rescheduled by pid 99 (python3)"),
    (
        "b 1 -100 @10(40000000) 64 2",
        "unmapped 4.0 TiB at 0x10000 (unmap_from_cpu) by pid 100 (python3)",
    ),
    ("c 1092 train", "GPU process started by pid 4242 (train)"),
    ("2a of a later \u{7f}", "unknown event 42: 2a of a later \\x7f"),
    ("7 nothing", "malformed line: 7 nothing"),
];

/// The process of the thread 4250, and what is said.
const THREADS: [(Option<u32>, &str, &str); 4] = [
    (Some(4242), "worker", "memory fault by pid 4242 (worker), thread 4250 (pt_autograd_0)"),
    (Some(4242), "", "memory fault by pid 4242, thread 4250 (pt_autograd_0)"),
    (Some(4250), "pt_main", "memory fault by pid 4250 (pt_main), thread 4250 (pt_autograd_0)"),
    (None, "", "memory fault by thread 4250 (pt_autograd_0)"),
];

#[test]
fn a_thread_and_its_process_are_told_apart() {
    for (pid, process, message) in THREADS {
        let Item::Event(event) = event(gpu(0), "1 109a:pt_autograd_0", 1) else { panic!() };
        let comm = Comm::new(process.as_bytes());
        let event = Event::from_facts(EventFacts { pid, comm, ..event.facts() });
        assert_eq!(event.message().to_string(), message);
        assert_eq!((event.pid(), event.tid()), (pid, Some(4250)));
        assert_eq!(event.thread(), Some(&b"pt_autograd_0"[..]));
    }
}

#[test]
fn lines_become_messages() {
    for (line, message) in LINES {
        let Item::Event(event) = event(gpu(0), line, 1) else { panic!("{line} is an event") };
        assert_eq!(event.message().to_string(), message);
        let mut appended = String::from("> ");
        EventView::of(event.facts()).write_message(&mut appended);
        assert_eq!(appended, format!("> {message}"));
    }
}

/// Classes of Unicode: controls, formats such as bidi marks and tags, separators, odd blanks, private use, and what is
/// nobody's.
/// The driver's errors are negative; one that is not has the same name.
#[test]
fn the_sign_of_a_migrations_error_does_not_change_its_name() {
    let message = |error: &str| {
        let line = format!("6 1 -1 @1(0) a->10 1 {error}");
        let Item::Event(event) = event(gpu(0), &line, 1) else { panic!("{line} is an event") };
        event.message().to_string()
    };
    for (error, name) in [
        ("75", "Value too large"),
        ("-75", "Value too large"),
        ("-12", "Cannot allocate memory"),
        ("-2147483648", ""),
    ] {
        let text = message(error);
        assert!(text.contains(&format!("failed, {name}")), "{text}");
    }
}

#[test]
fn what_a_terminal_hides_or_obeys_is_escaped() {
    use gpuev::message::Printable;
    let hidden = [
        '\u{0}',
        '\u{7f}',
        '\u{85}',
        '\u{a0}',
        '\u{ad}',
        '\u{600}',
        '\u{61c}',
        '\u{180e}',
        '\u{200b}',
        '\u{200e}',
        '\u{2028}',
        '\u{2029}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{206a}',
        '\u{feff}',
        '\u{fff9}',
        '\u{110bd}',
        '\u{1d173}',
        '\u{e0001}',
        '\u{e0041}',
        '\u{e000}',
        '\u{378}',
        '\u{10ffff}',
    ];
    for character in hidden {
        let name = format!("a{character}b");
        let shown = Printable(name.as_bytes()).to_string();
        assert!(
            shown.starts_with("a\\x") && shown.is_ascii(),
            "{character:?} is shown as {shown:?}"
        );
        assert_eq!(gpuev::message::unescape(&shown), name.as_bytes());
    }
    for name in ["a b", "é", "e\u{301}", "日本語", "⚡", "ß'\"", "שלום"] {
        assert_eq!(Printable(name.as_bytes()).to_string(), name);
    }
}
