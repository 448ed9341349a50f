//! What reading events costs, on the simulated machine: this program is its driver, the readers are programs of
//! their own that it puts on it, one after the other, several times.
//!
//! `cargo xtask bench` builds the readers in C, runs this and prints the table. What a figure is, is said by the
//! section that takes it.

#![forbid(unsafe_code)]

mod figure;
mod load;
mod reader;
mod sections;
mod subject;
mod yielding;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    let done = match words.as_slice() {
        ["reader", how, rest @ ..] => reader::run(how, rest),
        ["on-machine", programs, sections @ ..] => {
            sections::run(&PathBuf::from(programs), sections)
        }
        _ => {
            eprintln!("run by `cargo xtask bench`");
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
