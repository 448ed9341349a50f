//! What `gpuev export` and `gpuev import` cost, as a user runs them: rate, CPU and memory. Lines of `figure`, what,
//! who, value, unit.
//!
//! `cargo bench -p gpuev-cli --bench exchange -- [EVENTS]`: so many events, a million by default.

#![allow(missing_docs)]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gpuev");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let events =
        arguments.first().map_or(1_000_000, |n| n.parse().expect("the events should be a number"));
    let folder = tempfile::tempdir().expect("a folder should be made");
    let folder = folder.path();
    write_lines(&folder.join("lines.txt"), events).expect("the lines should be written");
    let measure = |what: &str, who: &str, arguments: &[&str]| {
        print(what, who, events, &run(folder, arguments));
    };
    measure("import", "driver", &["import", "lines.txt", "-o", "run.db"]);
    for format in ["ndjson", "csv", "parquet", "trace"] {
        let output = format!("run.{format}");
        measure("export", format, &["export", "run.db", "--format", format, "-o", &output]);
        print_size(format, events, &folder.join(output));
    }
    measure("import", "ndjson", &["import", "run.ndjson", "-o", "copy.db"]);
}

/// Lines of a driver whose eight processes fault much, half of them with a migration; every start has its end.
fn write_lines(path: &Path, events: u64) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for number in 0..events {
        let (fault, step, ns) = (number / 4, number % 4, 1_810_035_809_094 + number * 3_000);
        let (pid, page) = (4242 + fault % 8, 0x7_f000_0000 + fault % 0x10_0000 * 0x200);
        match (step, fault % 2) {
            (0, _) => writeln!(out, "7 {ns} -{pid} @{page:x}(1b11) W"),
            (1, 0) => writeln!(out, "5 {ns} -{pid} @{page:x}(200) 0->1b11 ffffffff:ffffffff 1"),
            (2, 0) => writeln!(out, "6 {ns} -{pid} @{page:x}(200) 0->1b11 1 0"),
            (1, _) => writeln!(out, "9 {ns} -{pid} 1b11 1"),
            (2, _) => writeln!(out, "a {ns} -{pid} 1b11 0"),
            _ => writeln!(out, "8 {ns} -{pid} @{page:x}(1b11) M"),
        }?;
    }
    out.flush()
}

/// What a run took.
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    peak_bytes: f64,
}

fn run(folder: &Path, arguments: &[&str]) -> Cost {
    let (started, cpu) = (Instant::now(), childrens_cpu_seconds());
    let mut command = Command::new(PROGRAM);
    let command = command.args(arguments).current_dir(folder).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program should start");
    let mut peak_bytes = 0.0;
    while child.try_wait().expect("the program should be waited for").is_none() {
        peak_bytes = peak_memory(child.id()).unwrap_or(peak_bytes);
        thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().is_ok_and(|status| status.success()), "{arguments:?} failed");
    let seconds = started.elapsed().as_secs_f64();
    Cost { seconds, cpu_seconds: childrens_cpu_seconds() - cpu, peak_bytes }
}

#[allow(clippy::cast_precision_loss)] // shown with a few digits
fn print(what: &str, who: &str, events: u64, cost: &Cost) {
    let events = events as f64;
    let rate = events / cost.seconds;
    let cpu = cost.cpu_seconds * 1e6 / events;
    println!("figure\trate of {what}\t{who}\t{rate:.0}\tevents/s");
    println!("figure\tCPU of {what}, an event\t{who}\t{cpu:.2}\tµs");
    println!("figure\tpeak memory of {what}\t{who}\t{:.1}\tMB", cost.peak_bytes / 1e6);
}

#[allow(clippy::cast_precision_loss)] // likewise
fn print_size(format: &str, events: u64, path: &Path) {
    let bytes = fs::metadata(path).expect("the output should be there").len() as f64;
    println!("figure\tsize of an exported event\t{format}\t{:.1}\tbytes", bytes / events as f64);
}

/// Peak resident bytes of a process that runs.
fn peak_memory(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
}

/// CPU of all children that were waited for, in hundredths of a second (`proc_pid_stat(5)`, fields 16 and 17).
fn childrens_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("there should be a /proc");
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
