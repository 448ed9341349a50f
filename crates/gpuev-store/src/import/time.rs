//! Wall times at the front of a line, in the forms that loggers write.
//!
//! | form | written by |
//! |---|---|
//! | `2026-11-22T11:45:01.5Z`, `2026-11-22T11:45:01,123456+0100` | journalctl -o short-iso, dmesg --time-format iso, rsyslog, containers |
//! | `2026-11-22 11:45:01.5`, `2026/11/22 11:45:01` | ts, programs; local time |
//! | `Nov 22 11:45:01.123456` | syslog, journalctl; local time, the year is not told |
//! | `Sun Nov 22 11:45:01 2026`, `Sun 2026-11-22 11:45:01 CET` | dmesg -T, journalctl -o short-full |
//! | `1795347901.123456` | journalctl -o short-unix, ts %.s |
//! | `11:45:01.5`, `+0.000012` | ts -s, dmesg -d: no moment |

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// What a reader has to know to read a time that does not tell all.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    /// The zone of times without one.
    pub(super) zone: TimeZone,
    /// No time without a year is later than this, but for a day.
    pub(super) latest: Timestamp,
}

/// A time that was found at the front of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// In nanoseconds since 1970; `None` where the text tells no moment (`11:45:01`), or a zone that is not
    /// known.
    pub(super) unix_ns: Option<i64>,
    /// The reader had to assume the zone or the year.
    pub(super) assumed: bool,
    /// What follows.
    pub(super) rest: &'a [u8],
}

/// The time at the front of `text`.
pub(super) fn at_front<'a>(text: &'a [u8], calendar: &Calendar) -> Option<Found<'a>> {
    const FORMS: [fn(&mut Front<'_>, &Calendar) -> Option<Moment>; 6] =
        [iso, with_weekday, syslog, slashed, unix_seconds, of_day];
    FORMS.iter().find_map(|form| {
        let mut front = Front(text);
        let moment = form(&mut front, calendar)?;
        let (at, assumed) = match moment {
            Moment::At(at) => (Some(at), false),
            Moment::Assumed(at) => (Some(at), true),
            Moment::Unknown => (None, false),
        };
        let unix_ns = at.and_then(|at| i64::try_from(at.as_nanosecond()).ok());
        front.ends().then_some(Found { unix_ns, assumed, rest: front.0 })
    })
}

enum Moment {
    At(Timestamp),
    Assumed(Timestamp),
    Unknown,
}

/// `2026-11-22T11:45:01.5Z`, with a blank for `T`, `Z`, `+01:00`, `+0100` or nothing, maybe behind a blank.
fn iso(front: &mut Front<'_>, calendar: &Calendar) -> Option<Moment> {
    let day = front.date(b'-')?;
    let blank = front.byte(b' ');
    if !blank && !front.byte(b'T') {
        return None;
    }
    let at = day.to_datetime(front.time()?);
    match front.offset() {
        Some(offset) => Some(Moment::At(offset.to_timestamp(at).ok()?)),
        // RFC 3339 without an offset tells no moment; nobody writes it.
        None if !blank => None,
        None => local(at, calendar),
    }
}

/// `Sun Nov 22 11:45:01 2026`, `Sun 2026-11-22 11:45:01 CET`.
fn with_weekday(front: &mut Front<'_>, calendar: &Calendar) -> Option<Moment> {
    front.name(&WEEKDAYS)?;
    front.blanks()?;
    if let Some(day) = front.date(b'-') {
        front.blanks()?;
        let at = day.to_datetime(front.time()?);
        return front.zone(at, calendar);
    }
    let month = front.name(&MONTHS)?;
    front.blanks()?;
    let day = front.digits(1, 2)?;
    front.blanks()?;
    let time = front.time()?;
    let mut zone = None;
    if let Some(rest) = front.0.strip_prefix(b" ")
        && rest.first().is_some_and(u8::is_ascii_uppercase)
    {
        let length = rest.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        zone = Some(&rest[..length]);
        front.0 = &rest[length..];
    }
    front.blanks()?;
    let year = front.digits(4, 4)?;
    let at = civil(year, month, day)?.to_datetime(time);
    match zone {
        Some(name) => of_zone(name, at, calendar),
        None => local(at, calendar),
    }
}

/// `Nov 22 11:45:01`, in the latest year in which that is not in the future.
fn syslog(front: &mut Front<'_>, calendar: &Calendar) -> Option<Moment> {
    let month = front.name(&MONTHS)?;
    front.blanks()?;
    let day = front.digits(1, 2)?;
    front.blanks()?;
    let time = front.time()?;
    let latest = calendar.latest.checked_add(SignedDuration::from_hours(24)).ok()?;
    let this_year = i64::from(latest.to_zoned(calendar.zone.clone()).year());
    // The 29th of February is not in each year.
    (this_year - 8..=this_year).rev().find_map(|year| {
        let at = civil(year, month, day)?.to_datetime(time);
        let at = calendar.zone.to_timestamp(at).ok().filter(|at| *at <= latest)?;
        Some(Moment::Assumed(at))
    })
}

/// `2026/11/22 11:45:01`.
fn slashed(front: &mut Front<'_>, calendar: &Calendar) -> Option<Moment> {
    let day = front.date(b'/')?;
    front.blanks()?;
    local(day.to_datetime(front.time()?), calendar)
}

/// `1795347901.123456`: from 2001 to 2286.
fn unix_seconds(front: &mut Front<'_>, _: &Calendar) -> Option<Moment> {
    let seconds = front.digits(10, 10)?;
    let nanoseconds = front.fraction();
    Timestamp::new(seconds, nanoseconds).ok().map(Moment::At)
}

/// `11:45:01`, and how long since the line before.
fn of_day(front: &mut Front<'_>, _: &Calendar) -> Option<Moment> {
    if front.byte(b'+') {
        front.digits(1, 9)?;
        front.0.first().is_some_and(|byte| *byte == b'.').then(|| front.fraction())?;
    } else {
        front.time()?;
    }
    Some(Moment::Unknown)
}

fn local(at: DateTime, calendar: &Calendar) -> Option<Moment> {
    calendar.zone.to_timestamp(at).ok().map(Moment::Assumed)
}

/// By the abbreviation of a zone, of which only that of UTC and of the reader's own say something.
fn of_zone(name: &[u8], at: DateTime, calendar: &Calendar) -> Option<Moment> {
    if matches!(name, b"UTC" | b"GMT" | b"Z") {
        return Offset::UTC.to_timestamp(at).ok().map(Moment::At);
    }
    let local = calendar.zone.to_timestamp(at).ok()?;
    let info = calendar.zone.to_offset_info(local);
    let same = info.abbreviation().as_bytes() == name;
    Some(if same { Moment::At(local) } else { Moment::Unknown })
}

fn civil(year: i64, month: i64, day: i64) -> Option<Date> {
    let (year, month, day) = (year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?);
    (1..=12).contains(&month).then(|| Date::new(year, month, day).ok())?
}

const WEEKDAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// The rest of a text. Each method takes what it names off the front, or gives `None` and then nothing else
/// is read from it.
struct Front<'a>(&'a [u8]);

impl Front<'_> {
    fn byte(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn blanks(&mut self) -> Option<()> {
        let rest = self.0.trim_ascii_start();
        let any = rest.len() < self.0.len();
        self.0 = rest;
        any.then_some(())
    }

    /// A number of so many digits.
    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at_checked(count)?;
        if !(least..=most).contains(&count) {
            return None;
        }
        self.0 = rest;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// Which of `names` stands here, from 1.
    fn name(&mut self, names: &[&[u8]]) -> Option<i64> {
        let place = names.iter().position(|name| self.0.starts_with(name))?;
        self.0 = &self.0[names[place].len()..];
        i64::try_from(place + 1).ok()
    }

    /// `2026-11-22`.
    fn date(&mut self, between: u8) -> Option<Date> {
        let before = self.0;
        let mut read = || {
            let year = self.digits(4, 4)?;
            self.byte(between).then_some(())?;
            let month = self.digits(2, 2)?;
            self.byte(between).then_some(())?;
            civil(year, month, self.digits(2, 2)?)
        };
        let date = read();
        if date.is_none() {
            self.0 = before;
        }
        date
    }

    /// `11:45:01.5`, with a dot or a comma.
    fn time(&mut self) -> Option<Time> {
        let hour = self.digits(2, 2)?;
        self.byte(b':').then_some(())?;
        let minute = self.digits(2, 2)?;
        self.byte(b':').then_some(())?;
        // A leap second is the last moment of its minute.
        let second = self.digits(2, 2)?.min(if hour == 23 && minute == 59 { 59 } else { 99 });
        let nanosecond = self.fraction();
        let (hour, minute, second) =
            (hour.try_into().ok()?, minute.try_into().ok()?, second.try_into().ok()?);
        Time::new(hour, minute, second, nanosecond).ok()
    }

    /// The digits behind a dot or comma, in nanoseconds; what is smaller is cut.
    fn fraction(&mut self) -> i32 {
        let Some(digits) = self.0.strip_prefix(b".").or_else(|| self.0.strip_prefix(b",")) else {
            return 0;
        };
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return 0;
        }
        self.0 = &digits[count..];
        let place = |place| digits[..count].get(place).map_or(0, |digit| i32::from(digit - b'0'));
        (0..9).fold(0, |sum, at| sum * 10 + place(at))
    }

    /// `Z`, `+01:00`, `+0100`, maybe behind a blank.
    fn offset(&mut self) -> Option<Offset> {
        let before = self.0;
        let blank = self.byte(b' ');
        let found = self.offset_here();
        // "… 11:45:01 +5 units": a number, no offset.
        if found.is_none() || (blank && !self.ends()) {
            self.0 = before;
            return None;
        }
        found
    }

    fn offset_here(&mut self) -> Option<Offset> {
        if self.byte(b'Z') {
            return Some(Offset::UTC);
        }
        let sign = match self.0.first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.0 = &self.0[1..];
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (hours, minutes) = match count {
            4 => {
                let both = self.digits(4, 4)?;
                (both / 100, both % 100)
            }
            2 => {
                let hours = self.digits(2, 2)?;
                (hours, if self.byte(b':') { self.digits(2, 2)? } else { 0 })
            }
            _ => return None,
        };
        let seconds = i32::try_from((hours * 60 + minutes) * 60).ok()?;
        (minutes < 60).then(|| Offset::from_seconds(sign * seconds).ok())?
    }

    /// The moment `at` in the zone that is named behind a blank, else here.
    fn zone(&mut self, at: DateTime, calendar: &Calendar) -> Option<Moment> {
        if let Some(offset) = self.offset() {
            return offset.to_timestamp(at).ok().map(Moment::At);
        }
        let rest = self.0.strip_prefix(b" ").unwrap_or_default();
        let length = rest.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        if !(2..=5).contains(&length) || !matches!(rest.get(length), None | Some(b' ' | b':')) {
            return local(at, calendar);
        }
        let (name, rest) = rest.split_at(length);
        self.0 = rest;
        of_zone(name, at, calendar)
    }

    /// Whether a word may end here.
    fn ends(&self) -> bool {
        !self.0.first().is_some_and(u8::is_ascii_alphanumeric)
    }
}

/// The first wall time that says its distance to UTC in a line, in nanoseconds since 1970, and what follows it.
pub(super) fn anywhere(line: &[u8]) -> Option<(i64, &[u8])> {
    (0..line.len()).find_map(|at| {
        let begins = at == 0 || !line[at - 1].is_ascii_digit();
        let text = line.get(at..).filter(|text| begins && text[0].is_ascii_digit())?;
        let utc = Calendar { zone: TimeZone::UTC, latest: Timestamp::UNIX_EPOCH };
        let mut front = Front(text);
        match iso(&mut front, &utc)? {
            Moment::At(at) => Some((i64::try_from(at.as_nanosecond()).ok()?, front.0)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn berlin() -> Calendar {
        let latest = date(2026, 12, 1).at(0, 0, 0, 0);
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        Calendar { latest: Offset::UTC.to_timestamp(latest).unwrap(), zone }
    }

    #[test]
    fn each_form_is_the_moment_that_it_says() {
        let at = 1_795_344_301; // 2026-11-22 11:45:01 in Berlin
        for (text, nanoseconds) in [
            ("2026-11-22T11:45:01+0100", 0),
            ("2026-11-22T11:45:01,123456+01:00", 123_456_000),
            ("2026-11-22T10:45:01.5Z", 500_000_000),
            ("2026-11-22T10:45:01.1234567891Z", 123_456_789),
            ("2026-11-22 11:45:01 +0100", 0),
            ("2026-11-22 11:45:01", 0),
            ("2026-11-22 11:45:01,25", 250_000_000),
            ("2026/11/22 11:45:01", 0),
            ("Nov 22 11:45:01", 0),
            ("Nov 22 11:45:01.123456", 123_456_000),
            ("Sun Nov 22 11:45:01 2026", 0),
            ("Sun Nov 22 11:45:01 CET 2026", 0),
            ("Sun Nov 22 10:45:01 UTC 2026", 0),
            ("Sun 2026-11-22 11:45:01 CET", 0),
            ("Sun 2026-11-22 10:45:01.25 UTC", 250_000_000),
            ("1795344301.123456", 123_456_000),
        ] {
            for rest in ["", " node17 x", ": x"] {
                let text = format!("{text}{rest}");
                let found =
                    at_front(text.as_bytes(), &berlin()).unwrap_or_else(|| panic!("{text}"));
                let expected = at * 1_000_000_000 + nanoseconds;
                assert_eq!(
                    (found.unix_ns, found.rest),
                    (Some(expected), rest.as_bytes()),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_year_that_is_not_told_is_the_latest_that_fits() {
        let year = |text: &str| {
            let found = at_front(text.as_bytes(), &berlin()).unwrap();
            assert!(found.assumed);
            let at = Timestamp::from_nanosecond(found.unix_ns.unwrap().into()).unwrap();
            at.to_zoned(TimeZone::UTC).year()
        };
        assert_eq!(year("Feb 12 10:00:00 "), 2026);
        assert_eq!(year("Dec  1 10:00:00 "), 2026);
        assert_eq!(year("Dec 24 10:00:05 "), 2025);
        assert_eq!(year("Feb 29 10:00:05 "), 2024);
    }

    #[test]
    fn what_tells_no_moment_is_passed_over() {
        for text in ["11:45:01.5 x", "+0.000012 x", "Sun 2026-11-22 11:45:01 PST x"] {
            let found = at_front(text.as_bytes(), &berlin()).unwrap();
            assert_eq!((found.unix_ns, found.rest), (None, &b" x"[..]), "{text}");
        }
        for text in
            ["2026-13-22T11:45:01Z", "2026-11-22T11:45:01 x", "Nov 31 11:45:01", "12345 x", "7 1"]
        {
            assert_eq!(at_front(text.as_bytes(), &berlin()), None, "{text}");
        }
    }
}
