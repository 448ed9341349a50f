//! Reports are held against what the simulator knows it emitted, and against files.

mod golden;
mod model;
mod packed;
mod period;
mod stream;
mod truth;

use gpuev::{EventType, GapCause, Item};
use gpuev_store::report::{Options, Report, Reporter, Source};
use gpuev_store::{Histories, Query};

use stream::{Stream, gpu};

fn report(items: &[Item]) -> Report {
    let mut reporter = Reporter::new(Options::default());
    items.iter().for_each(|item| reporter.push(item));
    reporter.finish()
}

#[test]
fn of_nothing_there_is_a_report_too() {
    let empty = report(&[]);
    assert_eq!((empty.events, empty.observed_ns, empty.first_unix_ns), (0, 0, None));
    assert!(empty.is_complete() && empty.gpus.is_empty() && empty.timeline.is_empty());
    assert!(empty.text().contains("nothing happened"));
    assert!(empty.html().ends_with("</html>\n"));
    assert!(empty.json().starts_with(r#"{"v":1,"record":"report","sources":[],"#));
}

#[test]
fn of_a_history_it_is_that_of_its_items() {
    let mut stream = Stream::of_story("mixed", 2, 2_000);
    stream.gap(1, GapCause::SubscriberSlow, Some(3), 1_000, 2_000);
    let (_folder, path) = crate::items::folder();
    crate::items::write(&path, &stream.items);
    let history = Histories::open_file(&path).unwrap();
    let session = history.sessions().unwrap().remove(0).session;
    let mut reporter = Reporter::new(Options::default());
    reporter.begin(history.sources().unwrap().remove(0).1);
    stream.items.iter().for_each(|item| reporter.push(item));
    let whole = history.report(&Query::new(), Options::default()).unwrap();
    assert_eq!(whole.json(), reporter.finish().json());
    let none = Query::new().to_unix_ns(session.started.unix_ns);
    let none = history.report(&none, Options::default()).unwrap();
    assert_eq!((none.events, none.observed_ns, none.source_count), (0, 0, 0));
}

#[test]
fn of_gaps_alone_the_report_says_that_it_knows_nothing() {
    let mut stream = Stream::new();
    stream.gap(0, GapCause::DriverFifoFull, None, 1_000_000_000, 3_000_000_000);
    stream.gap(0, GapCause::SubscriberSlow, Some(7), 3_000_000_000, 3_500_000_000);
    stream.gap(1, GapCause::SubscriberSlow, Some(5), 3_000_000_000, 4_000_000_000);
    let gaps = report(&stream.items);
    assert!(!gaps.is_complete());
    assert_eq!((gaps.events, gaps.lost(), gaps.gpus.len()), (0, 12, 2));
    let slow = gaps.gaps.iter().find(|gap| gap.cause == GapCause::SubscriberSlow).unwrap();
    assert_eq!((slow.gaps, slow.lost, slow.of_unknown_size), (2, 12, 0));
    assert_eq!(slow.total_ns, 1_500_000_000);
    let text = gaps.text();
    assert!(text.contains("! Incomplete: 3 gaps (12 events lost, 1 of unknown size)."), "{text}");
    assert!(gaps.html().contains("Incomplete: 3 gaps"));
    assert!(gaps.json().contains(r#""complete":false"#));
}

#[test]
fn names_do_not_become_markup_nor_move_a_cursor() {
    let mut stream = Stream::new();
    let hostile: [&[u8]; 4] = [b"<script>x", b"\x1b[2J&\"'", b"\xff\xfe\xe2\x80\xae", b"a\nb|c"];
    for (number, name) in hostile.iter().enumerate() {
        let mut line = format!("1 {:x}:", 4000 + number).into_bytes();
        line.extend_from_slice(name);
        stream.line(0, number as u64, &line);
    }
    stream.line(0, 9, b"3 1 <img src=x onerror=y>\x1b[31m");
    stream.line(0, 10, b"4 1 ");
    let mut reporter = Reporter::new(Options::default());
    let name = "</title><b>\u{1b}]0;x\u{7}".to_owned();
    reporter.begin(Source { host: Some(name.clone()), name, ..Source::default() });
    stream.items.iter().for_each(|item| reporter.push(item));
    let report = reporter.finish();
    let (text, json, html) = (report.text(), report.json(), report.html());
    for output in [&text, &html] {
        let escape = output.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(escape, None, "in {output}");
        assert!(!output.contains('\u{202e}'));
    }
    assert!(!json.chars().any(char::is_control));
    assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("<b>\\"));
    assert!(html.contains("&lt;script&gt;x (4000)") && html.contains("&lt;img src=x"));
    assert!(text.contains("\\x1b[2J&\"' (4001)") && text.contains("\\xff\\xfe"));
    assert_eq!(html.matches("<title>").count(), html.matches("</title>").count());
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    let html = report(&Stream::of_story("mixed", 2, 5_000).items).html();
    for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!html.contains(outside), "{outside}");
    }
    for element in ["svg", "table", "tr", "td", "th", "section", "div", "p", "g", "text"] {
        let (begun, ended) = (format!("<{element}"), format!("</{element}>"));
        let begun = html
            .match_indices(&begun)
            .filter(|(at, begun)| html[at + begun.len()..].starts_with([' ', '>']));
        assert_eq!(begun.count(), html.matches(&ended).count(), "{element}");
    }
}

#[test]
fn pids_of_two_boots_are_two_processes_and_of_one_boot_one() {
    let mut one = Stream::new();
    one.line(0, 5, b"c 10 first");
    let mut two = Stream::new();
    two.line(0, 7, b"d 10 first");
    let told = |boots: [Option<&str>; 2]| {
        let mut reporter = Reporter::new(Options::default());
        for (boot, stream) in boots.iter().zip([&one, &two]) {
            let boot_id = boot.map(str::to_owned);
            reporter.begin(Source { name: "x".into(), boot_id, ..Source::default() });
            stream.items.iter().for_each(|item| reporter.push(item));
        }
        reporter.finish()
    };
    assert_eq!(told([Some("a"), Some("b")]).processes.entries.len(), 2);
    assert_eq!(told([None, None]).processes.entries.len(), 2);
    let same = told([Some("a"), Some("a")]);
    assert_eq!(same.processes.entries.len(), 1);
    // Nobody watched in between: whether the end is that of the beginning, nobody knows.
    assert_eq!(same.processes.entries[0].lived_ns, None);
}

#[test]
fn time_is_what_was_watched_and_asked_for() {
    let mut stream = Stream::new();
    stream.line(0, 20_000_000_000, b"2 1000000000:1");
    let (from, to) = (Stream::unix_ns(0), Stream::unix_ns(120_000_000_000));
    let told = |options: Options| {
        let mut reporter = Reporter::new(options);
        let (from, to) = (Some(from), Some(to));
        reporter.begin(Source { from_unix_ns: from, to_unix_ns: to, ..Source::default() });
        stream.items.iter().for_each(|item| reporter.push(item));
        reporter.finish()
    };
    let all = told(Options::default());
    assert_eq!(all.observed_ns, 120_000_000_000);
    assert_eq!(all.gpus[0].throttled_ns, 60_000_000_000);
    assert_eq!(all.events_per_minute(), Some(0.5));
    let mut options = Options::default();
    options.from_unix_ns = from + 10_000_000_000;
    options.to_unix_ns = from + 50_000_000_000;
    let part = told(options);
    assert_eq!((part.observed_ns, part.gpus[0].throttled_ns), (40_000_000_000, 30_000_000_000));
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut stream = Stream::new();
    for number in 0..40_000 {
        let line = format!("7 {number} -{number} @{:x}(1) W", number * 512);
        stream.line(number % 3000, number as u64 * 1_000_000_000, line.as_bytes());
    }
    let report = report(&stream.items);
    assert_eq!(report.types.of(Some(EventType::PageFaultStart)), 40_000);
    assert_eq!(report.gpus.iter().map(|gpu| gpu.types.total()).sum::<u64>(), 40_000);
    assert!(report.gpus.len() <= 1024 && report.timeline.len() <= 240);
    assert_eq!((report.processes.entries.len(), report.fault_hot_spots.entries.len()), (10, 10));
    assert!(report.processes.missing_at_most > 0);
    assert!(report.text().contains("There were too many processes"));
    assert_eq!(report.gpus[0].gpu.bdf, gpu(0).bdf);
}

#[test]
fn a_range_thrashes_when_it_comes_back_to_where_it_was() {
    let mut stream = Stream::new();
    let mut at = 0;
    let mut migrate = |address: u64, pages: u64, from: u32, to: u32, trigger: i32, error: i32| {
        let tail = format!("-77 @{address:x}({pages:x}) {from:x}->{to:x}");
        stream.line(0, at, format!("5 {at} {tail} 0:0 {trigger}").as_bytes());
        stream.line(0, at + 10, format!("6 {} {tail} {trigger} {error}", at + 10).as_bytes());
        at += 1_000_000;
    };
    // 8 MiB to the GPU in one go, and back in pieces of 2 MiB, three times.
    for _ in 0..3 {
        migrate(0x1000, 0x800, 0, 1, 1, 0);
        for part in 0..4 {
            migrate(0x1000 + part * 0x200, 0x200, 1, 0, 2, 0);
        }
    }
    // What fails moves nothing; what only goes to the GPU again and again does not thrash.
    migrate(0x9000, 0x200, 0, 1, 1, 0);
    migrate(0x9000, 0x200, 1, 0, 2, -12);
    migrate(0x9000, 0x200, 0, 1, 1, 0);
    let report = report(&stream.items);
    let [range] = &report.thrashing.entries[..] else { panic!("{:?}", report.thrashing) };
    assert_eq!((range.address, range.size), (0x100_0000, 8 << 20));
    assert_eq!((range.bounces, range.moves, range.bytes), (5, 6, 6 * (8 << 20)));
    assert_eq!(range.triggers, [(Some("pagefault_gpu"), 3), (Some("pagefault_cpu"), 3)]);
    let failed: u64 = report.migrations.iter().map(|one| one.failed).sum();
    assert_eq!(failed, 1);
}
