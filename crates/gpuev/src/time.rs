//! Clocks: which one a number is of, and how one becomes another.

use std::fmt;

use rustix::time::{ClockId, clock_gettime};

/// One moment by two clocks, so that a time of one can be told in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Nanoseconds of `CLOCK_BOOTTIME`: since boot, suspend included; what the driver stamps with.
    pub boot_ns: u64,
    /// Nanoseconds of `CLOCK_REALTIME`: since 1970.
    pub unix_ns: i64,
}

impl Anchor {
    /// Now. Reads both clocks without a system call, some tens of nanoseconds apart.
    #[must_use]
    pub fn now() -> Self {
        let wall = clock_gettime(ClockId::Realtime);
        let unix_ns = wall.tv_sec.saturating_mul(1_000_000_000).saturating_add(wall.tv_nsec);
        Self { boot_ns: boot_now_ns(), unix_ns }
    }

    /// Wall time of a moment of `CLOCK_BOOTTIME`, by this anchor.
    #[must_use]
    pub fn unix_ns_of(self, boot_ns: u64) -> i64 {
        let distance = i128::from(boot_ns) - i128::from(self.boot_ns);
        let unix_ns = i128::from(self.unix_ns) + distance;
        i64::try_from(unix_ns).unwrap_or(if distance < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[must_use]
pub fn boot_now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let nanoseconds = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    u64::try_from(nanoseconds).unwrap_or(0)
}

/// Nanoseconds since 1970 as RFC 3339 in UTC with nine digits: `2026-11-22T11:45:01.123456789Z`.
#[derive(Debug, Clone, Copy)]
pub struct Rfc3339(pub i64);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1_000_000_000);
        let nanoseconds = self.0.rem_euclid(1_000_000_000);
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z"
        )
    }
}

/// Year, month and day of a day since 1970 in the Gregorian calendar (Howard Hinnant, `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
