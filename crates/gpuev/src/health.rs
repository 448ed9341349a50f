//! How a GPU is doing: temperature, power, activity, memory, clocks, errors.
//!
//! Everything comes from the GPU's folder in sysfs. What the GPU does not tell, or tells in a way that
//! cannot be true (a temperature of 65535 °C), is `None`: "not available". Nothing here fails, waits or
//! wakes a GPU that has gone to sleep.

mod clocks;
mod hwmon;
mod metrics;
mod pages;
mod ras;
mod table;
mod units;

use std::cell::OnceCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::machine::{chips, files};
use crate::{GfxTarget, Gpu};
use hwmon::Hwmon;
use metrics::{Field, GpuMetrics};

pub use clocks::{Clock, ClockDomain};
pub use hwmon::{Fan, Power, Temperature, TemperatureMetric, TemperatureSensor, Voltages};
pub use pages::{BadPage, BadPageStatus};
pub use ras::{BadPages, RasErrors};
pub use table::{MetricsField, MetricsTable};
pub use units::{
    Bytes, Hertz, Megatransfers, Microjoules, Microwatts, Millidegrees, Millivolts, Percent, Rpm,
};

const VAN_GOGH: GfxTarget = GfxTarget(100_303);
/// `NUM_XCP`.
const MOST_PARTITIONS: u32 = 8;
/// The largest table known has 3872 bytes.
const METRICS_LIMIT: usize = 16 << 10;
/// 4 TiB of VRAM; GTT may be as large as the host's memory.
const MOST_BYTES: u64 = 1 << 46;

/// Everything at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The GPU sleeps to save power. Asking it would wake it, so only its memory is known.
    pub suspended: bool,
    /// The sensors that it has.
    pub temperatures: Vec<Temperature>,
    /// Electric power.
    pub power: Power,
    /// Energy since the driver was loaded; MI300 and later.
    pub energy: Option<Microjoules>,
    /// Supply voltages.
    pub voltages: Voltages,
    /// How busy it is.
    pub activity: Activity,
    /// Memory.
    pub memory: Memory,
    /// The clocks that it has.
    pub clocks: Vec<Clock>,
    /// The board's fan.
    pub fan: Fan,
    /// Its PCI Express link.
    pub pcie: PcieLink,
    /// Whether and why it runs slower than it could.
    pub throttling: Throttling,
    /// Counted errors, by block.
    pub ras: Vec<RasErrors>,
    /// Pages of VRAM that went bad.
    pub bad_pages: Option<BadPages>,
    /// Of a partition: how the whole GPU is doing. The partition's own is what stands beside it; what can only be
    /// known of the whole GPU (temperature, power, used memory, errors) is only here.
    pub whole_gpu: Option<Box<Health>>,
}

impl Health {
    /// How the whole GPU is doing: this, or of a partition what is known of its GPU.
    #[must_use]
    pub fn of_gpu(&self) -> &Self {
        self.whole_gpu.as_deref().unwrap_or(self)
    }

    /// What `sensor` measures now.
    #[must_use]
    pub fn temperature(&self, sensor: TemperatureSensor) -> Option<Millidegrees> {
        self.temperatures.iter().find(|found| found.sensor == sensor)?.current
    }
}

/// How busy the parts of a GPU are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// Graphics and compute; of a partition where the GPU is partitioned.
    pub gfx: Option<Percent>,
    /// Memory controller, of the whole GPU.
    pub memory: Option<Percent>,
    /// The busiest video engine.
    pub media: Option<Percent>,
}

/// How much of a memory there is, and how much is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All of it.
    pub total: Option<Bytes>,
    /// What is used.
    pub used: Option<Bytes>,
}

/// Memory of a GPU, or of one partition of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The GPU's own, or the partition's share of it; of an APU what is carved out of the host's for it.
    pub vram: Usage,
    /// The part of VRAM that the CPU can reach.
    pub visible_vram: Usage,
    /// The host's memory that the GPU can reach.
    pub gtt: Usage,
    /// What programs have for the GPU: VRAM, and for an APU, whose GTT is no slower, both.
    pub usable: Usage,
}

impl Usage {
    /// Both together; unknown where one of them is.
    fn with(self, other: Self) -> Self {
        let sum = |a: Option<Bytes>, b: Option<Bytes>| Some(Bytes(a?.0.checked_add(b?.0)?));
        Self { total: sum(self.total, other.total), used: sum(self.used, other.used) }
    }
}

/// The PCI Express link of a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PcieLink {
    /// Transfers a second and lane, now.
    pub speed: Option<Megatransfers>,
    /// Lanes, now.
    pub width: Option<u8>,
    /// The fastest that both ends can.
    pub max_speed: Option<Megatransfers>,
    /// The most lanes that both ends have.
    pub max_width: Option<u8>,
    /// Packets that had to be sent again since the driver was loaded.
    pub replays: Option<u64>,
}

/// Whether and why a GPU runs slower than it could.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Throttling {
    /// `SMU_THROTTLER_*` bits, as in `THERMAL_THROTTLE` events; [`crate::names::throttlers`] names them.
    pub status: Option<u64>,
    /// The firmware's own bits, whose meaning depends on the chip.
    pub chip_status: Option<u32>,
    /// How long it was throttled, by reason; MI300 and later.
    pub residency: Option<ThrottleResidency>,
}

/// Counters of the firmware's ticks, which grow while a reason for throttling holds. The difference of two
/// samples, divided by that of `ticks`, is the share of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThrottleResidency {
    /// All ticks.
    pub ticks: u64,
    /// The board asked for it.
    pub prochot: Option<u64>,
    /// Package power.
    pub power: Option<u64>,
    /// Temperature of the package.
    pub socket_thermal: Option<u64>,
    /// Temperature of voltage regulators.
    pub regulator_thermal: Option<u64>,
    /// Temperature of HBM.
    pub memory_thermal: Option<u64>,
}

/// Whether the driver tells of thermal throttling (`thermal_throttling_logging`): without it there are no
/// `THERMAL_THROTTLE` events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottlingLog {
    /// Whether it does.
    pub enabled: bool,
    /// At most one message in this time; 0 where it is off.
    pub interval: Duration,
}

impl Gpu {
    /// How the GPU is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        Sensors::of(self).health()
    }
}

/// One look at a GPU. A file that tells several things is read once, so take a new look for each sample.
#[derive(Debug)]
pub struct Sensors<'a> {
    gpu: &'a Gpu,
    awake: OnceCell<bool>,
    hwmon: OnceCell<Option<Hwmon>>,
    metrics: OnceCell<Option<GpuMetrics>>,
}

impl<'a> Sensors<'a> {
    /// A look at `gpu`; nothing is read yet.
    #[must_use]
    pub fn of(gpu: &'a Gpu) -> Self {
        Self { gpu, awake: OnceCell::new(), hwmon: OnceCell::new(), metrics: OnceCell::new() }
    }

    /// Everything: of a partition its own, and beside it that of the whole GPU.
    #[must_use]
    pub fn health(&self) -> Health {
        if !self.gpu.is_partition() {
            return self.gpu_health();
        }
        Health {
            suspended: self.suspended(),
            activity: self.activity(),
            memory: self.memory(),
            whole_gpu: Some(Box::new(self.gpu_health())),
            ..Health::default()
        }
    }

    /// How the whole GPU is doing.
    fn gpu_health(&self) -> Health {
        Health {
            suspended: self.suspended(),
            temperatures: self.temperatures(),
            power: self.power(),
            energy: self.energy(),
            voltages: self.voltages(),
            activity: self.gpu_activity(),
            memory: self.gpu_memory(),
            clocks: ClockDomain::ALL.into_iter().filter_map(|domain| self.clock(domain)).collect(),
            fan: self.fan(),
            pcie: self.pcie(),
            throttling: self.throttling(),
            ras: self.ras(),
            bad_pages: self.bad_pages(),
            whole_gpu: None,
        }
    }

    /// Whether the GPU sleeps (`power/runtime_status`).
    #[must_use]
    pub fn suspended(&self) -> bool {
        !self.awake.get_or_init(|| {
            let status = files::text(&self.gpu.device_dir.join("power/runtime_status"));
            status.map_or(true, |status| !status.starts_with("suspend"))
        })
    }

    /// One value of one sensor.
    #[must_use]
    pub fn temperature(
        &self,
        sensor: TemperatureSensor,
        metric: TemperatureMetric,
    ) -> Option<Millidegrees> {
        let by_hwmon = self.hwmon().and_then(|hwmon| hwmon.temperature(sensor, metric));
        if by_hwmon.is_some() || metric != TemperatureMetric::Current {
            return by_hwmon;
        }
        let (field, index) = match sensor {
            TemperatureSensor::Edge => (Field::TemperatureEdge, 0),
            TemperatureSensor::Junction => (Field::TemperatureJunction, 0),
            TemperatureSensor::Memory => (Field::TemperatureMemory, 0),
            TemperatureSensor::VrGfx => (Field::TemperatureVrGfx, 0),
            TemperatureSensor::VrSoc => (Field::TemperatureVrSoc, 0),
            TemperatureSensor::VrMemory => (Field::TemperatureVrMemory, 0),
            TemperatureSensor::Hbm(stack) => (Field::TemperatureHbm, usize::from(stack)),
        };
        let celsius = self.metrics()?.nth(field, index)?;
        hwmon::temperature(i64::try_from(celsius).ok()?.checked_mul(1000)?)
    }

    /// All sensors that measure something.
    #[must_use]
    pub fn temperatures(&self) -> Vec<Temperature> {
        use TemperatureSensor::{Edge, Hbm, Junction, Memory, VrGfx, VrMemory, VrSoc};
        let sensors =
            [Edge, Junction, Memory, Hbm(0), Hbm(1), Hbm(2), Hbm(3), VrGfx, VrSoc, VrMemory];
        let look = |sensor| {
            let read = |metric| self.temperature(sensor, metric);
            let found = Temperature {
                sensor,
                current: read(TemperatureMetric::Current),
                critical: read(TemperatureMetric::Critical),
                emergency: read(TemperatureMetric::Emergency),
            };
            found.current.is_some().then_some(found)
        };
        sensors.into_iter().filter_map(look).collect()
    }

    /// Electric power of the whole GPU.
    #[must_use]
    pub fn power(&self) -> Power {
        let mut power = self.hwmon().map(Hwmon::power).unwrap_or_default().plausible();
        if power.average.is_none() && power.current.is_none() {
            let read = |field| hwmon::power(self.metrics()?.get(field)?.checked_mul(1_000_000)?);
            power.average = read(Field::AveragePower);
            power.current = read(Field::CurrentPower);
        }
        power.plausible()
    }

    /// Energy since the driver was loaded. The firmware counts in 2^-16 joule.
    #[must_use]
    pub fn energy(&self) -> Option<Microjoules> {
        // 0 is what is told where nothing counts.
        let counted = self.metrics()?.get(Field::Energy).filter(|counted| *counted > 0)?;
        u64::try_from((u128::from(counted) * 1_000_000) >> 16).ok().map(Microjoules)
    }

    /// Supply voltages.
    #[must_use]
    pub fn voltages(&self) -> Voltages {
        let found = self.hwmon().map(Hwmon::voltages).unwrap_or_default();
        let read = |field| hwmon::voltage(self.metrics()?.get(field)?);
        Voltages {
            gfx: found.gfx.or_else(|| read(Field::VoltageGfx)),
            soc: found.soc.or_else(|| read(Field::VoltageSoc)),
            memory: found.memory.or_else(|| read(Field::VoltageMemory)),
        }
    }

    /// How busy the GPU, or this partition of it, is.
    #[must_use]
    pub fn activity(&self) -> Activity {
        if self.gpu.is_partition() {
            let (gfx, media) = (self.partition_gfx(), self.partition_media());
            return Activity { gfx, memory: None, media };
        }
        self.gpu_activity()
    }

    fn gpu_activity(&self) -> Activity {
        Activity {
            gfx: self.busy("gpu_busy_percent").or_else(|| self.busiest(Field::ActivityGfx)),
            memory: self.busy("mem_busy_percent").or_else(|| self.busiest(Field::ActivityMemory)),
            media: self.busy("vcn_busy_percent").or_else(|| self.media()),
        }
    }

    /// Memory of the GPU, or of this partition of it: how much of that is used the driver does not say.
    #[must_use]
    pub fn memory(&self) -> Memory {
        if self.gpu.is_partition() {
            let vram = Usage { total: self.gpu.local_memory, used: None };
            return Memory { vram, usable: vram, ..Memory::default() };
        }
        self.gpu_memory()
    }

    /// Memory of the whole GPU.
    fn gpu_memory(&self) -> Memory {
        let usage = |name| {
            let read = |what| {
                let path = self.gpu.device_dir.join(format!("mem_info_{name}_{what}"));
                at_most(files::number(&path)?, MOST_BYTES)
            };
            let total = read("total").filter(|total| *total > 0);
            let used = read("used").filter(|used| total.is_none_or(|total| *used <= total));
            Usage { total: total.map(Bytes), used: used.map(Bytes) }
        };
        let (vram, gtt) = (usage("vram"), usage("gtt"));
        // Nothing is carved out for MI300A: all memory of the package is its VRAM.
        let borrows = self.gpu.apu && !self.gpu.gfx_target.is_some_and(chips::is_mi300);
        let usable = if borrows { vram.with(gtt) } else { vram };
        Memory { vram, visible_vram: usage("vis_vram"), gtt, usable }
    }

    /// The board's fan.
    #[must_use]
    pub fn fan(&self) -> Fan {
        self.hwmon().map(Hwmon::fan).unwrap_or_default()
    }

    /// The PCI Express link.
    #[must_use]
    pub fn pcie(&self) -> PcieLink {
        let Some(gpu) = self.awake() else { return PcieLink::default() };
        let speed = |name| transfers(&files::text(&gpu.device_dir.join(name)).ok()?);
        let width =
            |name| files::number(&gpu.device_dir.join(name)).filter(|w| (1..=32).contains(w));
        let metric = |field| self.metrics()?.get(field);
        PcieLink {
            speed: speed("current_link_speed").or_else(|| {
                u32::try_from(metric(Field::PcieSpeed)?.checked_mul(100)?)
                    .ok()
                    .and_then(plausible_speed)
            }),
            width: width("current_link_width").or_else(|| {
                u8::try_from(metric(Field::PcieWidth)?).ok().filter(|w| (1..=32).contains(w))
            }),
            max_speed: speed("max_link_speed"),
            max_width: width("max_link_width"),
            replays: files::number(&gpu.device_dir.join("pcie_replay_count"))
                .or_else(|| metric(Field::PcieReplays)),
        }
    }

    /// Whether and why it is throttled now.
    #[must_use]
    pub fn throttling(&self) -> Throttling {
        let Some(metrics) = self.metrics() else { return Throttling::default() };
        let get = |field| metrics.get(field);
        Throttling {
            status: get(Field::IndependentThrottleStatus),
            chip_status: get(Field::ThrottleStatus).and_then(|bits| u32::try_from(bits).ok()),
            residency: get(Field::AccumulationCounter).map(|ticks| ThrottleResidency {
                ticks,
                prochot: get(Field::ResidencyProchot),
                power: get(Field::ResidencyPpt),
                socket_thermal: get(Field::ResidencySocketThermal),
                regulator_thermal: get(Field::ResidencyVrThermal),
                memory_thermal: get(Field::ResidencyHbmThermal),
            }),
        }
    }

    /// Whether the driver tells of thermal throttling; `None` where it does not know of such a setting.
    /// The text is `0000:03:00.0: thermal throttling logging enabled, with interval 60 seconds`.
    #[must_use]
    pub fn throttling_log(&self) -> Option<ThrottlingLog> {
        let text = files::text(&self.gpu.device_dir.join("thermal_throttling_logging")).ok()?;
        let after = |mark: &str| text.split_once(mark).map(|(_, rest)| rest);
        if after("logging enabled").is_some() {
            let seconds = after("interval ").and_then(|rest| rest.split(' ').next()?.parse().ok());
            let interval = Duration::from_secs(seconds.unwrap_or(0));
            return Some(ThrottlingLog { enabled: true, interval });
        }
        let off = ThrottlingLog { enabled: false, interval: Duration::ZERO };
        after("logging disabled").map(|_| off)
    }

    /// Counted errors, by block; empty where the GPU does not count.
    #[must_use]
    pub fn ras(&self) -> Vec<RasErrors> {
        self.awake().map(|gpu| ras::errors(&gpu.device_dir)).unwrap_or_default()
    }

    /// Counted errors of one block (`umc`, `gfx`, ...); `None` where the GPU does not count them.
    #[must_use]
    pub fn ras_of(&self, block: &str) -> Option<RasErrors> {
        ras::errors_of(&self.awake()?.device_dir, block)
    }

    /// Pages of VRAM that went bad; `None` where the GPU does not keep a list.
    #[must_use]
    pub fn bad_pages(&self) -> Option<BadPages> {
        ras::bad_pages(&self.gpu.device_dir)
    }

    /// Those pages one by one.
    #[must_use]
    pub fn bad_page_list(&self) -> Option<Vec<BadPage>> {
        pages::list(&self.gpu.device_dir)
    }

    /// The driver's table `gpu_metrics` as it is; `None` where the GPU has none, or sleeps.
    #[must_use]
    pub fn metrics_table(&self) -> Option<MetricsTable> {
        let path = self.awake()?.device_dir.join("gpu_metrics");
        MetricsTable::parse(&files::read(&path, METRICS_LIMIT).ok()?)
    }

    /// The text of an attribute of the GPU's folder that says what it is, not how it is doing: such a one
    /// wakes no GPU.
    #[must_use]
    pub fn fixed_attribute(&self, name: &str) -> Option<String> {
        files::non_empty(&self.gpu.device_dir.join(name))
    }

    /// The text of an attribute of the GPU's folder; `None` also while the GPU sleeps.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<String> {
        files::non_empty(&self.awake()?.device_dir.join(name))
    }

    fn awake(&self) -> Option<&'a Gpu> {
        (!self.suspended()).then_some(self.gpu)
    }

    fn hwmon(&self) -> Option<&Hwmon> {
        self.hwmon.get_or_init(|| Hwmon::of(self.awake()?)).as_ref()
    }

    fn metrics(&self) -> Option<&GpuMetrics> {
        let read = || {
            let path = self.awake()?.device_dir.join("gpu_metrics");
            GpuMetrics::parse(&files::read(&path, METRICS_LIMIT).ok()?)
        };
        self.metrics.get_or_init(read).as_ref()
    }

    fn busy(&self, file: &str) -> Option<Percent> {
        percent(files::number(&self.awake()?.device_dir.join(file))?)
    }

    fn busiest(&self, field: Field) -> Option<Percent> {
        let metrics = self.metrics()?;
        // Van Gogh has whole percents with some firmware and hundredths with other.
        let may_be_either = self.gpu.gfx_target == Some(VAN_GOGH);
        let busy = metrics.all(field).filter_map(|busy| metrics.percent(busy, may_be_either));
        busy.filter_map(percent).max()
    }

    /// What the partition's own table has of `field`, else what the GPU's has of the partition.
    fn of_partition(&self, field: Field) -> Vec<u64> {
        let own = || {
            let path = self.awake()?.partition_dir.as_ref()?.join("xcp/xcp_metrics");
            let table = GpuMetrics::parse_partition(&files::read(&path, METRICS_LIMIT).ok()?)?;
            Some(table.all(field).collect::<Vec<_>>()).filter(|values| !values.is_empty())
        };
        own().unwrap_or_else(|| {
            let partition = self.gpu.id.partition;
            self.metrics().map_or_else(Vec::new, |m| m.of_partition(partition, field).collect())
        })
    }

    /// The mean of the partition's XCCs.
    fn partition_gfx(&self) -> Option<Percent> {
        let busy = self.of_partition(Field::PartitionGfx).into_iter().filter(|busy| *busy <= 100);
        let (count, sum) = busy.fold((0_u64, 0), |(count, sum), busy| (count + 1, sum + busy));
        percent(sum.checked_div(count)?)
    }

    fn partition_media(&self) -> Option<Percent> {
        self.of_partition(Field::PartitionMedia).into_iter().filter_map(percent).max()
    }

    /// The busiest video engine; newer tables have them by partition only.
    fn media(&self) -> Option<Percent> {
        let of_partitions = || {
            let metrics = self.metrics()?;
            let all =
                (0..MOST_PARTITIONS).flat_map(|p| metrics.of_partition(p, Field::PartitionMedia));
            all.filter_map(percent).max()
        };
        self.busiest(Field::ActivityMedia).or_else(of_partitions)
    }
}

/// `16.0 GT/s PCIe`.
fn transfers(text: &str) -> Option<Megatransfers> {
    let number = text.split(' ').next()?;
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u32 = whole.parse().ok()?;
    let tenths: u32 = tenths.get(..1)?.parse().ok()?;
    plausible_speed(whole.checked_mul(1000)?.checked_add(tenths * 100)?)
}

fn plausible_speed(megatransfers: u32) -> Option<Megatransfers> {
    (1..=1_000_000).contains(&megatransfers).then_some(Megatransfers(megatransfers))
}

fn percent(number: u64) -> Option<Percent> {
    u8::try_from(number).ok().filter(|percent| *percent <= 100).map(Percent)
}

fn at_most<T: PartialOrd + Copy>(number: T, most: T) -> Option<T> {
    (number <= most).then_some(number)
}

fn in_range(number: i64, range: RangeInclusive<i32>) -> Option<i32> {
    i32::try_from(number).ok().filter(|number| range.contains(number))
}
