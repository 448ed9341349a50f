//! Which rules hold.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::rule::RuleSet;

/// `[rules]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleSettings {
    /// Whether the rules that come with the program hold.
    pub builtin: bool,
    /// Rule files, or folders of them (`*.toml`, by name), laid over those in this order. What is not there is
    /// passed over.
    pub files: Vec<PathBuf>,
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self { builtin: true, files: vec![PathBuf::from("/etc/gpuev/rules.d")] }
    }
}

impl RuleSettings {
    /// Reads the rules.
    ///
    /// # Errors
    /// All that is wrong with the first file that has something wrong, with line and column.
    pub fn load(&self) -> Result<RuleSet, Problems> {
        let first = if self.builtin { RuleSet::builtin() } else { RuleSet::default() };
        let files =
            self.files.iter().filter(|path| path.exists()).flat_map(|path| rule_files(path));
        files.map(|file| RuleSet::read(&file)).try_fold(first, |all, more| Ok(all.with(more?)))
    }
}

/// A file itself, or the rule files of a folder, by name.
fn rule_files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}
