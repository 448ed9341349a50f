//! The GPU's hwmon device: temperatures, power, voltages, fan.
//!
//! Source: `drivers/gpu/drm/amd/pm/amdgpu_pm.c`, "hwmon". Channels are told apart by their labels; where a
//! kernel gives none, the driver's order holds.

use std::fmt;
use std::path::PathBuf;

use super::units::{Microwatts, Millidegrees, Millivolts, Percent, Rpm};
use super::{at_most, in_range};
use crate::Gpu;
use crate::machine::files;

/// The driver has no more channels of a kind than this.
const MOST_CHANNELS: u32 = 8;
/// 10 kW: no board draws that.
const MOST_MICROWATTS: u64 = 10_000_000_000;
/// What the driver writes as a fraction of a watt has 8 bits, each a thousandth.
const LEAST_MICROWATTS: u64 = 256_000;
/// A board may exceed its limit for moments, by half as a rule and never by so much.
const MOST_OVER_LIMIT: u64 = 4;
const MOST_MILLIVOLTS: u32 = 20_000;
const MOST_RPM: u32 = 100_000;

/// Where a temperature is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TemperatureSensor {
    /// The die's edge.
    Edge,
    /// The hottest place on the die, also called hotspot.
    Junction,
    /// The hottest memory.
    Memory,
    /// One HBM stack, from 0.
    Hbm(u8),
    /// The voltage regulator of the graphics core.
    VrGfx,
    /// The voltage regulator of the rest of the chip.
    VrSoc,
    /// The voltage regulator of the memory.
    VrMemory,
}

impl fmt::Display for TemperatureSensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edge => "edge",
            Self::Junction => "junction",
            Self::Memory => "memory",
            Self::Hbm(stack) => return write!(f, "hbm{stack}"),
            Self::VrGfx => "vr_gfx",
            Self::VrSoc => "vr_soc",
            Self::VrMemory => "vr_memory",
        })
    }
}

/// What of a sensor is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TemperatureMetric {
    /// Now.
    Current,
    /// Upper limit.
    Max,
    /// Lower limit.
    Min,
    /// Where an alarm of the upper limit ends.
    MaxHyst,
    /// Where an alarm of the lower limit ends.
    MinHyst,
    /// Above this the GPU slows down.
    Critical,
    /// Where it stops slowing down.
    CriticalHyst,
    /// Above this it switches itself off.
    Emergency,
    /// Where an emergency ends.
    EmergencyHyst,
    /// Below this it is too cold.
    CriticalMin,
    /// Where it is no longer too cold.
    CriticalMinHyst,
    /// What is added to the measured value.
    Offset,
    /// Lowest value since the driver was loaded.
    Lowest,
    /// Highest value since the driver was loaded.
    Highest,
}

impl TemperatureMetric {
    fn suffix(self) -> &'static str {
        match self {
            Self::Current => "input",
            Self::Max => "max",
            Self::Min => "min",
            Self::MaxHyst => "max_hyst",
            Self::MinHyst => "min_hyst",
            Self::Critical => "crit",
            Self::CriticalHyst => "crit_hyst",
            Self::Emergency => "emergency",
            Self::EmergencyHyst => "emergency_hyst",
            Self::CriticalMin => "lcrit",
            Self::CriticalMinHyst => "lcrit_hyst",
            Self::Offset => "offset",
            Self::Lowest => "lowest",
            Self::Highest => "highest",
        }
    }
}

/// One sensor and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Temperature {
    /// Where.
    pub sensor: TemperatureSensor,
    /// Now.
    pub current: Option<Millidegrees>,
    /// Above this the GPU slows down.
    pub critical: Option<Millidegrees>,
    /// Above this it switches itself off.
    pub emergency: Option<Millidegrees>,
}

/// Electric power of the whole package or board.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Power {
    /// Averaged by the firmware over about a second.
    pub average: Option<Microwatts>,
    /// At this moment.
    pub current: Option<Microwatts>,
    /// The limit in force.
    pub cap: Option<Microwatts>,
    /// The lowest limit that may be set.
    pub cap_min: Option<Microwatts>,
    /// The highest limit that may be set.
    pub cap_max: Option<Microwatts>,
    /// The limit after boot.
    pub cap_default: Option<Microwatts>,
}

/// Supply voltages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Voltages {
    /// Graphics core.
    pub gfx: Option<Millivolts>,
    /// The rest of the chip; on APUs the north bridge.
    pub soc: Option<Millivolts>,
    /// Memory.
    pub memory: Option<Millivolts>,
}

/// The board's fan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fan {
    /// Speed now; 0 when it stands still.
    pub speed: Option<Rpm>,
    /// Speed to be reached.
    pub target: Option<Rpm>,
    /// Lowest speed.
    pub min: Option<Rpm>,
    /// Highest speed.
    pub max: Option<Rpm>,
    /// Share of full drive.
    pub duty: Option<Percent>,
}

/// Celsius that a chip can have and live. Exactly 0 is what the driver says for a sensor or limit that is
/// not there.
pub(super) fn temperature(millidegrees: i64) -> Option<Millidegrees> {
    in_range(millidegrees, -50_000..=200_000).filter(|t| *t != 0).map(Millidegrees)
}

/// A limit.
fn power_limit(microwatts: u64) -> Option<Microwatts> {
    at_most(microwatts, MOST_MICROWATTS).map(Microwatts)
}

/// What something that is awake draws. 0 is what the driver says where it does not measure, as for the second die of
/// an MI250; what is below a quarter of a watt is a slip of the driver for some APUs, by a factor of 1000 or 256
/// (`renoir_ppt.c` with old firmware, `smu_v13_0_5_ppt.c`).
pub(super) fn power(microwatts: u64) -> Option<Microwatts> {
    power_limit(microwatts).filter(|power| power.0 >= LEAST_MICROWATTS)
}

pub(super) fn voltage(millivolts: u64) -> Option<Millivolts> {
    let millivolts = u32::try_from(millivolts).ok()?;
    at_most(millivolts, MOST_MILLIVOLTS).filter(|v| *v > 0).map(Millivolts)
}

impl Power {
    /// Without what no board can draw that keeps to these limits.
    pub(super) fn plausible(mut self) -> Self {
        let limits = [self.cap, self.cap_max, self.cap_default];
        if let Some(limit) = limits.into_iter().flatten().max() {
            let most = limit.0.saturating_mul(MOST_OVER_LIMIT);
            self.average = self.average.filter(|power| power.0 <= most);
            self.current = self.current.filter(|power| power.0 <= most);
        }
        self
    }
}

/// The folder `hwmon/hwmonN` of a GPU.
#[derive(Debug)]
pub(super) struct Hwmon {
    dir: PathBuf,
}

impl Hwmon {
    pub(super) fn of(gpu: &Gpu) -> Option<Self> {
        let entries = std::fs::read_dir(gpu.device_dir.join("hwmon")).ok()?;
        let is_hwmon = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"hwmon");
        let entry = entries.flatten().take(64).find(|entry| is_hwmon(&entry.file_name()))?;
        Some(Self { dir: entry.path() })
    }

    pub(super) fn temperature(
        &self,
        sensor: TemperatureSensor,
        metric: TemperatureMetric,
    ) -> Option<Millidegrees> {
        let (label, usual) = match sensor {
            TemperatureSensor::Edge => ("edge", 1),
            TemperatureSensor::Junction => ("junction", 2),
            TemperatureSensor::Memory => ("mem", 3),
            _ => return None,
        };
        let channel = self.channel("temp", label, usual)?;
        temperature(files::number(&self.dir.join(format!("temp{channel}_{}", metric.suffix())))?)
    }

    pub(super) fn power(&self) -> Power {
        let number = |suffix: &str| self.number(&format!("power1_{suffix}"));
        let limit = |suffix: &str| number(suffix).and_then(power_limit).filter(|power| power.0 > 0);
        Power {
            average: number("average").and_then(power),
            current: number("input").and_then(power),
            cap: limit("cap"),
            cap_min: number("cap_min").and_then(power_limit),
            cap_max: limit("cap_max"),
            cap_default: limit("cap_default"),
        }
    }

    pub(super) fn voltages(&self) -> Voltages {
        let read = |label, usual| {
            let channel = self.channel("in", label, usual)?;
            self.number(&format!("in{channel}_input")).and_then(voltage)
        };
        Voltages { gfx: read("vddgfx", 0), soc: read("vddnb", 1), memory: None }
    }

    pub(super) fn fan(&self) -> Fan {
        let rpm = |name| at_most(self.number(name)?, MOST_RPM).map(Rpm);
        Fan {
            speed: rpm("fan1_input"),
            target: rpm("fan1_target"),
            min: rpm("fan1_min"),
            max: rpm("fan1_max"),
            duty: self
                .number::<u32>("pwm1")
                .filter(|pwm| *pwm <= 255)
                .and_then(|pwm| u8::try_from((pwm * 100 + 127) / 255).ok().map(Percent)),
        }
    }

    /// Hertz of the clock labelled `sclk` or `mclk`.
    pub(super) fn frequency(&self, label: &str) -> Option<u64> {
        let usual = match label {
            "sclk" => 1,
            "mclk" => 2,
            _ => return None,
        };
        self.number(&format!("freq{}_input", self.channel("freq", label, usual)?))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        files::number(&self.dir.join(name))
    }

    /// The channel of `kind` with that label: as a rule the usual one, which also stands for it unlabelled.
    fn channel(&self, kind: &str, label: &str, usual: u32) -> Option<u32> {
        let label_of = |channel| files::non_empty(&self.dir.join(format!("{kind}{channel}_label")));
        if label_of(usual).is_none_or(|found| found == label) {
            return Some(usual);
        }
        (0..=MOST_CHANNELS).find(|channel| label_of(*channel).as_deref() == Some(label))
    }
}
