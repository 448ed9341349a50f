//! Which package `amdsmi` Python programs import here, and in which units it answers.
//!
//! `gpuev-amdsmi` and the vendor's wheel install files of the same names. pip lets both in, and the later overwrites
//! the earlier. Only files are looked at; no Python is run.

use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Findings;

const WHAT: &str = "amdsmi";
const VARIABLE: &str = "GPUEV_AMDSMI_UNITS";
/// `__init__.py` of `gpuev-amdsmi` names gpuev at once.
const LOOKED_AT: u64 = 512;
/// More versions of Python than one machine has.
const MOST_VERSIONS: usize = 32;

pub(super) fn examine(findings: &mut Findings) {
    for packages in package_folders() {
        if let Some(ours) = distribution(&packages, "gpuev_amdsmi-") {
            examine_packages(&packages, &ours, findings);
        }
    }
}

fn examine_packages(packages: &Path, ours: &str, findings: &mut Findings) {
    let place = packages.display();
    let init = packages.join("amdsmi/__init__.py");
    let mut begin = String::new();
    let again = "pip install --force-reinstall --no-deps gpuev-amdsmi";
    let read =
        fs::File::open(&init).and_then(|file| file.take(LOOKED_AT).read_to_string(&mut begin));
    match read {
        Ok(_) if begin.contains("gpuev") => {
            findings.good(WHAT, format!("gpuev-amdsmi {ours} in {place}: {}", units()));
        }
        Ok(_) => {
            let other = distribution(packages, "amdsmi-")
                .unwrap_or_else(|| "of another package".to_owned());
            let text = format!(
                "amdsmi {other} has overwritten gpuev-amdsmi {ours} in {place}; to use gpuev's: pip uninstall amdsmi, \
                 then {again}; to keep the other: pip uninstall gpuev-amdsmi, and run programs with \
                 python -m gpuev.amdsmi PROGRAM"
            );
            findings.note(WHAT, text);
        }
        Err(_) if distribution_is_in_place(packages, ours) => {
            findings.good(WHAT, format!("gpuev-amdsmi {ours} in place, by {place}: {}", units()));
        }
        Err(_) => {
            let text =
                format!("gpuev-amdsmi {ours} is listed in {place} and its files are gone: {again}");
            findings.note(WHAT, text);
        }
    }
}

/// What `GPUEV_AMDSMI_UNITS` says to programs that are started from here.
fn units() -> String {
    match env::var(VARIABLE) {
        Err(_) => format!(
            "powers in microwatts and temperatures in thousandths of a degree, as documented; {VARIABLE}=vendor gives watts and degrees"
        ),
        Ok(chosen) => format!("units by {VARIABLE}={chosen}"),
    }
}

/// The version of an installed distribution, by its folder.
fn distribution(packages: &Path, prefix: &str) -> Option<String> {
    let entries = fs::read_dir(packages).ok()?;
    entries.flatten().find_map(|entry| {
        let name = entry.file_name();
        let version = name.to_str()?.strip_prefix(prefix)?.strip_suffix(".dist-info")?;
        Some(version.to_owned())
    })
}

fn distribution_is_in_place(packages: &Path, ours: &str) -> bool {
    let record = packages.join(format!("gpuev_amdsmi-{ours}.dist-info/RECORD"));
    fs::read_to_string(record).is_ok_and(|record| record.contains(".pth"))
}

/// The folders of packages of the Python that is run here: the virtual environment's, else those of the first `python3`
/// in `PATH` and the user's own.
fn package_folders() -> Vec<PathBuf> {
    if let Some(environment) = env::var_os("VIRTUAL_ENV") {
        return below(Path::new(&environment));
    }
    let paths = env::var_os("PATH").unwrap_or_default();
    let python = env::split_paths(&paths).map(|dir| dir.join("python3")).find(|file| file.exists());
    let prefix = python.and_then(|file| Some(file.parent()?.parent()?.to_owned()));
    let mut folders: Vec<PathBuf> = prefix.iter().flat_map(|prefix| below(prefix)).collect();
    if let Some(home) = env::var_os("HOME") {
        folders.extend(below(&Path::new(&home).join(".local")));
    }
    folders
}

/// `lib/python3*/{site,dist}-packages` below `prefix`.
fn below(prefix: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(prefix.join("lib")) else { return Vec::new() };
    let mut versions: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .take(MOST_VERSIONS)
        .map(|entry| entry.path())
        .collect();
    versions.sort();
    let folders = versions
        .iter()
        .flat_map(|version| ["site-packages", "dist-packages"].map(|name| version.join(name)));
    folders.filter(|folder| folder.is_dir()).collect()
}
