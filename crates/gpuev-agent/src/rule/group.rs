//! What signals of a rule are told apart by: labels that a signal has by itself.

use std::fmt::{self, Write};

use gpuev::Life;
use gpuev::message::Printable;
use gpuev::process::Process;
use gpuev::span::{Span, SpanData};

use crate::signal::{Signal, Victim, What};

/// One of the labels that group a rule's signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grouping {
    Gpu,
    Pid,
    Process,
    User,
    Job,
    Unit,
    Block,
    Kind,
    Cause,
    Reset,
}

impl Grouping {
    pub(super) const ALL: [Self; 10] = [
        Self::Gpu,
        Self::Pid,
        Self::Process,
        Self::User,
        Self::Job,
        Self::Unit,
        Self::Block,
        Self::Kind,
        Self::Cause,
        Self::Reset,
    ];

    /// The label's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Pid => "pid",
            Self::Process => "process",
            Self::User => "user",
            Self::Job => "job",
            Self::Unit => "unit",
            Self::Block => "block",
            Self::Kind => "kind",
            Self::Cause => "cause",
            Self::Reset => "reset",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grouping| grouping.name() == name)
    }

    /// Writes the label's value; nothing where the signal has none.
    pub(super) fn write(self, signal: &Signal, out: &mut impl Write) -> fmt::Result {
        match self {
            Self::Gpu => write!(out, "{}", signal.gpu.bdf),
            Self::Pid => owner(signal).map_or(Ok(()), |number| write_pid(number, signal.life, out)),
            Self::Process => write_process(signal, out),
            Self::User => out.write_str(
                signal.process.as_ref().and_then(|p| p.user.as_deref()).unwrap_or_default(),
            ),
            Self::Job => write_job(signal, out),
            Self::Unit => {
                let belongs = signal.process.as_ref().map(|process| &process.attribution);
                let unit = belongs.and_then(|it| it.unit.as_deref().or(it.user_unit.as_deref()));
                out.write_str(unit.unwrap_or_default())
            }
            Self::Block => match &signal.what {
                What::RasErrors(ras) => out.write_str(&ras.block),
                _ => Ok(()),
            },
            Self::Kind => match &signal.what {
                What::RasErrors(ras) => out.write_str(ras.kind.name()),
                _ => Ok(()),
            },
            Self::Cause => match &signal.what {
                What::Gap(gap) => out.write_str(gap.cause.name()),
                _ => Ok(()),
            },
            Self::Reset => match &signal.what {
                What::Span(Span { data: SpanData::Reset { sequence, .. }, .. }) => {
                    write!(out, "{sequence}")
                }
                _ => Ok(()),
            },
        }
    }

    /// The label's value.
    pub(super) fn value(self, signal: &Signal) -> String {
        let mut value = String::new();
        let _infallible = self.write(signal, &mut value);
        value
    }
}

/// The process, or the thread of one that is not known: its number is no other process's.
fn owner(signal: &Signal) -> Option<u32> {
    match &signal.what {
        What::Event(event) => event.pid().or_else(|| event.tid()),
        What::Aggregate(aggregate) => aggregate.pid.or(aggregate.tid),
        What::Span(span) => span.pid.or(span.tid),
        _ => None,
    }
}

/// A pid that comes again is another process: `7`, then `7 life 2`. Of two at once nobody knows which is which.
fn write_pid(pid: u32, life: Life, out: &mut impl Write) -> fmt::Result {
    match (life.is_shared, life.number) {
        (true, _) => write!(out, "{pid} one of several"),
        (false, 0) => write!(out, "{pid}"),
        (false, number) => write!(out, "{pid} life {}", u64::from(number) + 1),
    }
}

fn write_process(signal: &Signal, out: &mut impl Write) -> fmt::Result {
    let known = signal.process.as_ref().and_then(|process| process.name.bytes());
    let name = match &signal.what {
        What::Event(event) => event.process().or(known).or_else(|| event.thread()),
        What::Span(span) => span.process.bytes().or(known),
        What::Aggregate(_) => known,
        _ => None,
    };
    name.map_or(Ok(()), |name| write!(out, "{}", Printable(name)))
}

/// The narrowest thing that somebody submitted: batch job, pod, container, unit.
fn write_job(signal: &Signal, out: &mut impl Write) -> fmt::Result {
    signal.process.as_ref().map_or(Ok(()), |process| write_job_of(process, out))
}

/// A process that was hit, for people.
pub(super) fn victim(victim: &Victim) -> String {
    let Some(process) = &victim.process else { return format!("pid {}", victim.pid) };
    let mut text = String::new();
    if let Some(name) = process.name.bytes() {
        let _infallible = write!(text, "{} ", Printable(name));
    }
    let _infallible = write!(text, "(pid {}", process.pid);
    let mut job = String::new();
    let _infallible = write_job_of(process, &mut job);
    let parts = [process.user.as_deref().unwrap_or_default(), &job];
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let _infallible = write!(text, ", {part}");
    }
    text.push(')');
    text
}

fn write_job_of(process: &Process, out: &mut impl Write) -> fmt::Result {
    let belongs = &process.attribution;
    if let Some(task) = &belongs.slurm {
        write!(out, "slurm:{}", task.job)
    } else if let Some(pod) = &belongs.kubernetes {
        write!(out, "pod:{}", pod.uid)
    } else if let Some(container) = &belongs.container {
        write!(out, "container:{}", container.id)
    } else if let Some(unit) = belongs.unit.as_ref().or(belongs.user_unit.as_ref()) {
        write!(out, "unit:{unit}")
    } else {
        Ok(())
    }
}

/// FNV-1a over a rule's name and the values of its labels: the same on every machine and in every version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// That of a rule without labels.
    pub(super) fn of_rule(name: &str) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.bytes(name.as_bytes());
        hash
    }

    /// Adds what the signal's labels say. `None` where it has not all of them.
    pub(super) fn of_signal(mut self, by: &[Grouping], signal: &Signal) -> (u64, bool) {
        let mut complete = true;
        for grouping in by {
            self.bytes(&[0]);
            let before = self.0;
            let _infallible = grouping.write(signal, &mut self);
            complete &= self.0 != before;
        }
        (self.0, complete)
    }

    /// Adds the values of labels.
    pub(super) fn of_values(mut self, values: &[String]) -> u64 {
        for value in values {
            self.bytes(&[0]);
            self.bytes(value.as_bytes());
        }
        self.0
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Write for Fingerprint {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
