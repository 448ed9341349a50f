//! Moments as people and programs write them.

use gpuev::time::Anchor;
use gpuev::{Error, ErrorKind, Result};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// The time zone in which people read and write times.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone(TimeZone);

impl Zone {
    /// That of the user: `$TZ`, else the system's. Where `$TZ` names none that is known, UTC and what to tell
    /// the user.
    #[must_use]
    pub fn local() -> (Self, Option<String>) {
        match TimeZone::try_system() {
            Ok(zone) => (Self(zone), None),
            Err(_) => {
                let named = std::env::var("TZ").ok().filter(|name| !name.is_empty());
                let told = named.map(|name| {
                    format!(
                        "TZ={name:?} is no time zone of this system (/usr/share/zoneinfo): times are in UTC"
                    )
                });
                (Self::utc(), told)
            }
        }
    }

    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Whether times in it are told with a `Z`.
    fn is_utc(&self) -> bool {
        const NAMES: [&str; 6] =
            ["UTC", "Etc/UTC", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"];
        self.0 == TimeZone::UTC || self.0.iana_name().is_some_and(|name| NAMES.contains(&name))
    }

    /// `2026-11-22 11:45:01` to the second below, in UTC with a `Z`; [`unix_ns_of`] understands it.
    #[must_use]
    pub fn second(&self, unix_ns: i64) -> String {
        let format = if self.is_utc() { "%F %TZ" } else { "%F %T" };
        self.at(unix_ns).strftime(format).to_string()
    }

    /// `2026-11-22 11:45:01` to the second below, beside which the zone is named.
    pub(crate) fn clock(&self, unix_ns: i64) -> String {
        self.at(unix_ns).strftime("%F %T").to_string()
    }

    /// `2026-11-22T11:45:01.123456+01:00`, in UTC with a `Z`.
    #[must_use]
    pub fn stamp(&self, unix_ns: i64) -> String {
        let format = if self.is_utc() { "%FT%T.%6fZ" } else { "%FT%T.%6f%:z" };
        self.at(unix_ns).strftime(format).to_string()
    }

    /// What to call it at this moment: `UTC`, `+01:00 (Europe/Berlin)`.
    #[must_use]
    pub fn name_at(&self, unix_ns: i64) -> String {
        if self.is_utc() {
            return "UTC".to_owned();
        }
        let offset = self.at(unix_ns).strftime("%:z").to_string();
        match self.0.iana_name() {
            Some(name) => format!("{offset} ({name})"),
            None => offset,
        }
    }

    fn at(&self, unix_ns: i64) -> Zoned {
        let at = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
        at.to_zoned(self.0.clone())
    }
}

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
    unix_ns_in(text, now, &Zone::local().0)
}

/// As [`unix_ns_of`], for a user of `zone`.
///
/// # Errors
/// Where it means nothing; the error says what would.
pub fn unix_ns_in(text: &str, now: Anchor, zone: &Zone) -> Result<i64> {
    let now = zone.at(now.unix_ns);
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
