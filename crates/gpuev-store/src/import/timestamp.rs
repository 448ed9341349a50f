//! Wall times as they stand in logs: `2026-11-22T11:45:01.123456789Z`, `2026-11-22 12:45:01 +0100`.

/// The time at the front of `text`, as nanoseconds since 1970, and what follows it.
pub(super) fn read(text: &[u8]) -> Option<(i64, &[u8])> {
    let mut rest = text;
    let year = digits(&mut rest, 4)?;
    let month = separated(&mut rest, b"-").filter(|month| (1..=12).contains(month))?;
    let day = separated(&mut rest, b"-").filter(|day| (1..=31).contains(day))?;
    let hour = separated(&mut rest, b"T ").filter(|hour| *hour < 24)?;
    let minute = separated(&mut rest, b":").filter(|minute| *minute < 60)?;
    // 60 is a leap second.
    let second = separated(&mut rest, b":").filter(|second| *second <= 60)?;
    let nanosecond = fraction(&mut rest);
    let offset = offset(&mut rest)?;
    let days = days_from_civil(year, month, day);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let unix_ns = i128::from(seconds) * 1_000_000_000 + i128::from(nanosecond);
    Some((i64::try_from(unix_ns).ok()?, rest))
}

/// The first time in `text`: what stands before it, when it is, and what follows.
pub(super) fn find(text: &[u8]) -> Option<(&[u8], i64, &[u8])> {
    (0..text.len()).find_map(|at| {
        let begins = at == 0 || !text[at - 1].is_ascii_digit();
        let (unix_ns, rest) = read(text.get(at..)?).filter(|_| begins)?;
        Some((&text[..at], unix_ns, rest))
    })
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (front, after) = rest.split_at_checked(count)?;
    *rest = after;
    front.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Two digits behind one of `separators`.
fn separated(rest: &mut &[u8], separators: &[u8]) -> Option<i64> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    separators.contains(first).then(|| digits(rest, 2))?
}

/// Nanoseconds behind a point, as many digits as there are; more than nine are cut.
fn fraction(rest: &mut &[u8]) -> i64 {
    let Some(after) = rest.strip_prefix(b".") else { return 0 };
    let length = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    *rest = &after[length..];
    let digit = |at: usize| after[..length].get(at).map_or(0, |byte| i64::from(byte - b'0'));
    (0..9).fold(0, |number, at| number * 10 + digit(at))
}

/// Seconds east of UTC: `Z`, `+01:00`, ` +0100`.
fn offset(rest: &mut &[u8]) -> Option<i64> {
    if let Some(after) = rest.strip_prefix(b"Z") {
        *rest = after;
        return Some(0);
    }
    let signed = rest.strip_prefix(b" ").unwrap_or(rest);
    let (sign, mut after) = match signed.split_first()? {
        (b'+', after) => (1, after),
        (b'-', after) => (-1, after),
        _ => return None,
    };
    let hours = digits(&mut after, 2)?;
    after = after.strip_prefix(b":").unwrap_or(after);
    let minutes = digits(&mut after, 2)?;
    *rest = after;
    Some(sign * (hours * 3600 + minutes * 60))
}

/// The day since 1970 of a date of the Gregorian calendar (Howard Hinnant, `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}
