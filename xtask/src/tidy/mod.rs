//! What `cargo xtask tidy` checks:
//!
//! * [`crates`]: which crate may use which, and what every manifest declares;
//! * [`source`]: module docs, sizes of functions and files, `unwrap`, `unsafe`, unfinished code;
//! * [`text`]: no place of one machine in what is committed.

mod crates;
mod source;
mod text;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::output;
use source::Sizes;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Broken rules, each with its place.
    pub(crate) findings: Vec<String>,
    /// What is near a limit.
    pub(crate) notes: Vec<String>,
    pub(crate) sizes: Sizes,
}

/// Checks everything in the workspace in `root` that git knows or would add.
///
/// # Errors
/// Where git or cargo cannot tell what there is.
pub(crate) fn check(root: &Path) -> Result<Found> {
    let mut found = Found::default();
    crates::check(root, &mut found)?;
    for path in files(root)? {
        // Deleted and not yet committed, or bytes: a capture, a picture.
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        text::check(&path, &text, &mut found);
        if path.extension().is_some_and(|extension| extension == "rs") {
            source::check(&path, &text, &mut found);
        }
    }
    found.sizes.check(&mut found.findings);
    Ok(found)
}

fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let listed = output(&mut list)?;
    Ok(listed.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect())
}
