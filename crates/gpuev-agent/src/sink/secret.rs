//! Secrets come from files: not from the configuration, which people copy, nor from the environment, which
//! `/proc` shows.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// No token or password is longer.
const LONGEST: u64 = 64 << 10;

/// Something that must not be shown.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    /// The text of `path` without white space around it.
    ///
    /// # Errors
    /// It cannot be read, is empty, too long or not text: why, for people.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let told = |why: &dyn fmt::Display| format!("secret {}: {why}", path.display());
        let file = File::open(path).map_err(|error| told(&error))?;
        let mut text = String::new();
        let read = file.take(LONGEST + 1).read_to_string(&mut text);
        read.map_err(|error| told(&error))?;
        let text = text.trim();
        if text.is_empty() || text.len() as u64 > LONGEST {
            return Err(told(&"it must hold one line with the secret"));
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
