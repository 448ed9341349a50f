//! What is wrong with a file that a person wrote: where, what, and what to do.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file, as the person named it.
    pub origin: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.origin, self.line, self.column, self.what)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// All that is wrong with a file, in the order in which it was found. Never empty as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A file that is being read, with what is wrong with it so far.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    origin: &'a str,
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Source<'a> {
    /// The file `text`, which people know as `origin`.
    pub(crate) fn new(origin: &'a str, text: &'a str) -> Self {
        Self { origin, text, problems: Vec::new() }
    }

    /// The bytes of `span` as they are written.
    pub(crate) fn written(&self, span: Range<usize>) -> &'a str {
        self.text.get(span).unwrap_or_default()
    }

    /// Notes that something is wrong at this byte.
    pub(crate) fn wrong(&mut self, at: usize, what: impl Into<String>, hint: Option<String>) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_begin = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.problems.push(Problem {
            origin: self.origin.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_begin..].chars().count() + 1,
            what: what.into(),
            hint,
        });
    }

    /// `value`, if nothing is wrong.
    pub(crate) fn judge<T>(self, value: T) -> Result<T, Problems> {
        if self.problems.is_empty() { Ok(value) } else { Err(Problems(self.problems)) }
    }
}

/// What to say to one who wrote `text` where only `names` mean something.
pub(crate) fn meant(text: &str, names: &[&str]) -> String {
    match nearest(text, names) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("there are {}", names.join(", ")),
    }
}

/// The name that differs least from `text`, if any is near: at most a third of it is another.
#[must_use]
pub fn nearest<'a>(text: &str, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), *name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}
