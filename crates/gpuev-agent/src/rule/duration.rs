//! Durations as people write them.

use std::fmt::Write;

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// The longest: a year. Nothing that is told to people is that late.
const LONGEST_NS: u64 = 366 * UNITS[0].1;

/// Nanoseconds of `500ms`, `30s`, `5m`, `2h`, `1d` or several of them, `1h30m`.
pub(super) fn parse_ns(text: &str) -> Result<u64, String> {
    const HOW: &str = "write it as 500ms, 30s, 5m, 2h or 1d";
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(HOW.to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(HOW)?;
        let (number, unit) = rest.split_at(digits);
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or(HOW)?;
        let number: u64 = number.parse().map_err(|_| HOW)?;
        total = number.checked_mul(*scale).and_then(|ns| total.checked_add(ns)).ok_or(HOW)?;
        rest = after;
    }
    match total {
        1..=LONGEST_NS => Ok(total),
        0 => Err("it must be longer than nothing".to_owned()),
        _ => Err("it must be at most 366d".to_owned()),
    }
}

/// As [`parse_ns`] reads it; whole milliseconds.
pub(super) fn text_of(ns: u64) -> String {
    let mut rest = ns;
    let mut text = String::new();
    for (unit, scale) in UNITS {
        if rest >= scale {
            let _infallible = write!(text, "{}{unit}", rest / scale);
            rest %= scale;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
