//! Moments as people and programs write them.

use gpuev::time::Anchor;
use gpuev::{Error, ErrorKind, Result};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// What `text` means, in nanoseconds since 1970; `now` is when it was written, in the time zone of the system.
///
/// - `now`, `10m ago`, `-1h30m`, `90s`: before now; units `ms`, `s`, `m`, `h`, `d`, `w`
/// - `2026-11-22T11:45:01.5Z`, `2026-11-22T11:45:01+01:00`: RFC 3339
/// - `2026-11-22 11:45`, `2026-11-22`, `11:45`: local time, local midnight, local time of today
/// - `today`, `yesterday`: their first moment
/// - `@1795347901.5`: seconds since 1970
///
/// ```
/// # use gpuev_store::unix_ns_of;
/// # use gpuev::time::Anchor;
/// let now = Anchor { boot_ns: 0, unix_ns: 1_795_347_901_000_000_000 };
/// assert_eq!(unix_ns_of("10m ago", now)?, now.unix_ns - 600_000_000_000);
/// assert_eq!(unix_ns_of("2026-11-22T11:45:01Z", now)?, now.unix_ns);
/// # Ok::<(), gpuev::Error>(())
/// ```
///
/// # Errors
/// Where it means nothing; the error says what would.
pub fn unix_ns_of(text: &str, now: Anchor) -> Result<i64> {
    let now = Timestamp::from_nanosecond(i128::from(now.unix_ns))
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_zoned(TimeZone::system());
    let text = text.trim();
    parse(text, &now).and_then(|at| i64::try_from(at.as_nanosecond()).ok()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("{text:?} is no moment")).with_hint(
            "write 10m ago, 11:45, yesterday, 2026-11-22, 2026-11-22 11:45 or \
             2026-11-22T11:45:01Z",
        )
    })
}

fn parse(text: &str, now: &Zoned) -> Option<Timestamp> {
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return Some(now.start_of_day().ok()?.timestamp()),
        "yesterday" => return Some(now.yesterday().ok()?.start_of_day().ok()?.timestamp()),
        _ => {}
    }
    if let Some(seconds) = text.strip_prefix('@') {
        let since_1970 = SignedDuration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
        return Timestamp::from_duration(since_1970).ok();
    }
    let before = text.strip_suffix("ago").or_else(|| text.strip_prefix('-')).unwrap_or(text);
    if let Some(before) = duration(before.trim()) {
        return now.timestamp().checked_sub(before).ok();
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    let local = match text.parse::<DateTime>() {
        Ok(local) => local,
        Err(_) => match text.parse::<Date>() {
            Ok(date) => date.to_datetime(Time::midnight()),
            Err(_) if text.contains(':') => now.date().to_datetime(text.parse().ok()?),
            Err(_) => return None,
        },
    };
    Some(local.to_zoned(now.time_zone().clone()).ok()?.timestamp())
}

/// `1h30m`, `1.5h`, `90 s`. A number without a unit is none: it might be a time of day.
fn duration(mut text: &str) -> Option<SignedDuration> {
    let mut sum = SignedDuration::ZERO;
    while !text.is_empty() {
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = text[..unit_at].parse().ok()?;
        let rest = text[unit_at..].trim_start();
        let next = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let seconds = number * seconds_of(&rest[..next])?;
        sum = sum.checked_add(SignedDuration::try_from_secs_f64(seconds).ok()?)?;
        text = rest[next..].trim_start();
    }
    (!sum.is_zero()).then_some(sum)
}

fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "ms" => 0.001,
        "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    })
}

/// The RFC 3339 time `text`, in nanoseconds since 1970.
pub(crate) fn rfc3339_ns(text: &str) -> Option<i64> {
    i64::try_from(text.parse::<Timestamp>().ok()?.as_nanosecond()).ok()
}

/// The first wall time that says its distance to UTC in a line of a log, in nanoseconds since 1970, and what
/// follows it: `2026-11-22T11:45:01.123456789Z`, `2026-11-22 12:45:01 +0100`.
pub(crate) fn logged_time(line: &[u8]) -> Option<(i64, &[u8])> {
    (0..line.len()).find_map(|at| {
        let begins = at == 0 || !line[at - 1].is_ascii_digit();
        let (time, offset, rest) = split_time(line.get(at..)?).filter(|_| begins)?;
        let text = [time, offset.trim_ascii_start()].concat();
        Some((rfc3339_ns(std::str::from_utf8(&text).ok()?)?, rest))
    })
}

/// What looks like a date with a time at the front of `text`, what looks like the offset to UTC behind it,
/// and the rest.
fn split_time(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let seconds = front(text, b"0000-00-00T00:00:00")?;
    let fraction = match text[seconds..].strip_prefix(b".") {
        Some(digits) => 1 + digits.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        None => 0,
    };
    let (time, after) = text.split_at_checked(seconds + fraction)?;
    let offset: [&[u8]; 5] = [b"Z", b"+00:00", b"+0000", b" +00:00", b" +0000"];
    let offset = offset.into_iter().find_map(|shape| front(after, shape))?;
    let (offset, rest) = after.split_at_checked(offset)?;
    Some((time, offset, rest))
}

/// How many bytes at the front of `text` look like `shape`: any digit for `0`, a blank for `T`, `-` for `+`.
fn front(text: &[u8], shape: &[u8]) -> Option<usize> {
    let alike = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b' '),
        b'+' => matches!(byte, b'+' | b'-'),
        shape => byte == shape,
    };
    let front = text.get(..shape.len())?;
    front.iter().zip(shape).all(alike).then_some(shape.len())
}
