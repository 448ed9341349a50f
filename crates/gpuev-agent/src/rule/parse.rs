//! Rule files: TOML to rules, with all that is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use gpuev::Severity;
use toml::de::{DeTable, DeValue};

use crate::problem::{Problems, Source, meant};

use super::condition::Condition;
use super::group::Grouping;
use super::select::{self, Selection};
use super::table::{Table, Text};
use super::variables::NAMES;
use super::window::Threshold;
use super::{NotifyLimit, Resolve, Rule, RuleSet};

const RULE_KEYS: [&str; 17] = [
    "name",
    "enabled",
    "severity",
    "summary",
    "action",
    "labels",
    "events",
    "spans",
    "records",
    "when",
    "by",
    "count",
    "within",
    "for",
    "resolve",
    "survives_boot",
    "notify",
];
const RESOLVE_KEYS: [&str; 6] = ["events", "spans", "records", "when", "each", "quiet"];
const NOTIFY_KEYS: [&str; 3] = ["at_most", "within", "remind"];

/// Labels that every alert has.
const OWN_LABELS: [&str; 4] = ["rule", "severity", "host", "gpu"];

/// Placeholders of a summary beside labels and variables.
const COUNT: &str = "count";
/// How long a span took, with its unit.
const DURATION: &str = "duration";

/// A state ends when it is over, and not because nothing is told of it.
pub(super) const NEVER: u64 = u64::MAX;

/// Quiet for so long ends an alert where the rule does not say.
const QUIET_NS: u64 = 600_000_000_000;
/// A rule notifies so often at most where it does not say.
const NOTIFY: NotifyLimit = NotifyLimit { count: 20, within_ns: 3_600_000_000_000 };
const MOST_RULES: usize = 1000;
const MOST_COUNT: u64 = 1_000_000_000;

/// Reads a rule file.
pub(super) fn rules(text: &str, origin: &str) -> Result<RuleSet, Problems> {
    let mut source = Source::new(origin, text);
    let mut set = RuleSet::default();
    match DeTable::parse(text) {
        Ok(document) => {
            Table::new(&mut source, document.get_ref(), 0, &["rule"]);
            if let Some(value) = document.get_ref().get("rule") {
                read_list(&mut source, value, &mut set);
            }
        }
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().replace('\n', ", ");
            source.wrong(at, format!("this is no TOML: {message}"), None);
        }
    }
    source.judge(set)
}

fn read_list(source: &mut Source<'_>, value: &toml::Spanned<DeValue<'_>>, set: &mut RuleSet) {
    let Some(values) = value.get_ref().as_array() else {
        let hint = "begin each rule with [[rule]]".to_owned();
        return source.wrong(value.span().start, "rule must be a list of tables", Some(hint));
    };
    if values.len() > MOST_RULES {
        return source.wrong(value.span().start, format!("more than {MOST_RULES} rules"), None);
    }
    for value in values {
        let at = value.span().start;
        let Some(entries) = value.get_ref().as_table() else {
            source.wrong(at, "a rule must be a table", Some("begin it with [[rule]]".to_owned()));
            continue;
        };
        let table = Table::new(source, entries, at, &RULE_KEYS);
        let name = name(source, &table);
        let taken = set.rules.iter().map(|rule| &rule.name).chain(&set.disabled);
        if taken.into_iter().any(|other| *other == name) && !name.is_empty() {
            let hint = "a rule of another file takes the place of one of the same name";
            let what = format!("a second rule {name} in one file");
            source.wrong(table.place("name"), what, Some(hint.to_owned()));
        } else if table.flag(source, "enabled") == Some(false) {
            set.disabled.push(name);
        } else {
            set.rules.push(Arc::new(rule(source, &table, name)));
        }
    }
}

fn name(source: &mut Source<'_>, table: &Table<'_>) -> String {
    let name = table.required(source, "name", "name = \"my-rule\"");
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.text.chars().all(allowed) || name.text.len() > 64 {
        let hint = "use at most 64 letters, digits, and - _ .".to_owned();
        source.wrong(name.span.start, "this is no name for a rule", Some(hint));
    }
    name.text
}

fn rule(source: &mut Source<'_>, table: &Table<'_>, name: String) -> Rule {
    let on = selection(source, table, &["events", "spans", "records"]);
    if on.is_empty() {
        let hint = "say events, spans or records, e.g. events = [\"VMFAULT\"]".to_owned();
        source.wrong(table.at, "the rule looks at nothing", Some(hint));
    }
    let by = grouping(source, table);
    let mut resolve = resolve(source, table);
    let within_ns = table.duration_ns(source, "within");
    let for_ns = table.duration_ns(source, "for").unwrap_or(0);
    if on.is_of_states() && resolve.on.has_states() && within_ns.is_none() {
        resolve.quiet_ns = NEVER;
    }
    let count = table.number(source, "count", 1..MOST_COUNT + 1).unwrap_or(1);
    check_times(source, table, &Times { count, within_ns, for_ns, resolve: &resolve, on });
    let labels = labels(source, table, &by);
    let (notify, remind_ns) = notify(source, table);
    Rule {
        severity: severity(source, table),
        summary: summary(source, table, &labels),
        action: table.text(source, "action").map(|text| text.text).unwrap_or_default(),
        when: condition(source, table, on),
        survives_boot: table.flag(source, "survives_boot").unwrap_or(false),
        full: Threshold { count, within_ns },
        name,
        labels,
        notify,
        remind_ns,
        on,
        by,
        for_ns,
        resolve,
    }
}

fn severity(source: &mut Source<'_>, table: &Table<'_>) -> Severity {
    let text = table.required(source, "severity", "severity = \"critical\"");
    let names = Severity::ALL.map(Severity::name);
    let severity = Severity::from_name(&text.text);
    if severity.is_none() && !text.text.is_empty() {
        let what = format!("there is no severity {}", text.text);
        source.wrong(text.span.start, what, Some(meant(&text.text, &names)));
    }
    severity.unwrap_or(Severity::Warning)
}

fn condition(source: &mut Source<'_>, table: &Table<'_>, on: Selection) -> Option<Condition> {
    let text = table.text(source, "when")?;
    Condition::compile(source, &text, on)
}

/// The signals that these keys name.
fn selection(source: &mut Source<'_>, table: &Table<'_>, keys: &[&str]) -> Selection {
    let mut selection = Selection::default();
    for key in keys {
        for text in table.texts(source, key).unwrap_or_default() {
            add(source, &mut selection, key, &text);
        }
    }
    selection
}

fn add(source: &mut Source<'_>, selection: &mut Selection, key: &str, text: &Text) {
    let (known, what, names) = match key {
        "spans" => (selection.add_span(&text.text), "span", select::span_names()),
        "records" => (selection.add_record(&text.text), "record", select::RECORDS.to_vec()),
        _ => (selection.add_event(&text.text), "event", select::event_names()),
    };
    if !known {
        let said = format!("there is no {what} {}", text.text);
        source.wrong(text.span.start, said, Some(meant(&text.text, &names)));
    }
}

fn grouping(source: &mut Source<'_>, table: &Table<'_>) -> Vec<Grouping> {
    let Some(texts) = table.texts(source, "by") else { return vec![Grouping::Gpu] };
    let mut by: Vec<Grouping> = Vec::new();
    for text in texts {
        match Grouping::from_name(&text.text) {
            Some(grouping) if by.contains(&grouping) => {}
            Some(grouping) => by.push(grouping),
            None => {
                let names = Grouping::ALL.map(Grouping::name);
                let what = format!("nothing can be grouped by {}", text.text);
                source.wrong(text.span.start, what, Some(meant(&text.text, &names)));
            }
        }
    }
    by
}

fn resolve(source: &mut Source<'_>, table: &Table<'_>) -> Resolve {
    let none = || Resolve {
        on: Selection::default(),
        when: None,
        each: Selection::default(),
        quiet_ns: QUIET_NS,
    };
    let Some(table) = table.table(source, "resolve", &RESOLVE_KEYS) else { return none() };
    let on = selection(source, &table, &["events", "spans", "records"]);
    let when = condition(source, &table, on);
    let mut each = Selection::default();
    for text in table.texts(source, "each").unwrap_or_default() {
        let mut one = Selection::default();
        add(source, &mut one, "each", &text);
        if !one.is_within(on) {
            let hint = "name it there too".to_owned();
            let what = format!("{} is not among the events of resolve", text.text);
            source.wrong(text.span.start, what, Some(hint));
        }
        add(source, &mut each, "each", &text);
    }
    if when.is_some() && on.is_empty() {
        let hint = "say events, spans or records beside it".to_owned();
        source.wrong(table.place("when"), "resolve looks at nothing", Some(hint));
    }
    let quiet_ns = table.duration_ns(source, "quiet").unwrap_or(QUIET_NS);
    Resolve { on, when, each, quiet_ns }
}

struct Times<'a> {
    count: u64,
    within_ns: Option<u64>,
    for_ns: u64,
    resolve: &'a Resolve,
    on: Selection,
}

/// Times that make no sense together.
fn check_times(source: &mut Source<'_>, table: &Table<'_>, times: &Times<'_>) {
    let ends = !times.resolve.on.is_empty();
    if times.count > 1 && times.within_ns.is_none() && !ends {
        let hint = "say within = \"10s\", or what resolves it".to_owned();
        source.wrong(table.place("count"), "count needs a time to count in", Some(hint));
    }
    if times.for_ns > 0 && times.within_ns.is_none() && !ends && !times.on.has_readings() {
        let hint = "say within, the longest pause between two matches, or what resolves it";
        let what = "with this for, one match would be enough";
        source.wrong(table.place("for"), what, Some(hint.to_owned()));
    }
}

fn labels(source: &mut Source<'_>, table: &Table<'_>, by: &[Grouping]) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in table.names_and_texts(source, "labels") {
        let grouped = by.iter().any(|grouping| grouping.name() == name.text);
        if grouped || OWN_LABELS.contains(&name.text.as_str()) {
            let what = format!("the label {} has a value of its own", name.text);
            source.wrong(name.span.start, what, Some("choose another name".to_owned()));
        } else if !is_label_name(&name.text) {
            let hint = "use letters, digits and _, and begin with none of the digits".to_owned();
            source.wrong(name.span.start, format!("{:?} is no label", name.text), Some(hint));
        } else {
            labels.insert(name.text, value.text);
        }
    }
    labels
}

/// What Prometheus and Alertmanager take.
fn is_label_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn summary(
    source: &mut Source<'_>,
    table: &Table<'_>,
    labels: &BTreeMap<String, String>,
) -> String {
    let example = "summary = \"{gpu}: {message}\"";
    let summary = table.required(source, "summary", example);
    let groupings = Grouping::ALL.map(Grouping::name);
    let mut names: Vec<&str> = groupings.into_iter().chain(OWN_LABELS).chain([COUNT]).collect();
    names.extend(labels.keys().map(String::as_str));
    names.extend(NAMES);
    names.push(DURATION);
    for name in crate::alert::placeholders(&summary.text) {
        if !names.contains(&name) {
            let what = format!("the summary has no {{{name}}}");
            source.wrong(summary.span.start, what, Some(meant(name, &names)));
        }
    }
    summary.text
}

fn notify(source: &mut Source<'_>, table: &Table<'_>) -> (NotifyLimit, Option<u64>) {
    let Some(table) = table.table(source, "notify", &NOTIFY_KEYS) else { return (NOTIFY, None) };
    let limit = NotifyLimit {
        count: table.number(source, "at_most", 1..1001).unwrap_or(NOTIFY.count),
        within_ns: table.duration_ns(source, "within").unwrap_or(NOTIFY.within_ns),
    };
    (limit, table.duration_ns(source, "remind"))
}
