//! The repository's own rules, which no other tool checks. Each is told with the place that breaks it.

use std::path::{Path, PathBuf};

use crate::report::Outcome;
use crate::{Result, tidy, workspace};

pub(crate) fn step() -> Result<Outcome> {
    check(&workspace::root())?;
    Ok(Outcome::Passed)
}

/// Checks the workspace, or the one in the folder that is named.
pub(crate) fn run(arguments: &[String]) -> Result {
    let folder = arguments.first().map_or_else(workspace::root, PathBuf::from);
    check(&folder)
}

fn check(root: &Path) -> Result {
    let found = tidy::check(root)?;
    for note in &found.notes {
        println!("note: {note}");
    }
    for finding in &found.findings {
        println!("{finding}");
    }
    println!("{}", found.sizes);
    match found.findings.len() {
        0 => Ok(()),
        count => Err(format!("{count} findings")),
    }
}
