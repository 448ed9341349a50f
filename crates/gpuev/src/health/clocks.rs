//! Clocks: what they run at and between which limits.
//!
//! Source: `pp_dpm_*` in `drivers/gpu/drm/amd/pm/amdgpu_pm.c`: one level a line, the one in use with a star.

use std::fmt;

use super::Sensors;
use super::metrics::Field;
use super::units::Hertz;
use crate::machine::files;

/// 20 GHz: no clock of a GPU runs that fast.
const MOST_HERTZ: u64 = 20_000_000_000;

/// What a clock drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ClockDomain {
    /// Graphics and compute (`sclk`).
    Gfx,
    /// Memory (`mclk`).
    Memory,
    /// The rest of the chip (`socclk`).
    Soc,
    /// Data fabric (`fclk`).
    Fabric,
    /// Video encoding (`vclk`).
    Video,
    /// Video decoding (`dclk`).
    Decode,
}

impl ClockDomain {
    pub(super) const ALL: [Self; 6] =
        [Self::Gfx, Self::Memory, Self::Soc, Self::Fabric, Self::Video, Self::Decode];

    /// The driver's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gfx => "sclk",
            Self::Memory => "mclk",
            Self::Soc => "socclk",
            Self::Fabric => "fclk",
            Self::Video => "vclk",
            Self::Decode => "dclk",
        }
    }

    fn field(self) -> Field {
        match self {
            Self::Gfx => Field::ClockGfx,
            Self::Memory => Field::ClockMemory,
            Self::Soc => Field::ClockSoc,
            Self::Fabric => Field::ClockFabric,
            Self::Video => Field::ClockVideo,
            Self::Decode => Field::ClockDecode,
        }
    }
}

impl fmt::Display for ClockDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One clock and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Clock {
    /// Which one.
    pub domain: ClockDomain,
    /// Now. Of several clocks of a kind (one per XCC) the fastest.
    pub current: Option<Hertz>,
    /// Lowest level.
    pub min: Option<Hertz>,
    /// Highest level.
    pub max: Option<Hertz>,
}

impl Sensors<'_> {
    /// The clock of `domain`; `None` where the GPU does not tell of it.
    #[must_use]
    pub fn clock(&self, domain: ClockDomain) -> Option<Clock> {
        let path = self.awake()?.device_dir.join(format!("pp_dpm_{domain}"));
        let levels = Levels::parse(&files::text(&path).unwrap_or_default());
        let measured = self.hwmon().and_then(|hwmon| hwmon.frequency(domain.as_str()));
        let current = measured.and_then(hertz).or(levels.current).or_else(|| {
            let fastest = self.metrics()?.all(domain.field()).max()?;
            hertz(fastest.checked_mul(1_000_000)?)
        });
        let clock = Clock { domain, current, min: levels.min, max: levels.max };
        (current.is_some() || levels.max.is_some()).then_some(clock)
    }
}

#[derive(Default)]
struct Levels {
    current: Option<Hertz>,
    min: Option<Hertz>,
    max: Option<Hertz>,
}

impl Levels {
    /// `0: 500Mhz`, `1: 1700Mhz *`; `S: 19Mhz *` is deep sleep, which is below the lowest level.
    fn parse(text: &str) -> Self {
        let mut levels = Self::default();
        for line in text.lines() {
            let Some((level, rest)) = line.split_once(':') else { continue };
            let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next();
            let Some(found) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
                continue;
            };
            let Some(found) = found.checked_mul(1_000_000).and_then(hertz) else { continue };
            if rest.trim_end().ends_with('*') {
                levels.current = Some(found);
            }
            if level.trim() != "S" {
                levels.min = Some(levels.min.map_or(found, |min| min.min(found)));
                levels.max = levels.max.max(Some(found));
            }
        }
        levels
    }
}

fn hertz(hertz: u64) -> Option<Hertz> {
    super::at_most(hertz, MOST_HERTZ).map(Hertz)
}
