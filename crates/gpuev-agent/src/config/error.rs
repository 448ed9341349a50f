//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::Path;

/// What is wrong with a configuration. Shown as `FILE:LINE:COLUMN: what`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    origin: String,
    place: Option<(usize, usize)>,
    what: String,
}

impl ConfigError {
    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> Self {
        Self::whole(&file.display().to_string(), &format!("{error}; name another with --config"))
    }

    pub(super) fn of_text(origin: &str, text: &str, error: &toml::de::Error) -> Self {
        let place = error.span().map(|span| place_of(text, span.start));
        Self { origin: origin.to_owned(), place, what: error.message().to_owned() }
    }

    pub(super) fn of_variable(name: &str, what: String) -> Self {
        Self { origin: format!("${name}"), place: None, what }
    }

    pub(super) fn whole(origin: &str, what: &str) -> Self {
        Self { origin: origin.to_owned(), place: None, what: what.to_owned() }
    }

    /// Line and column, both from 1, where they are known.
    #[must_use]
    pub const fn place(&self) -> Option<(usize, usize)> {
        self.place
    }
}

/// Line and column, in characters and from 1, of a byte of `text`.
fn place_of(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => {
                write!(f, "{}:{line}:{column}: {}", self.origin, self.what)
            }
            None => write!(f, "{}: {}", self.origin, self.what),
        }
    }
}

impl std::error::Error for ConfigError {}
