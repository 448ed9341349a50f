//! `gpuev doctor`: what works here, what does not, and how to mend it.

use std::io::{self, Write};

use clap::Args;
use gpuev::{EventMask, EventReader, KfdVersion, Machine};

use crate::args::SourceArgs;
use crate::exit::{Exit, Outcome};
use crate::source::Source;

/// Tell what works here, what does not, and how to mend it
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {}

pub(crate) fn run(_args: &DoctorArgs, source: &SourceArgs) -> Outcome {
    let source = Source::open(source)?;
    let findings = examine(&source.machine);
    let mut out = io::stdout().lock();
    for finding in &findings.list {
        writeln!(out, "{:5} {:12} {}", finding.state.name(), finding.what, finding.text)?;
    }
    Ok(findings.exit)
}

/// What was found, and how the program ends on it.
struct Findings {
    list: Vec<Finding>,
    exit: Exit,
}

struct Finding {
    state: State,
    what: &'static str,
    text: String,
}

#[derive(Clone, Copy)]
enum State {
    Good,
    Note,
    Bad,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "FAIL",
        }
    }
}

impl Findings {
    fn add(&mut self, state: State, what: &'static str, text: impl Into<String>) {
        self.list.push(Finding { state, what, text: text.into() });
    }

    fn fail(&mut self, what: &'static str, text: impl Into<String>, exit: Exit) {
        self.add(State::Bad, what, text);
        if self.exit == Exit::Success {
            self.exit = exit;
        }
    }
}

fn examine(machine: &Machine) -> Findings {
    let mut findings = Findings { list: Vec::new(), exit: Exit::Success };
    let kernel = machine.kernel_release().unwrap_or_else(|| "unknown".to_owned());
    findings.add(State::Good, "kernel", format!("Linux {kernel}"));
    examine_gpus(machine, &mut findings);
    examine_driver(machine, &mut findings);
    findings
}

fn examine_gpus(machine: &Machine, findings: &mut Findings) {
    match machine.inventory() {
        Err(error) => findings.fail("GPUs", error.to_string(), Exit::NoGpu),
        Ok(inventory) if inventory.gpus.is_empty() => {
            findings.fail("GPUs", "none that may be used", Exit::NoGpu);
        }
        Ok(inventory) => {
            for gpu in &inventory.gpus {
                let text = format!("{} {} {}", gpu.id.index, gpu.id.bdf, gpu.name);
                findings.add(State::Good, "GPU", text);
            }
        }
    }
}

fn examine_driver(machine: &Machine, findings: &mut Findings) {
    let source = machine.event_source();
    let version = match source.version() {
        Ok(version) => version,
        Err(error) => return findings.fail("driver", error.to_string(), Exit::Failure),
    };
    findings.add(State::Good, "driver", format!("KFD interface {version}"));
    if version < KfdVersion::FIRST_WITH_SVM_EVENTS {
        let text = "page fault, migration and queue events need KFD 1.10, i.e. Linux 6.0";
        findings.add(State::Note, "events", text);
    }
    let scope = source.scope();
    let state = if scope.all_processes { State::Good } else { State::Note };
    findings.add(state, "scope", scope.reason);
    for gpu in machine.gpus().unwrap_or_default() {
        match EventReader::open(machine, &gpu, EventMask::NONE) {
            Ok(reader) => {
                let size = reader.fifo_capacity().unwrap_or_default();
                findings.add(
                    State::Good,
                    "event file",
                    format!("GPU {}: FIFO of {size} bytes", gpu.id.bdf),
                );
            }
            Err(error) => findings.fail("event file", error.to_string(), Exit::Failure),
        }
    }
}
