//! The configuration's keys: the code, the example and the documentation name the same, with the same defaults.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gpuev_agent::Config;
use toml::Value;

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).unwrap()
}

/// Keys with their sections, and values as they are written in the documentation.
fn keys(table: &toml::Table) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (section, keys) in table.iter().filter(|(section, _)| *section != "sinks") {
        for (key, value) in keys.as_table().unwrap() {
            let (key, value) = match (section.as_str(), value) {
                ("events", _) => ("events.TYPE".to_owned(), "by type".to_owned()),
                (_, Value::String(text)) if text.is_empty() => (key.clone(), "none".to_owned()),
                (_, Value::Array(list)) if list.is_empty() => (key.clone(), "none".to_owned()),
                (_, Value::Array(list)) => {
                    (key.clone(), format!("`{}`", list[0].as_str().unwrap()))
                }
                (_, Value::String(text)) => (key.clone(), format!("`{text}`")),
                (_, value) => (key.clone(), format!("`{value}`")),
            };
            let key = if key.contains('.') { key } else { format!("{section}.{key}") };
            found.insert(key, value);
        }
    }
    found
}

#[test]
fn the_example_is_what_holds_without_it() {
    let text = document("packaging/agent.toml");
    let example = Config::parse(&text, "packaging/agent.toml", []).unwrap();
    assert_eq!(example, Config::default());
    let written: toml::Table = text.parse().unwrap();
    let known = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(keys(&written), keys(&known), "every key is in the example");
    let types = |table: &toml::Table| table["events"].as_table().unwrap().len();
    assert_eq!(types(&written), types(&known));
}

#[test]
fn every_key_is_documented_with_its_default() {
    let text = document("docs/agent.md");
    let documented: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let key = cells.next()?.strip_suffix('`')?.to_owned();
            Some((key, cells.next()?.to_owned()))
        })
        .filter(|(key, _)| key.contains('.') && !key.starts_with("sinks."))
        .collect();
    let known = toml::Table::try_from(Config::default()).unwrap();
    assert_eq!(documented, keys(&known));
}
