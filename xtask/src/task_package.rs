//! What a release consists of: a self-contained program and the Debian package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::{output, run as run_shown};
use crate::report::Outcome;
use crate::tools::{cargo_tool, has_program};
use crate::workspace::{cargo, root, target};

/// The self-contained program's target: naming it keeps build scripts and macros out of `+crt-static`.
const STATIC: &str = "x86_64-unknown-linux-gnu";

type Artifact = (&'static str, fn() -> Result<PathBuf>);

const ARTIFACTS: [Artifact; 2] = [("deb", deb), ("static", self_contained)];

/// Makes the artifacts that are named, or all.
pub(crate) fn run(names: &[String]) -> Result {
    if let Some(unknown) = names.iter().find(|name| ARTIFACTS.iter().all(|made| made.0 != **name)) {
        return Err(format!("no artifact `{unknown}`; there are: deb, static"));
    }
    let mut made = Vec::new();
    for (name, make) in ARTIFACTS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            made.push(make()?);
        }
    }
    for path in made {
        let bytes = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{} ({:.1} MB)", path.display(), bytes.len() as f64 / 1e6);
    }
    Ok(())
}

/// The Debian package: the program as it is linked on this machine, with what it says of itself for man and shells.
fn deb() -> Result<PathBuf> {
    cargo_tool("deb")?;
    finish(&mut cargo(&[
        "build",
        "--profile",
        "dist",
        "--package",
        "gpuev-cli",
        "--all-features",
    ]))?;
    let path = packed(&target().join("dist/gpuev"), "package/dist")?;
    finish(Command::new("dpkg-deb").arg("--info").arg(&path))?;
    Ok(path)
}

/// The step of the tests: all of packing but the long build. The program is the one that the tests run.
pub(crate) fn step() -> Result<Outcome> {
    if !has_program("dpkg-deb") {
        return Ok(Outcome::LeftOut("not Debian".to_owned()));
    }
    if let Err(why) = cargo_tool("deb") {
        return Ok(Outcome::LeftOut(why));
    }
    finish(&mut cargo(&["build", "--package", "gpuev-cli", "--all-features"]))?;
    let path = packed(&target().join("debug/gpuev"), "package/trial")?;
    if !has_program("lintian") {
        return Ok(Outcome::LeftOut(format!("{} is packed; lintian is missing", path.display())));
    }
    finish(Command::new("lintian").args(LINTIAN).arg(&path))?;
    Ok(Outcome::Passed)
}

/// What Debian's own packages are held to, but for the report that asks Debian to take a new one in.
const LINTIAN: [&str; 4] = [
    "--allow-root",
    "--fail-on=error,warning",
    "--suppress-tags=initial-upload-closes-no-bugs",
    "--tag-display-limit=0",
];

/// The package of `program`, made in `folder` of the target folder.
fn packed(program: &Path, folder: &str) -> Result<PathBuf> {
    // `cargo deb` packs what a release left in a target folder, and nothing else.
    let folder = target().join(folder);
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder.join("release")).map_err(failed)?;
    fs::copy(program, folder.join("release/gpuev")).map_err(failed)?;
    write_documents(program, &root().join("target/package"))?;
    let mut deb = cargo(&["deb", "--package", "gpuev-cli", "--no-build", "--strip"]);
    let said = output(deb.env("CARGO_TARGET_DIR", folder))?;
    let path = said.lines().last().ok_or("cargo deb names no package")?;
    Ok(PathBuf::from(path.trim()))
}

/// Man pages and completions, as `program` writes them.
fn write_documents(program: &Path, folder: &Path) -> Result {
    let completions = folder.join("completions");
    fs::create_dir_all(&completions).map_err(|error| error.to_string())?;
    finish(Command::new(program).args(["generate", "man"]).arg(folder.join("man")))?;
    for (shell, file) in [("bash", "gpuev.bash"), ("zsh", "_gpuev"), ("fish", "gpuev.fish")] {
        let text = output(Command::new(program).args(["generate", "completions", shell]))?;
        fs::write(completions.join(file), text).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A program that needs no library of the node it runs on.
fn self_contained() -> Result<PathBuf> {
    let mut build =
        cargo(&["build", "--profile", "dist", "--package", "gpuev-cli", "--all-features"]);
    build.args(["--target", STATIC]);
    finish(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let program = target().join(STATIC).join("dist/gpuev");
    // The loader names what a program asks it for; of this one it says that there is nothing to load.
    match Command::new("ldd").arg(&program).output() {
        Ok(said) if String::from_utf8_lossy(&said.stdout).contains("=>") => {
            Err(format!("{} asks for libraries", program.display()))
        }
        _ => Ok(program),
    }
}

fn finish(command: &mut Command) -> Result {
    match run_shown(command)?.ok {
        true => Ok(()),
        false => Err("see above".to_owned()),
    }
}
