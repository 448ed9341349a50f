//! Rules as a rule file.

use std::fmt::Write;
use std::time::Duration;

use crate::quantity::Period;

use super::group::Grouping;
use super::select::Selection;
use super::{Resolve, Rule, RuleSet};

/// What is in force, with every default written out.
pub(super) fn toml(set: &RuleSet) -> String {
    let rules: Vec<String> = set.iter().map(one).collect();
    rules.join("\n")
}

fn one(rule: &Rule) -> String {
    let mut out = String::from("[[rule]]\n");
    line(&mut out, "name", &quoted(&rule.name));
    line(&mut out, "severity", &quoted(rule.severity.name()));
    line(&mut out, "summary", &quoted(&rule.summary));
    line(&mut out, "action", &quoted(&rule.action));
    selection(&mut out, "", rule.on);
    if let Some(when) = &rule.when {
        line(&mut out, "when", &quoted(when.text()));
    }
    let by: Vec<&str> = rule.by.iter().map(|grouping| Grouping::name(*grouping)).collect();
    line(&mut out, "by", &list(&by));
    line(&mut out, "count", &rule.full.count.to_string());
    if let Some(within) = rule.full.within_ns {
        line(&mut out, "within", &period(within));
    }
    if rule.for_ns > 0 {
        line(&mut out, "for", &period(rule.for_ns));
    }
    line(&mut out, "survives_boot", &rule.survives_boot.to_string());
    resolve(&mut out, &rule.resolve);
    line(&mut out, "notify.at_most", &rule.notify.count.to_string());
    line(&mut out, "notify.within", &period(rule.notify.within_ns));
    if let Some(remind) = rule.remind_ns {
        line(&mut out, "notify.remind", &period(remind));
    }
    for (name, value) in &rule.labels {
        line(&mut out, &format!("labels.{name}"), &quoted(value));
    }
    out
}

fn resolve(out: &mut String, resolve: &Resolve) {
    selection(out, "resolve.", resolve.on);
    if let Some(when) = &resolve.when {
        line(out, "resolve.when", &quoted(when.text()));
    }
    let each: Vec<&str> = resolve.each.events().collect();
    if !each.is_empty() {
        line(out, "resolve.each", &list(&each));
    }
    if resolve.quiet_ns != super::parse::NEVER {
        line(out, "resolve.quiet", &period(resolve.quiet_ns));
    }
}

fn selection(out: &mut String, prefix: &str, selection: Selection) {
    let events: Vec<&str> = selection.events().collect();
    let spans: Vec<&str> = selection.spans().collect();
    let records: Vec<&str> = selection.records().collect();
    for (key, names) in [("events", events), ("spans", spans), ("records", records)] {
        if !names.is_empty() {
            line(out, &format!("{prefix}{key}"), &list(&names));
        }
    }
}

fn line(out: &mut String, key: &str, value: &str) {
    let _infallible = writeln!(out, "{key} = {value}");
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    format!("[{}]", quoted.join(", "))
}

fn period(ns: u64) -> String {
    quoted(&Period(Duration::from_nanos(ns)).to_string())
}

/// A text of TOML: JSON's escapes are all among its own.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
