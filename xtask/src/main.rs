//! What developers and CI run: `cargo xtask test` passes all tests.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("test") => test(),
        _ => {
            eprintln!("usage: cargo xtask test");
            ExitCode::from(2)
        }
    }
}

fn test() -> ExitCode {
    let steps: [&[&str]; 3] = [
        &["fmt", "--all", "--check"],
        &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"],
        &["nextest", "run", "--workspace", "--no-fail-fast"],
    ];
    let failed = steps.iter().any(|arguments| {
        println!("cargo {}", arguments.join(" "));
        !Command::new("cargo").args(*arguments).status().is_ok_and(|status| status.success())
    });
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
