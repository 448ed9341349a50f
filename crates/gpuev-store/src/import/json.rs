//! Objects that loggers write one a line: `journalctl -o json`, Docker's `json-file`, programs' own.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::envelope::View;
use super::time::{Calendar, at_front};

/// Where the message stands, the first that is there.
const MESSAGES: [&str; 4] = ["MESSAGE", "log", "message", "msg"];
/// Where it stands when that was, as text.
const TIMES: [&str; 5] = ["time", "timestamp", "@timestamp", "ts", "datetime"];
/// The same in microseconds since 1970, as the journal has it (systemd.journal-fields(7)): when the program
/// sent it, else when it was received.
const MICROSECONDS: [&str; 2] = ["_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP"];
const PROGRAMS: [&str; 3] = ["SYSLOG_IDENTIFIER", "_COMM", "program"];
const HOSTS: [&str; 3] = ["_HOSTNAME", "host", "hostname"];

pub(super) fn open<'v>(line: &'v [u8], calendar: &Calendar) -> Option<View<'v>> {
    if line.first() != Some(&b'{') {
        return None;
    }
    let object: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let message = MESSAGES.iter().find_map(|key| bytes(object.get(*key)?))?;
    let text = |keys: &[&str]| keys.iter().find_map(|key| object.get(*key)?.as_str());
    let named = |keys: &[&str]| text(keys).filter(|name| !name.is_empty()).map(str::to_owned);
    let found = text(&TIMES).and_then(|text| {
        let found = at_front(text.as_bytes(), calendar)?;
        Some((found.unix_ns?, found.assumed))
    });
    let microseconds = MICROSECONDS.iter().find_map(|key| whole(object.get(*key)?));
    let by_journal = microseconds.and_then(|at| Some((at.checked_mul(1000)?, false)));
    let seconds = object.get("ts").and_then(Value::as_f64).and_then(since_1970);
    let at = by_journal.or(found).or(seconds.map(|at| (at, false)));
    Some(View {
        text: Cow::Owned(message.trim_ascii_end().to_vec()),
        unix_ns: at.map(|(at, _)| at),
        assumed: at.is_some_and(|(_, assumed)| assumed),
        host: named(&HOSTS),
        program: named(&PROGRAMS),
        boot_id: named(&["_BOOT_ID"]),
        ..View::default()
    })
}

/// Text, or the numbers of its bytes, as the journal writes what is not UTF-8 or not printable.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(numbers) => {
            numbers.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect()
        }
        _ => None,
    }
}

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn since_1970(seconds: f64) -> Option<i64> {
    let since = jiff::SignedDuration::try_from_secs_f64(seconds).ok()?;
    let at = Timestamp::from_duration(since).ok()?;
    i64::try_from(at.as_nanosecond()).ok().filter(|_| seconds > 1e9)
}
