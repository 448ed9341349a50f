//! Reading the tables of a rule file: each value with its place, each mistake noted.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Source, meant};

use crate::quantity::Period;

/// A year. Nothing that is told to people is later.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// Shorter times mean nothing to what ticks once a second.
const SHORTEST: Duration = Duration::from_millis(1);

/// A table whose keys are being asked for.
pub(super) struct Table<'a> {
    entries: &'a DeTable<'a>,
    /// Where it begins.
    pub(super) at: usize,
}

/// A text with its place in the file.
#[derive(Debug, Clone)]
pub(super) struct Text {
    /// What it says.
    pub(super) text: String,
    /// The bytes of the file, quotes included.
    pub(super) span: Range<usize>,
}

impl<'a> Table<'a> {
    /// A table that may have these keys only; the others are noted.
    pub(super) fn new(
        source: &mut Source<'_>,
        entries: &'a DeTable<'a>,
        at: usize,
        known: &[&str],
    ) -> Self {
        for key in entries.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                source.wrong(
                    key.span().start,
                    format!("there is no key {name}"),
                    Some(meant(name, known)),
                );
            }
        }
        Self { entries, at }
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries.get(key)
    }

    /// Where the value of `key` begins; the table's place if there is none.
    pub(super) fn place(&self, key: &str) -> usize {
        self.get(key).map_or(self.at, |value| value.span().start)
    }

    /// A text.
    pub(super) fn text(&self, source: &mut Source<'_>, key: &str) -> Option<Text> {
        let value = self.get(key)?;
        text(source, value, key)
    }

    /// A text that must be there.
    pub(super) fn required(&self, source: &mut Source<'_>, key: &str, example: &str) -> Text {
        if self.get(key).is_none() {
            source.wrong(self.at, format!("{key} is missing"), Some(format!("write {example}")));
        }
        self.text(source, key).unwrap_or(Text { text: String::new(), span: self.at..self.at })
    }

    /// A length of time, in nanoseconds.
    pub(super) fn duration_ns(&self, source: &mut Source<'_>, key: &str) -> Option<u64> {
        let text = self.text(source, key)?;
        let period = text.text.parse::<Period>();
        let why = match &period {
            Ok(Period(period)) if *period < SHORTEST => "it must be at least 1ms".to_owned(),
            Ok(Period(period)) if *period > LONGEST => "it must be at most 366d".to_owned(),
            Ok(period) => return Some(period.as_nanos()),
            Err(error) => error.to_string(),
        };
        source.wrong(text.span.start, format!("{key}: {why}"), None);
        None
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &self,
        source: &mut Source<'_>,
        key: &str,
        range: Range<u64>,
    ) -> Option<u64> {
        let value = self.get(key)?;
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
        let fitting = number.filter(|number| range.contains(number));
        if fitting.is_none() {
            let what =
                format!("{key} must be a whole number from {} to {}", range.start, range.end - 1);
            source.wrong(value.span().start, what, None);
        }
        fitting
    }

    /// True or false.
    pub(super) fn flag(&self, source: &mut Source<'_>, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            source.wrong(value.span().start, format!("{key} must be true or false"), None);
        }
        flag
    }

    /// Texts: one, or a list of them.
    pub(super) fn texts(&self, source: &mut Source<'_>, key: &str) -> Option<Vec<Text>> {
        let value = self.get(key)?;
        Some(match value.get_ref().as_array() {
            Some(values) => values.iter().filter_map(|value| text(source, value, key)).collect(),
            None => text(source, value, key).into_iter().collect(),
        })
    }

    /// Texts by name.
    pub(super) fn names_and_texts(&self, source: &mut Source<'_>, key: &str) -> Vec<(Text, Text)> {
        let Some((entries, _)) = self.entries_of(source, key) else { return Vec::new() };
        let pair = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            let span = value.span();
            Some((Text { text: name.to_string(), span }, text(source, value, name)?))
        };
        entries.iter().filter_map(pair).collect()
    }

    /// A table within this one.
    pub(super) fn table(
        &self,
        source: &mut Source<'_>,
        key: &str,
        known: &[&str],
    ) -> Option<Table<'a>> {
        let (entries, at) = self.entries_of(source, key)?;
        Some(Table::new(source, entries, at, known))
    }

    fn entries_of(&self, source: &mut Source<'_>, key: &str) -> Option<(&'a DeTable<'a>, usize)> {
        let value = self.get(key)?;
        let at = value.span().start;
        let Some(entries) = value.get_ref().as_table() else {
            source.wrong(at, format!("{key} must be a table"), None);
            return None;
        };
        Some((entries, at))
    }
}

fn text(source: &mut Source<'_>, value: &Spanned<DeValue<'_>>, key: &str) -> Option<Text> {
    let Some(text) = value.get_ref().as_str() else {
        let what = format!("{key} must be a text, not {}", kind(value.get_ref()));
        source.wrong(value.span().start, what, Some("write it in quotes".to_owned()));
        return None;
    };
    Some(Text { text: text.to_owned(), span: value.span() })
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
