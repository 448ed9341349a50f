//! What a report looks like: files beside this one. `GPUEV_BLESS=1` writes them anew.

use std::path::Path;

use gpuev::GapCause;
use gpuev_store::report::{Options, Report, Reporter, Source};

use super::stream::Stream;

/// Some of everything on two GPUs, and gaps.
fn example() -> Report {
    let mut stream = Stream::of_story("mixed", 2, 4_000);
    stream.line(1, 61_000_000_000, b"f1 of a later kernel");
    stream.gap(0, GapCause::DriverFifoFull, None, 61_000_000_000, 61_040_000_000);
    stream.gap(1, GapCause::SubscriberSlow, Some(120), 61_000_000_000, 61_500_000_000);
    let mut reporter = Reporter::new(Options::default());
    reporter.begin(Source {
        name: "run.db".into(),
        host: Some("node7".into()),
        kernel: Some("6.16.3".into()),
        boot_id: Some("0d61dd7c-8a3f-4f2e-9d2b-6f0f5f1f7a10".into()),
        scope: Some("all processes: root".into()),
        from_unix_ns: Some(Stream::unix_ns(0)),
        to_unix_ns: Some(Stream::unix_ns(90_000_000_000)),
        ..Source::default()
    });
    stream.items.iter().for_each(|item| reporter.push(item));
    reporter.finish()
}

fn check(name: &str, told: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/report").join(name);
    if std::env::var_os("GPUEV_BLESS").is_some() {
        std::fs::write(&path, told).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let differs = golden.lines().zip(told.lines()).position(|(golden, told)| golden != told);
    let line = differs.map(|line| (line + 1, told.lines().nth(line)));
    assert!(
        golden == told,
        "{} differs first in {line:?}; GPUEV_BLESS=1 accepts it",
        path.display()
    );
}

#[test]
fn for_a_terminal() {
    check("report.txt", &example().text());
}

#[test]
fn for_programs() {
    check("report.json", &(example().json() + "\n"));
}

#[test]
fn for_a_browser() {
    check("report.html", &example().html());
}
