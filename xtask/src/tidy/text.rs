//! No place of one machine in what is committed: it means nothing elsewhere.

use std::path::Path;

use super::Found;

/// Folders that exist on one machine, where no other path goes on before them.
const FOLDERS: [&str; 2] = ["/work/", "/root/"];
/// Package registries: which one serves a machine is set up on that machine.
const HOSTS: [&str; 6] = [
    "index.crates.io",
    "static.crates.io",
    "pypi.org",
    "files.pythonhosted.org",
    "deb.debian.org",
    "registry.npmjs.org",
];

pub(super) fn check(path: &Path, text: &str, found: &mut Found) {
    // This file and its test name what they look for.
    if path.starts_with("xtask") {
        return;
    }
    for (number, line) in (1..).zip(text.lines()) {
        let folder = FOLDERS.iter().find(|folder| begins_path(line, folder));
        let host = HOSTS.iter().find(|host| line.contains(*host));
        if let Some(what) = folder.or(host) {
            let place = format!("{}:{number}", path.display());
            found.findings.push(format!("{place}: `{what}` belongs to one machine, not here"));
        }
    }
}

fn begins_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}>*/~".contains(c))
    })
}
