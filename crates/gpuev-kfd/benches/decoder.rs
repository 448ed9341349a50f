//! What a line costs, on the captures: `decode` alone, or `read` from an event file, split and decoded.
//!
//! `cargo bench -p gpuev-kfd` prints the figures. With a path's name and a number of rounds it does only
//! that work and prints how many lines it were: `cargo xtask instructions` runs it so under valgrind.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gpuev_kfd::framing::line;
use gpuev_kfd::{EventFile, decode};

/// As much as the FIFO of a driver holds, and not more than a pipe does.
const FIFO: usize = 8192;
const ROUNDS: u32 = 10;
const RUNS: u32 = 200;

fn main() {
    let stream = captures();
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.as_slice() {
        [path, rounds] => {
            let rounds = rounds.parse().expect("the rounds should be a number");
            println!("{}", work(path, &stream, rounds));
        }
        _ => ["decode", "read"].iter().for_each(|path| measure(path, &stream)),
    }
}

/// The best of many short runs: what else the machine does makes a run slower, never faster.
fn measure(path: &str, stream: &[u8]) {
    let nanoseconds = (0..RUNS).map(|_| {
        let start = Instant::now();
        let lines = work(path, stream, ROUNDS);
        start.elapsed().as_secs_f64() * 1e9 / f64::from(lines)
    });
    let best = nanoseconds.fold(f64::INFINITY, f64::min);
    let what = if path == "decode" { "decode one line" } else { "read, split and decode one line" };
    println!("figure\t{what}\tgpuev-kfd\t{best:.1}\tns");
    println!("figure\tlines a second: {path}\tgpuev-kfd\t{:.0}\t/s", 1e9 / best);
}

fn work(path: &str, stream: &[u8], rounds: u32) -> u32 {
    match path {
        "decode" => decode_lines(stream, rounds),
        "read" => read_lines(stream, rounds),
        other => panic!("`{other}` is neither `decode` nor `read`"),
    }
}

fn decode_lines(stream: &[u8], rounds: u32) -> u32 {
    let lines: Vec<&[u8]> = stream.split_inclusive(|&byte| byte == b'\n').map(line).collect();
    for _ in 0..rounds {
        for line in &lines {
            black_box(decode(black_box(line)));
        }
    }
    rounds * u32::try_from(lines.len()).expect("the captures should be small")
}

fn read_lines(stream: &[u8], rounds: u32) -> u32 {
    let (mut file, mut driver) = event_file();
    let mut lines = 0;
    for _ in 0..rounds {
        for held in stream.chunks(FIFO) {
            driver.write_all(held).expect("a pipe should hold what a FIFO does");
            file.read().expect("a pipe should be readable");
            while let Some(message) = file.next_message() {
                black_box(decode(line(message)));
                lines += 1;
            }
        }
    }
    lines
}

fn event_file() -> (EventFile, File) {
    let (reader, writer) = std::io::pipe().expect("a pipe should open");
    let file = EventFile::new(OwnedFd::from(reader)).expect("a pipe can be closed on exec");
    (file, File::from(OwnedFd::from(writer)))
}

/// All captures, one after the other, in the order of their names.
fn captures() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../captures");
    let mut kernels = entries(&folder);
    kernels.retain(|path| path.is_dir());
    let files = kernels.iter().flat_map(|kernel| entries(kernel));
    files.flat_map(|file| fs::read(file).expect("a capture should be readable")).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the captures should be in their folder");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}
