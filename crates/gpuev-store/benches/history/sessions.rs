//! What many sessions cost beside as many events in one: a recorder that wraps every job begins thousands a year.

use std::path::Path;
use std::time::Instant;

use gpuev::time::Anchor;
use gpuev_store::export::{ExportFormat, Exporter};
use gpuev_store::report::Options;
use gpuev_store::{Histories, Query, Session, Writer};

use crate::figure;
use crate::stream::{self, Stream};

/// What the design speaks of.
const REPORTED: u64 = 10_000;
const EXPORTED: u64 = 1_000;
/// Events of each.
const EVENTS: usize = 200;

pub(crate) fn measure(folder: &Path) {
    let path = |name: &str| folder.join(name);
    write(&path("report.db"), REPORTED, EVENTS);
    write(&path("report-one.db"), 1, EVENTS * usize::try_from(REPORTED).expect("it fits"));
    let (many, one) = (report(&path("report.db")), report(&path("report-one.db")));
    figure("report of 10,000 sessions", "report", many, "s");
    figure("the same beside as many events in one session", "report", many / one, "times");
    write(&path("export.db"), EXPORTED, EVENTS);
    write(&path("export-one.db"), 1, EVENTS * usize::try_from(EXPORTED).expect("it fits"));
    let (many, one) = (export(&path("export.db")), export(&path("export-one.db")));
    figure("export of 1,000 sessions of 8 GPUs", "export", many, "s");
    figure("the same beside as many events in one session", "export", many / one, "times");
}

/// So many sessions, one after the other, of so many events.
fn write(path: &Path, sessions: u64, events: usize) {
    let session = |number: u64| {
        let boot_ns = 1_810_000_000_000 + number * 3_600_000_000_000;
        let unix_ns = stream::BOOTED.unix_ns_of(boot_ns);
        let mut session = Session::unknown(Anchor { boot_ns, unix_ns });
        session.boot_id = Some("one".to_owned());
        session.gpus = (0..8).map(|gpu| (stream::gpu(gpu * 8), None)).collect();
        session
    };
    let mut writer = Writer::import(path, &session(0)).expect("it should open");
    let mut made = Stream::default();
    for number in 0..sessions {
        if number > 0 {
            writer.next_session(&session(number)).expect("a session should begin");
        }
        for item in made.by_ref().take(events) {
            writer.append(&item).expect("an event should be written");
        }
    }
    writer.close_import().expect("the history should close");
}

/// Seconds, the best of three.
fn best(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64()
    };
    (0..3).map(once).fold(f64::INFINITY, f64::min)
}

fn report(path: &Path) -> f64 {
    best(|| {
        let history = Histories::open_file(path).expect("the history should open");
        let report = history.report(&Query::new(), Options::default());
        assert!(report.expect("the history should be readable").events > 0);
    })
}

fn export(path: &Path) -> f64 {
    best(|| {
        let history = Histories::open_file(path).expect("the history should open");
        let mut exporter =
            Exporter::new(ExportFormat::Ndjson, std::io::sink()).expect("it should begin");
        let mut entries = history.entries(&Query::new());
        while let Some(entry) = entries.next_entry().expect("the history should be readable") {
            exporter.entry(&entry).expect("a sink takes all");
        }
        exporter.finish().expect("a sink takes all");
    })
}
