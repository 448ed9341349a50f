//! What is to be said of a history: whether it is whole, and whether what it tells is.

use std::path::Path;

use gpuev::time::Rfc3339;
use gpuev_store::report::{Options, Report, Source};
use gpuev_store::{FileSystem, Histories, History, Query};

use super::Findings;
use crate::exit::{Exit, Failure};

pub(super) fn examine(path: &Path) -> Result<Findings, Failure> {
    let mut findings = Findings { list: Vec::new(), exit: Exit::Success };
    let histories = Histories::open(&[path])?;
    for history in histories.files() {
        examine_file(history, &mut findings)?;
    }
    for (_, error) in histories.unreadable() {
        findings.fail("file", error.to_string(), Exit::Failure);
    }
    for (number, source) in histories.sources()? {
        examine_session(number, &source, &mut findings);
    }
    examine_events(&histories.report(&Query::new(), Options::default())?, &mut findings);
    Ok(findings)
}

fn examine_file(history: &History, findings: &mut Findings) -> Result<(), Failure> {
    let path = history.path();
    examine_place(path, findings);
    let damage = history.check()?;
    if damage.is_empty() {
        findings.good("file", format!("{}: a history, and whole", path.display()));
    }
    for damage in damage {
        let path = path.display();
        let text =
            format!("{path}: {damage}; `sqlite3 FILE .recover | sqlite3 NEW` saves what is left");
        findings.fail("file", text, Exit::Failure);
    }
    Ok(())
}

/// Says where a history is that other machines see, too.
pub(super) fn examine_place(path: &Path, findings: &mut Findings) {
    if let FileSystem::Network(name) = FileSystem::of(path) {
        let text = format!(
            "{} is on a network file system ({name}): one recorder at a time, and it is read once that has ended",
            path.display()
        );
        findings.note("history", text);
    }
}

fn examine_session(number: i64, source: &Source, findings: &mut Findings) {
    let unknown = || "unknown".to_owned();
    let host = source.host.clone().unwrap_or_else(unknown);
    let kernel = source.kernel.clone().unwrap_or_else(unknown);
    let began = source.from_unix_ns.map_or_else(unknown, |at| Rfc3339(at).to_string());
    let text = format!("{number} on {host}, Linux {kernel}, from {began}");
    match source.to_unix_ns {
        Some(ended) => findings.good("session", format!("{text} to {}", Rfc3339(ended))),
        None => {
            findings.note("session", format!("{text}; it runs, was killed or is an import"));
        }
    }
    if let Some(scope) = source.scope.as_deref().filter(|scope| !scope.starts_with("all ")) {
        findings.note("scope", format!("session {number} saw {scope}"));
    }
}

fn examine_events(report: &Report, findings: &mut Findings) {
    let gpus = report.gpus.len();
    findings.good("events", format!("{} of {gpus} GPUs", report.events));
    if report.doubtful > 0 {
        findings.note("events", format!("{} may be forged by a task name", report.doubtful));
    }
    for gap in &report.gaps {
        let (cause, gaps) = (gap.cause.name(), gap.gaps);
        let text = format!(
            "{gaps} of {cause}: {} events lost, {} of unknown size",
            gap.lost, gap.of_unknown_size
        );
        findings.note("gaps", text);
    }
    if report.is_complete() {
        findings.good("gaps", "none: nothing is missing");
    }
}
