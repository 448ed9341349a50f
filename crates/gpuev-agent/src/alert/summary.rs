//! The one line about an alert: a rule's text with its placeholders filled in.

use std::collections::BTreeMap;

use crate::rule::Variables;

/// A summary is cut here: names in it are of others' making.
const LONGEST: usize = 1024;

/// The names in braces.
pub(crate) fn placeholders(template: &str) -> impl Iterator<Item = &str> {
    parts(template).filter_map(Result::err)
}

/// `template` with labels and what the signal says in the place of names in braces.
pub(super) fn fill(
    template: &str,
    labels: &BTreeMap<String, String>,
    count: u64,
    variables: &Variables<'_>,
) -> String {
    let mut text = String::new();
    for part in parts(template) {
        match part {
            Ok(plain) => text.push_str(plain),
            Err("count") => text.push_str(&count.to_string()),
            Err(name) => match labels.get(name) {
                Some(value) => text.push_str(value),
                None => text.push_str(variables.text(name).as_deref().unwrap_or("unknown")),
            },
        }
    }
    let end = text.char_indices().nth(LONGEST).map_or(text.len(), |(at, _)| at);
    text.truncate(end);
    text
}

/// Plain text, or the name in braces. Braces around anything else are plain.
fn parts(template: &str) -> impl Iterator<Item = Result<&str, &str>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(name) = name_in_braces(rest) {
            rest = &rest[name.len() + 2..];
            return Some(Err(name));
        }
        let first = rest.chars().next().map_or(1, char::len_utf8);
        let end = rest[first..].find('{').map_or(rest.len(), |at| first + at);
        let (plain, after) = rest.split_at(end);
        rest = after;
        Some(Ok(plain))
    })
}

fn name_in_braces(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    (!name.is_empty() && name.chars().all(allowed)).then_some(name)
}
