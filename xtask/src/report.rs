//! Collects how the steps of a task ended, so that all failures are told together at the end.

use std::time::{Duration, Instant};

use crate::Result;
use crate::process::{Counts, Ran};

/// How a step ended, where it did not fail to start.
pub(crate) enum Outcome {
    /// It ran to its end.
    Ran(Ran),
    /// It found nothing to complain about.
    Passed,
    /// It could not be run here, and why.
    LeftOut(String),
}

/// The steps that have ended.
#[derive(Default)]
pub(crate) struct Report {
    steps: Vec<Step>,
    counts: Counts,
    closing: Vec<String>,
    failures: Vec<String>,
}

struct Step {
    name: &'static str,
    took: Duration,
    end: End,
}

enum End {
    Passed,
    Failed(String),
    LeftOut(String),
}

impl Report {
    /// Runs a step and keeps how it ended.
    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<Outcome>) {
        println!("\n── {name} ──");
        let start = Instant::now();
        let end = match run() {
            Ok(Outcome::Passed) => End::Passed,
            Ok(Outcome::LeftOut(why)) => End::LeftOut(why),
            Ok(Outcome::Ran(ran)) => self.keep(ran),
            Err(error) => End::Failed(error),
        };
        let took = start.elapsed();
        match &end {
            End::Passed => println!("{name}: passed in {:.1} s", took.as_secs_f64()),
            End::Failed(why) => println!("{name}: FAILED: {why}"),
            End::LeftOut(why) => println!("{name}: left out: {why}"),
        }
        self.steps.push(Step { name, took, end });
    }

    fn keep(&mut self, ran: Ran) -> End {
        self.counts += ran.counts;
        self.closing.extend(ran.closing);
        if ran.ok {
            return End::Passed;
        }
        self.failures.extend(ran.failures);
        End::Failed("see above".to_owned())
    }

    /// Prints every step's end and time, what failed, and as the last lines what the test runners closed with.
    ///
    /// # Errors
    /// Where a step failed, or nothing was run.
    pub(crate) fn close(self) -> Result {
        println!("\n── summary ──");
        for step in &self.steps {
            let (end, why) = match &step.end {
                End::Passed => ("passed", ""),
                End::Failed(why) => ("FAILED", why.as_str()),
                End::LeftOut(why) => ("left out", why.as_str()),
            };
            let why = why.lines().next().unwrap_or_default();
            println!("{:<14} {:>7.1} s  {end:<8}  {why}", step.name, step.took.as_secs_f64());
        }
        for line in self.failures.iter().chain(&self.closing) {
            println!("{line}");
        }
        let Counts { passed, failed, skipped } = self.counts;
        println!("tests: {passed} passed, {failed} failed, {skipped} skipped");
        self.verdict()
    }

    fn verdict(&self) -> Result {
        let failed: Vec<&str> = self
            .steps
            .iter()
            .filter(|step| matches!(step.end, End::Failed(_)))
            .map(|step| step.name)
            .collect();
        match failed.as_slice() {
            [] if self.steps.is_empty() => Err("no step was run".to_owned()),
            [] => Ok(()),
            failed => Err(format!("failed: {}", failed.join(", "))),
        }
    }
}
