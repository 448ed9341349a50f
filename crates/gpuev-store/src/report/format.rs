//! Numbers for people.

use std::fmt;

use gpuev::Comm;
use gpuev::message::Printable;

use super::summary::Who;

/// `12,345`.
pub(super) struct Count(pub(super) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// `6,172.5`, with fewer digits behind the point the more there are before.
pub(super) struct Rate(pub(super) f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 100.0 {
            return write!(f, "{:.1}", self.0);
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive; saturates
        let whole = self.0.round() as u64;
        Count(whole).fmt(f)
    }
}

/// `812 ns`, `48.2 µs`, `1.80 s`, `2m 05s`, `3h 12m`, `2d 04h`.
pub(super) struct Length(pub(super) u64);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000_000;
        let (ns, seconds) = (self.0, self.0 / SECOND);
        match seconds {
            0 if ns < 1_000 => write!(f, "{ns} ns"),
            0 if ns < 1_000_000 => three_digits(f, ns, 1_000, "µs"),
            0 => three_digits(f, ns, 1_000_000, "ms"),
            1..60 => three_digits(f, ns, SECOND, "s"),
            60..3_600 => write!(f, "{}m {:02}s", seconds / 60, seconds % 60),
            3_600..86_400 => write!(f, "{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
            _ => write!(f, "{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
        }
    }
}

/// `number / unit`, cut after three digits: no rounding to `1000 ms`.
fn three_digits(f: &mut fmt::Formatter<'_>, number: u64, unit: u64, name: &str) -> fmt::Result {
    let (whole, rest) = (number / unit, number % unit);
    match whole {
        0..10 => write!(f, "{whole}.{:02} {name}", rest * 100 / unit),
        10..100 => write!(f, "{whole}.{} {name}", rest * 10 / unit),
        _ => write!(f, "{whole} {name}"),
    }
}

/// `2.0 MiB`.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 5] =
            [(50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in UNITS {
            if self.0 >> shift > 0 {
                let tenths = (u128::from(self.0) * 10) >> shift;
                return write!(f, "{}.{} {unit}", tenths / 10, tenths % 10);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// `12.5 %` of a whole, or `≤ 12.5 %` where it is an upper bound; a dash where the whole is nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    part: u64,
    whole: u64,
    at_most: bool,
}

impl Share {
    pub(super) fn of(part: u64, whole: u64) -> Self {
        Self { part, whole, at_most: false }
    }

    pub(super) fn at_most(part: u64, whole: u64) -> Self {
        Self { part, whole, at_most: part > 0 }
    }

    /// From 0 to 1.
    #[allow(clippy::cast_precision_loss)] // shown with one digit
    pub(super) fn fraction(&self) -> f64 {
        if self.whole == 0 { 0.0 } else { (self.part as f64 / self.whole as f64).min(1.0) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.whole {
            0 => f.write_str("-"),
            _ => {
                let sign = if self.at_most { "≤ " } else { "" };
                write!(f, "{sign}{:.1} %", self.fraction() * 100.0)
            }
        }
    }
}

/// `python3 (4242)`, fit for a terminal.
pub(super) struct Named(pub(super) Who, pub(super) Comm);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Who { pid, life, .. } = self.0;
        match self.1.bytes() {
            Some(name) => write!(f, "{} ({pid}", Printable(name))?,
            None => write!(f, "(pid {pid}")?,
        }
        match (life.is_shared, life.number) {
            (true, _) => f.write_str(", one of several)"),
            (false, 0) => f.write_str(")"),
            (false, number) => write!(f, ", its life {})", u64::from(number) + 1),
        }
    }
}

/// How many are known, where there may be more.
pub(super) struct AtLeast {
    pub(super) count: u64,
    pub(super) is_all: bool,
}

impl fmt::Display for AtLeast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_all, self.count) {
            (true, count) => Count(count).fmt(f),
            (false, 0) => f.write_str("-"),
            (false, count) => write!(f, "≥ {}", Count(count)),
        }
    }
}

/// How long some of `all` took: a dash where none of them tells, and a lower bound where not all do.
pub(super) struct Timed {
    pub(super) ns: u64,
    pub(super) timed: u64,
    pub(super) all: u64,
}

impl fmt::Display for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ns, timed, all } = *self;
        match timed {
            _ if timed == all => Length(ns).fmt(f),
            0 => f.write_str("-"),
            _ => write!(f, "≥ {}", Length(ns)),
        }
    }
}

/// A number, or a dash where there is none.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_with_three_digits() {
        let told = [0, 999, 1_000, 48_211, 999_999, 1_800_000_000, 59_999_999_999];
        let told = told.map(|ns| Length(ns).to_string());
        assert_eq!(told, ["0 ns", "999 ns", "1.00 µs", "48.2 µs", "999 µs", "1.80 s", "59.9 s"]);
        let told = [60, 3_599, 86_399, 90_000].map(|s| Length(s * 1_000_000_000).to_string());
        assert_eq!(told, ["1m 00s", "59m 59s", "23h 59m", "1d 01h"]);
        assert_eq!(Length(u64::MAX).to_string(), "213503d 23h");
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(|n| Count(n).to_string()),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0, 1023, 2 << 20, u64::MAX].map(|n| Bytes(n).to_string()),
            ["0 B", "1023 B", "2.0 MiB", "16383.9 PiB"]
        );
        assert_eq!([0.04, 99.94, 1234.5].map(|n| Rate(n).to_string()), ["0.0", "99.9", "1,235"]);
        assert_eq!(
            [Share::of(0, 0), Share::of(1, 8), Share::at_most(1, 8), Share::at_most(0, 8)]
                .map(|share| share.to_string()),
            ["-", "12.5 %", "≤ 12.5 %", "0.0 %"]
        );
        let timed = [(0, 0), (0, 2), (1, 2), (2, 2)];
        let timed = timed.map(|(timed, all)| Timed { ns: 60, timed, all }.to_string());
        assert_eq!(timed, ["60 ns", "-", "≥ 60 ns", "60 ns"]);
        let some = [(0, false), (3, false), (0, true)];
        let some = some.map(|(count, is_all)| AtLeast { count, is_all }.to_string());
        assert_eq!(some, ["-", "≥ 3", "0"]);
    }
}
