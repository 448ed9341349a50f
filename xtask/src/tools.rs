//! Programs that the tests need and that cargo can install.

use std::process::Command;

use crate::Result;
use crate::process::{self, succeeds};

/// Whether `cargo NAME` works, after an attempt to install it where it does not.
///
/// # Errors
/// Where it is missing and could not be installed: no network, as a rule.
pub(crate) fn cargo_tool(name: &str) -> Result {
    if is_installed(name) {
        return Ok(());
    }
    let package = format!("cargo-{name}");
    println!("installing {package}, which is missing");
    let mut install = Command::new("cargo");
    install.args(["install", "--locked", &package]);
    // A tool that runs for seconds is not worth minutes of optimizing.
    install
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    let ran = process::run(&mut install)?;
    if ran.ok && is_installed(name) {
        return Ok(());
    }
    Err(format!(
        "{package} is missing and cannot be installed here: cargo install --locked {package}"
    ))
}

fn is_installed(name: &str) -> bool {
    succeeds(Command::new("cargo").args([name, "--version"]))
}

/// Whether this program is on the path.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Whether the nightly toolchain is installed.
pub(crate) fn has_nightly() -> bool {
    succeeds(Command::new("cargo").args(["+nightly", "--version"]))
}
