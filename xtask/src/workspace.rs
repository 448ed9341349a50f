//! Where things are: the workspace's folder, its target folder, its crates.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Result;
use crate::process::output;

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    // `cargo run` says where it runs it: a program that several checkouts built in one target folder is of one of them.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).parent().expect("xtask should lie in the workspace").to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Whether the workspace has the crate `name` (yet).
pub(crate) fn has(name: &str) -> bool {
    root().join("crates").join(name).join("Cargo.toml").is_file()
}

/// `cargo`, to be run in the workspace's folder.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root());
    command
}

/// Builds a benchmark of a crate; `change` says how else than usual. Gives the program.
///
/// # Errors
/// Where it does not build.
pub(crate) fn build_bench(
    package: &str,
    bench: &str,
    change: impl FnOnce(&mut Command),
) -> Result<PathBuf> {
    let mut build = cargo(&["bench", "--no-run", "--package", package, "--bench", bench]);
    build.arg("--message-format=json-render-diagnostics");
    change(&mut build);
    let messages = output(&mut build)?;
    let mut programs = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        // The crate's programs are built too.
        let executable =
            message["executable"].as_str().filter(|_| message["target"]["name"] == bench);
        executable.map(PathBuf::from)
    });
    programs.next().ok_or_else(|| format!("cargo built no benchmark {bench}"))
}
