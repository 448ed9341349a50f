//! The figures, section by section. Readers take turns within a round, so that what else the machine does
//! strikes all of them alike; a figure is the median over the rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use gpuev_sim::run::{Run, Running};
use gpuev_sim::{DriverEvent, EventFileStats, SimMachine, SimProcess, throttler};

use crate::figure::{self, percentile};
use crate::load::raise;
use crate::subject::{Cost, GPUEV, Subject, VENDOR, peak_kib};

type Failure = Box<dyn std::error::Error>;
type Section = fn(&Bench) -> Result<(), Failure>;

/// To add figures, add a section.
const SECTIONS: [(&str, Section); 7] = [
    ("cpu", cpu),
    ("latency", latency),
    ("loss", loss),
    ("most", most_without_loss),
    ("idle", idle),
    ("start", start_up),
    ("yield", |_| crate::yielding::measure()),
];
const ROUNDS: usize = 5;
const EACH: Duration = Duration::from_secs(1);
/// At few events a second, what a reader does once a second would count for too little or too much in one.
const EACH_OF_FEW: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_millis(300);
const LATENCIES: u32 = 2000;
const STARTS: u32 = 20;
/// How long a reader may take to subscribe, or to take events for some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench<'a> {
    programs: &'a Path,
}

/// Runs the sections that are named, or all.
pub(crate) fn run(programs: &Path, names: &[&str]) -> Result<(), Failure> {
    let bench = Bench { programs };
    for (name, section) in SECTIONS {
        if names.is_empty() || names.contains(&name) {
            eprintln!("{name} …");
            section(&bench)?;
        }
    }
    Ok(())
}

/// Processor time of the reader by event that it was given, and how often it slept for one: that does not depend on how
/// fast the machine is.
fn cpu(bench: &Bench) -> Result<(), Failure> {
    for (rate, during) in [(1_000, EACH_OF_FEW), (10_000, EACH), (50_000, EACH)] {
        let mut measured = Figures::default();
        let mut wake_ups = Figures::default();
        let mut memory = Figures::default();
        bench.turns(|subject| {
            let on = OnMachine::start(subject.command())?;
            let (before, given) = (on.cost()?, on.file().accepted_lines);
            raise(&on.machine, subject.events, rate, during);
            let (cost, given) = (on.cost()?.since(before), on.file().accepted_lines - given);
            measured.add(subject.name, cost.cpu_ns as f64 / given as f64 / 1e3);
            wake_ups.add(subject.name, cost.wake_ups as f64 / given as f64);
            memory.add(subject.name, peak_kib(on.pid())? as f64 / 1024.0);
            Ok(())
        })?;
        measured.print(&format!("CPU per event at {rate}/s"), "µs");
        wake_ups.print(&format!("wake-ups per event at {rate}/s"), "");
        if rate == 50_000 {
            memory.print("peak memory at 50000/s", "MB");
        }
    }
    Ok(())
}

/// From the driver's timestamp to the caller having the event.
fn latency(bench: &Bench) -> Result<(), Failure> {
    const RATE: u32 = 1_000;
    let mut p50 = Figures::default();
    let mut p99 = Figures::default();
    bench.turns(|subject| {
        if !subject.tells_latency {
            return Ok(());
        }
        let mut command = subject.command();
        command.args(["latency", &LATENCIES.to_string()]).stdout(Stdio::piped());
        let on = OnMachine::start(command)?;
        // Until it has had enough: a tick that is skipped is an event less.
        let start = Instant::now();
        while !on.file().closed {
            if start.elapsed() > PATIENCE {
                return Err("it does not take events".into());
            }
            raise(&on.machine, subject.events, RATE, STEP);
        }
        let said = on.end()?;
        let ages: Vec<f64> = said.lines().filter_map(|ns| ns.parse().ok()).collect();
        p50.add(subject.name, percentile(&ages, 50).unwrap_or(f64::NAN) / 1e3);
        p99.add(subject.name, percentile(&ages, 99).unwrap_or(f64::NAN) / 1e3);
        Ok(())
    })?;
    p50.print("latency at 1000/s, p50", "µs");
    p99.print("latency at 1000/s, p99", "µs");
    Ok(())
}

/// What an 8 KiB FIFO has no room for, and whether the reader said so.
fn loss(bench: &Bench) -> Result<(), Failure> {
    for rate in [100_000, 200_000] {
        let mut lost = Figures::default();
        let mut silent = Figures::default();
        bench.turns(|subject| {
            let mut command = subject.command();
            if subject.tells_counts {
                command.stdout(Stdio::piped());
            }
            let on = OnMachine::start(command)?;
            raise(&on.machine, subject.events, rate, EACH);
            let file = on.file();
            let all = file.accepted_lines + file.dropped_lines;
            lost.add(subject.name, 100.0 * file.dropped_lines as f64 / all as f64);
            if subject.tells_counts {
                silent.add(subject.name, on.silently_lost()?);
            }
            Ok(())
        })?;
        lost.print(&format!("lost at {rate}/s"), "%");
        silent.print_most(&format!("unreported at {rate}/s"), "events");
    }
    Ok(())
}

/// The highest rate that came through the FIFO whole, in any round: what else the machine does can only lower it.
fn most_without_loss(bench: &Bench) -> Result<(), Failure> {
    let mut measured = Figures::default();
    bench.turns(|subject| {
        let on = OnMachine::start(subject.command())?;
        let mut most = 0.0;
        for rate in [10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 400_000] {
            let before = on.file();
            let start = Instant::now();
            raise(&on.machine, subject.events, rate, STEP);
            let (after, took) = (on.file(), start.elapsed().as_secs_f64());
            if after.dropped_lines == before.dropped_lines {
                let given = (after.accepted_lines - before.accepted_lines) as f64 / took;
                most = f64::max(most, given);
            }
        }
        measured.add(subject.name, most);
        Ok(())
    })?;
    measured.print_most("most events without loss, 8 KiB", "/s");
    Ok(())
}

/// How often a reader wakes up while nothing happens.
fn idle(bench: &Bench) -> Result<(), Failure> {
    let mut measured = Figures::default();
    bench.turns(|subject| {
        let on = OnMachine::start(subject.command())?;
        // What it does after subscribing is part of its start.
        thread::sleep(Duration::from_millis(500));
        let before = on.cost()?;
        thread::sleep(EACH);
        let woken = on.cost()?.since(before).wake_ups;
        measured.add(subject.name, woken as f64 / EACH.as_secs_f64());
        Ok(())
    })?;
    measured.print("idle wake-ups", "/s");
    Ok(())
}

/// Time and memory of programs that end at once, with eight GPUs.
fn start_up(bench: &Bench) -> Result<(), Failure> {
    let machine = SimMachine::builder().gpus(8).build()?;
    let rocm_smi = bench.programs.join("rocm_smi").display().to_string();
    let programs: [(&str, &str, &[&str]); 3] = [
        ("start of list, 8 GPUs", "gpuev", &[GPUEV, "list"]),
        ("start of list, 8 GPUs", VENDOR, &[&rocm_smi, "list"]),
        ("start of watch, 8 GPUs", "gpuev", &[GPUEV, "watch", "--for", "0s"]),
    ];
    for (what, who, program) in programs {
        let mut command = Command::new(bench.programs.join("start_up"));
        command.arg(STARTS.to_string()).args(program);
        let output = Run::new(&machine).output(command)?;
        let said = String::from_utf8(output.stdout)?;
        let runs: Vec<(f64, f64)> = said
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(ms, kib)| Some((ms.parse().ok()?, kib.parse::<f64>().ok()? / 1024.0)))
            .collect();
        let (times, memory): (Vec<f64>, Vec<f64>) = runs.into_iter().unzip();
        figure::print(what, who, &times, "ms");
        figure::print(&what.replace("start", "peak memory"), who, &memory, "MB");
    }
    Ok(())
}

impl Bench<'_> {
    /// Lets every reader have its turn, in every round.
    fn turns(&self, mut turn: impl FnMut(&Subject) -> Result<(), Failure>) -> Result<(), Failure> {
        let gpu_id = SimMachine::new()?.kfd_gpu_id(0)?;
        let subjects = Subject::all(self.programs, gpu_id)?;
        for _ in 0..ROUNDS {
            for subject in &subjects {
                turn(subject).map_err(|error| format!("{}: {error}", subject.name))?;
            }
        }
        Ok(())
    }
}

/// A reader that has subscribed, on a machine of its own.
struct OnMachine {
    machine: SimMachine,
    running: Running,
}

impl OnMachine {
    fn start(command: Command) -> Result<Self, Failure> {
        let machine = SimMachine::new()?;
        machine.add_process(&SimProcess::new(std::process::id(), "python3"))?;
        let running = Run::new(&machine).spawn(command)?;
        let on = Self { machine, running };
        let start = Instant::now();
        while !on.machine.event_files().iter().any(|file| file.mask != 0) {
            if start.elapsed() > PATIENCE {
                return Err("it does not subscribe".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(on)
    }

    fn pid(&self) -> u32 {
        self.running.id()
    }

    fn cost(&self) -> Result<Cost, Failure> {
        Ok(Cost::of(self.pid())?)
    }

    fn file(&self) -> EventFileStats {
        *self.machine.event_files().last().expect("a reader that subscribed should have a file")
    }

    fn end(self) -> Result<String, Failure> {
        Ok(String::from_utf8(self.running.output()?.stdout)?)
    }

    /// Events that were neither delivered nor covered by a gap.
    fn silently_lost(self) -> Result<f64, Failure> {
        while self.machine.held_bytes(0) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        self.machine.emit(0, &DriverEvent::Thermal { throttlers: throttler::PPT0, count: 1 });
        let file = self.file();
        let said = self.end()?;
        let mut counts = said.split_whitespace().filter_map(|count| count.parse::<u64>().ok());
        let (Some(events), Some(gaps)) = (counts.next(), counts.next()) else {
            return Err(format!("it says {said:?}").into());
        };
        let undelivered = file.accepted_lines.abs_diff(events);
        let unreported = if gaps == 0 { file.dropped_lines } else { 0 };
        Ok((undelivered + unreported) as f64)
    }
}

/// What was measured, by reader.
#[derive(Default)]
struct Figures(BTreeMap<&'static str, Vec<f64>>);

impl Figures {
    fn add(&mut self, who: &'static str, value: f64) {
        self.0.entry(who).or_default().push(value);
    }

    fn print(&self, what: &str, unit: &str) {
        self.0.iter().for_each(|(who, measured)| figure::print(what, who, measured, unit));
    }

    fn print_most(&self, what: &str, unit: &str) {
        for (who, measured) in &self.0 {
            let most = measured.iter().copied().fold(0.0, f64::max);
            figure::print(what, who, &[most], unit);
        }
    }
}
