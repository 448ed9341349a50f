//! The driver's binary table `gpu_metrics`, whose layout its header names.
//!
//! Source: `drivers/gpu/drm/amd/include/kgd_pp_interface.h`. Revisions 1.0 to 1.8 (GPUs), 2.0 to 2.4 and
//! 3.0 (APUs) are C structures in natural alignment; 1.9 describes itself. A field of all ones has no value.
//! A table whose size is not that of its revision is not believed.

/// What a number in the table means. Units are those of the revision; [`GpuMetrics`] evens them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    TemperatureEdge,
    TemperatureJunction,
    TemperatureMemory,
    TemperatureVrGfx,
    TemperatureVrSoc,
    TemperatureVrMemory,
    TemperatureHbm,
    ActivityGfx,
    ActivityMemory,
    ActivityMedia,
    AveragePower,
    CurrentPower,
    Energy,
    ClockGfx,
    ClockSoc,
    ClockMemory,
    ClockFabric,
    ClockVideo,
    ClockDecode,
    ThrottleStatus,
    IndependentThrottleStatus,
    VoltageSoc,
    VoltageGfx,
    VoltageMemory,
    PcieWidth,
    PcieSpeed,
    PcieReplays,
    AccumulationCounter,
    ResidencyProchot,
    ResidencyPpt,
    ResidencySocketThermal,
    ResidencyVrThermal,
    ResidencyHbmThermal,
    /// Per XCC of one partition.
    PartitionGfx,
    /// Per VCN of one partition.
    PartitionMedia,
}

use Field as F;

/// Where a field is: offset, bytes of one number, how many numbers.
struct Slot(Field, usize, usize, usize);

/// Statistics per partition at the table's end: where they begin and where in each the VCNs are.
struct Partitions {
    offset: usize,
    media: usize,
}

struct Layout {
    revision: (u8, u8),
    sizes: &'static [usize],
    slots: &'static [&'static [Slot]],
    partitions: Option<Partitions>,
}

const LAYOUTS: [Layout; 15] = [
    layout((1, 0), &[80], &[DISCRETE_1_0]),
    layout((1, 1), &[96], &[DISCRETE]),
    layout((1, 2), &[104], &[DISCRETE]),
    layout((1, 3), &[120], &[DISCRETE, DISCRETE_1_3]),
    layout((1, 4), &[288], &[ACCELERATOR, ACCELERATOR_1_4]),
    layout((1, 5), &[360], &[ACCELERATOR, ACCELERATOR_1_5]),
    Layout {
        partitions: Some(Partitions { offset: 312, media: 96 }),
        ..layout((1, 6), &[1664], &[ACCELERATOR, ACCELERATOR_1_6])
    },
    Layout {
        partitions: Some(Partitions { offset: 344, media: 96 }),
        ..layout((1, 7), &[2208], &[ACCELERATOR, ACCELERATOR_1_7])
    },
    // The out-of-tree driver counts one thing more per partition than Linux.
    Layout {
        partitions: Some(Partitions { offset: 344, media: 112 }),
        ..layout((1, 8), &[3360, 3872], &[ACCELERATOR, ACCELERATOR_1_7])
    },
    layout((2, 0), &[120], &[APU_2_0]),
    layout((2, 1), &[120], &[APU]),
    layout((2, 2), &[128], &[APU, APU_2_2]),
    layout((2, 3), &[152], &[APU, APU_2_2]),
    layout((2, 4), &[168], &[APU, APU_2_2, APU_2_4]),
    layout((3, 0), &[264], &[APU_3_0]),
];

const fn layout(
    revision: (u8, u8),
    sizes: &'static [usize],
    slots: &'static [&'static [Slot]],
) -> Layout {
    Layout { revision, sizes, slots, partitions: None }
}

/// Of the first kernels with such a table (5.9 to 5.11).
const DISCRETE_1_0: &[Slot] = &[
    Slot(F::TemperatureEdge, 16, 2, 1),
    Slot(F::TemperatureJunction, 18, 2, 1),
    Slot(F::TemperatureMemory, 20, 2, 1),
    Slot(F::TemperatureVrGfx, 22, 2, 1),
    Slot(F::TemperatureVrSoc, 24, 2, 1),
    Slot(F::TemperatureVrMemory, 26, 2, 1),
    Slot(F::ActivityGfx, 28, 2, 1),
    Slot(F::ActivityMemory, 30, 2, 1),
    Slot(F::ActivityMedia, 32, 2, 1),
    Slot(F::AveragePower, 34, 2, 1),
    Slot(F::ClockGfx, 54, 2, 1),
    Slot(F::ClockSoc, 56, 2, 1),
    Slot(F::ClockMemory, 58, 2, 1),
    Slot(F::ClockVideo, 60, 2, 1),
    Slot(F::ClockDecode, 62, 2, 1),
    Slot(F::ThrottleStatus, 68, 4, 1),
    Slot(F::PcieWidth, 74, 1, 1),
    Slot(F::PcieSpeed, 75, 1, 1),
];

const DISCRETE: &[Slot] = &[
    Slot(F::TemperatureEdge, 4, 2, 1),
    Slot(F::TemperatureJunction, 6, 2, 1),
    Slot(F::TemperatureMemory, 8, 2, 1),
    Slot(F::TemperatureVrGfx, 10, 2, 1),
    Slot(F::TemperatureVrSoc, 12, 2, 1),
    Slot(F::TemperatureVrMemory, 14, 2, 1),
    Slot(F::ActivityGfx, 16, 2, 1),
    Slot(F::ActivityMemory, 18, 2, 1),
    Slot(F::ActivityMedia, 20, 2, 1),
    Slot(F::AveragePower, 22, 2, 1),
    Slot(F::ClockGfx, 54, 2, 1),
    Slot(F::ClockSoc, 56, 2, 1),
    Slot(F::ClockMemory, 58, 2, 1),
    Slot(F::ClockVideo, 60, 2, 1),
    Slot(F::ClockDecode, 62, 2, 1),
    Slot(F::ThrottleStatus, 68, 4, 1),
    Slot(F::PcieWidth, 74, 2, 1),
    Slot(F::PcieSpeed, 76, 2, 1),
    Slot(F::TemperatureHbm, 88, 2, 4),
];

const DISCRETE_1_3: &[Slot] = &[
    Slot(F::VoltageSoc, 104, 2, 1),
    Slot(F::VoltageGfx, 106, 2, 1),
    Slot(F::VoltageMemory, 108, 2, 1),
    Slot(F::IndependentThrottleStatus, 112, 8, 1),
];

/// The MI300 family, of which only the beginning is the same in all revisions.
const ACCELERATOR: &[Slot] = &[
    Slot(F::TemperatureJunction, 4, 2, 1),
    Slot(F::TemperatureMemory, 6, 2, 1),
    Slot(F::TemperatureVrSoc, 8, 2, 1),
    Slot(F::CurrentPower, 10, 2, 1),
    Slot(F::ActivityGfx, 12, 2, 1),
    Slot(F::ActivityMemory, 14, 2, 1),
];

const ACCELERATOR_1_4: &[Slot] = &[
    Slot(F::ActivityMedia, 16, 2, 4),
    Slot(F::Energy, 24, 8, 1),
    Slot(F::ThrottleStatus, 40, 4, 1),
    Slot(F::PcieWidth, 48, 2, 1),
    Slot(F::PcieSpeed, 50, 2, 1),
    Slot(F::PcieReplays, 88, 8, 1),
    Slot(F::ClockGfx, 240, 2, 8),
    Slot(F::ClockSoc, 256, 2, 4),
    Slot(F::ClockVideo, 264, 2, 4),
    Slot(F::ClockDecode, 272, 2, 4),
    Slot(F::ClockMemory, 280, 2, 1),
];

const ACCELERATOR_1_5: &[Slot] = &[
    Slot(F::ActivityMedia, 16, 2, 4),
    Slot(F::Energy, 88, 8, 1),
    Slot(F::ThrottleStatus, 104, 4, 1),
    Slot(F::PcieWidth, 112, 2, 1),
    Slot(F::PcieSpeed, 114, 2, 1),
    Slot(F::PcieReplays, 152, 8, 1),
    Slot(F::ClockGfx, 312, 2, 8),
    Slot(F::ClockSoc, 328, 2, 4),
    Slot(F::ClockVideo, 336, 2, 4),
    Slot(F::ClockDecode, 344, 2, 4),
    Slot(F::ClockMemory, 352, 2, 1),
];

const ACCELERATOR_1_6: &[Slot] = &[
    Slot(F::Energy, 16, 8, 1),
    Slot(F::AccumulationCounter, 32, 4, 1),
    Slot(F::ResidencyProchot, 36, 4, 1),
    Slot(F::ResidencyPpt, 40, 4, 1),
    Slot(F::ResidencySocketThermal, 44, 4, 1),
    Slot(F::ResidencyVrThermal, 48, 4, 1),
    Slot(F::ResidencyHbmThermal, 52, 4, 1),
    Slot(F::PcieWidth, 60, 2, 1),
    Slot(F::PcieSpeed, 62, 2, 1),
    Slot(F::PcieReplays, 104, 8, 1),
    Slot(F::ClockGfx, 264, 2, 8),
    Slot(F::ClockSoc, 280, 2, 4),
    Slot(F::ClockVideo, 288, 2, 4),
    Slot(F::ClockDecode, 296, 2, 4),
    Slot(F::ClockMemory, 304, 2, 1),
];

const ACCELERATOR_1_7: &[Slot] = &[
    Slot(F::Energy, 24, 8, 1),
    Slot(F::AccumulationCounter, 40, 4, 1),
    Slot(F::ResidencyProchot, 44, 4, 1),
    Slot(F::ResidencyPpt, 48, 4, 1),
    Slot(F::ResidencySocketThermal, 52, 4, 1),
    Slot(F::ResidencyVrThermal, 56, 4, 1),
    Slot(F::ResidencyHbmThermal, 60, 4, 1),
    Slot(F::PcieWidth, 68, 2, 1),
    Slot(F::PcieSpeed, 70, 2, 1),
    Slot(F::PcieReplays, 112, 8, 1),
    Slot(F::ClockGfx, 296, 2, 8),
    Slot(F::ClockSoc, 312, 2, 4),
    Slot(F::ClockVideo, 320, 2, 4),
    Slot(F::ClockDecode, 328, 2, 4),
    Slot(F::ClockMemory, 336, 2, 1),
];

/// Temperatures and power of 2.x are left out: which unit they have depends on the APU, and hwmon has them.
const APU: &[Slot] = &[
    Slot(F::ActivityGfx, 28, 2, 1),
    Slot(F::ActivityMedia, 30, 2, 1),
    Slot(F::ClockGfx, 76, 2, 1),
    Slot(F::ClockSoc, 78, 2, 1),
    Slot(F::ClockMemory, 80, 2, 1),
    Slot(F::ClockFabric, 82, 2, 1),
    Slot(F::ClockVideo, 84, 2, 1),
    Slot(F::ClockDecode, 86, 2, 1),
    Slot(F::ThrottleStatus, 108, 4, 1),
];

const APU_2_0: &[Slot] = &[
    Slot(F::ActivityGfx, 40, 2, 1),
    Slot(F::ActivityMedia, 42, 2, 1),
    Slot(F::ClockGfx, 80, 2, 1),
    Slot(F::ClockSoc, 82, 2, 1),
    Slot(F::ClockMemory, 84, 2, 1),
    Slot(F::ClockFabric, 86, 2, 1),
    Slot(F::ClockVideo, 88, 2, 1),
    Slot(F::ClockDecode, 90, 2, 1),
    Slot(F::ThrottleStatus, 112, 4, 1),
];

const APU_2_2: &[Slot] = &[Slot(F::IndependentThrottleStatus, 120, 8, 1)];

const APU_2_4: &[Slot] = &[Slot(F::VoltageSoc, 154, 2, 1), Slot(F::VoltageGfx, 156, 2, 1)];

const APU_3_0: &[Slot] = &[
    Slot(F::ActivityGfx, 42, 2, 1),
    Slot(F::ActivityMedia, 44, 2, 1),
    Slot(F::ClockGfx, 174, 2, 1),
    Slot(F::ClockSoc, 176, 2, 1),
    Slot(F::ClockFabric, 182, 2, 1),
    Slot(F::ClockVideo, 184, 2, 1),
    Slot(F::ClockMemory, 186, 2, 1),
];

/// `AMDGPU_METRICS_ATTR_ID_*` of revision 1.9, as far as it is of use here.
const ATTRIBUTES: [(u64, Field); 24] = [
    (0, F::TemperatureJunction),
    (1, F::TemperatureMemory),
    (2, F::TemperatureVrSoc),
    (3, F::CurrentPower),
    (4, F::ActivityGfx),
    (5, F::ActivityMemory),
    (7, F::Energy),
    (9, F::AccumulationCounter),
    (10, F::ResidencyProchot),
    (11, F::ResidencyPpt),
    (12, F::ResidencySocketThermal),
    (13, F::ResidencyVrThermal),
    (14, F::ResidencyHbmThermal),
    (16, F::PcieWidth),
    (17, F::PcieSpeed),
    (25, F::PcieReplays),
    (33, F::ClockGfx),
    (34, F::ClockSoc),
    (35, F::ClockVideo),
    (36, F::ClockDecode),
    (37, F::ClockMemory),
    (40, F::PartitionGfx),
    (42, F::ActivityMedia),
    (48, F::TemperatureHbm),
];

/// `AMDGPU_METRICS_UNIT_SPEED_1`: whole GT/s, where all other revisions count tenths.
const UNIT_GIGATRANSFERS: u64 = 6;

/// More attributes than a page could hold.
const MOST_ATTRIBUTES: u32 = 512;

/// The numbers of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GpuMetrics {
    revision: (u8, u8),
    values: Vec<Value>,
    partitions: Vec<Vec<Value>>,
}

/// One number, and which of the numbers of its field it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Value {
    field: Field,
    index: usize,
    number: u64,
}

/// `amdgpu_partition_metrics_v1_0`: what the driver tells of one partition (`xcp/xcp_metrics`).
const PARTITION_1_0: (usize, &[Slot]) =
    (488, &[Slot(F::PartitionGfx, 48, 4, 8), Slot(F::PartitionMedia, 160, 2, 4)]);

impl GpuMetrics {
    /// A partition's own table in `bytes`. Revision 1.1 describes itself, with the attributes of `gpu_metrics` 1.9.
    pub(super) fn parse_partition(bytes: &[u8]) -> Option<Self> {
        let size = usize::try_from(number(bytes, 0, 2)?).ok()?;
        let revision = (*bytes.get(2)?, *bytes.get(3)?);
        let values = match revision {
            (1, 0) => {
                let (expected, slots) = PARTITION_1_0;
                let table = bytes.get(..size).filter(|_| size == expected)?;
                read(table, slots, 0).collect()
            }
            (1, 1) => {
                let mut values = Self::parse_attributes(bytes).values;
                let media = values.iter_mut().filter(|value| value.field == F::ActivityMedia);
                media.for_each(|value| value.field = F::PartitionMedia);
                values
            }
            _ => return None,
        };
        Some(Self { revision, values, partitions: Vec::new() })
    }

    /// The table in `bytes`; `None` where its revision is unknown or its size not that revision's.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let size = usize::try_from(number(bytes, 0, 2)?).ok()?;
        let revision = (*bytes.get(2)?, *bytes.get(3)?);
        if revision == (1, 9) {
            return Some(Self::parse_attributes(bytes));
        }
        let layout = LAYOUTS.iter().find(|layout| layout.revision == revision)?;
        let table = bytes.get(..size).filter(|_| layout.sizes.contains(&size))?;
        let values = layout.slots.iter().flat_map(|slots| read(table, slots, 0)).collect();
        let partitions = layout.partitions.as_ref().map_or_else(Vec::new, |at| at.read(table));
        Some(Self { revision, values, partitions })
    }

    /// A count, then for each attribute an encoded description and its numbers, without padding
    /// (`drivers/gpu/drm/amd/pm/swsmu/smu_cmn.h`).
    fn parse_attributes(bytes: &[u8]) -> Self {
        let mut metrics = Self { revision: (1, 9), ..Self::default() };
        let count = number(bytes, 4, 4).unwrap_or(0).min(u64::from(MOST_ATTRIBUTES));
        let mut offset = 8;
        for _ in 0..count {
            let Some(encoding) = number(bytes, offset, 8) else { break };
            let width = 1_usize << (encoding >> 21 & 3);
            let id = encoding >> 10 & 0x3ff;
            let instances = usize::try_from(encoding & 0x3ff).unwrap_or(0);
            if let Some(&(_, field)) = ATTRIBUTES.iter().find(|(known, _)| *known == id) {
                let scale = scale(field, encoding >> 24 & 0xff);
                let slot = [Slot(field, offset + 8, width, instances)];
                metrics.values.extend(
                    read(bytes, &slot, 0)
                        .map(|value| Value { number: value.number.saturating_mul(scale), ..value }),
                );
            }
            offset += 8 + width * instances;
        }
        metrics
    }

    /// The first number of `field`.
    pub(super) fn get(&self, field: Field) -> Option<u64> {
        self.all(field).next()
    }

    /// Number `index` of `field`.
    pub(super) fn nth(&self, field: Field, index: usize) -> Option<u64> {
        let found = self.values.iter().find(|value| value.field == field && value.index == index);
        found.map(|value| value.number)
    }

    /// All numbers of `field` that have a value.
    pub(super) fn all(&self, field: Field) -> impl Iterator<Item = u64> {
        of(&self.values, field)
    }

    /// All numbers of `field` in the statistics of `partition`.
    pub(super) fn of_partition(&self, partition: u32, field: Field) -> impl Iterator<Item = u64> {
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        of(self.partitions.get(index).map_or(&[], Vec::as_slice), field)
    }

    /// An activity of the table in percent. The tables of APUs have what the firmware counts, hundredths of a
    /// percent, where the driver's own files divide it (`renoir_ppt.c`, `yellow_carp_ppt.c`, `smu_v13_0_4_ppt.c`,
    /// `smu_v13_0_5_ppt.c`, `smu_v14_0_0_ppt.c`; revision 2.4 says so itself).
    pub(super) fn percent(&self, activity: u64, may_be_either: bool) -> Option<u64> {
        match self.revision {
            (2, 2 | 3) if may_be_either && (1..=100).contains(&activity) => None,
            (2 | 3, _) => Some(activity / 100),
            _ => Some(activity),
        }
    }
}

impl Partitions {
    const NUM_XCP: usize = 8;

    fn read(&self, table: &[u8]) -> Vec<Vec<Value>> {
        // One counter and its padding follow the statistics.
        let stride = table.len().saturating_sub(self.offset + 8) / Self::NUM_XCP;
        let slots = [Slot(F::PartitionGfx, 0, 4, 8), Slot(F::PartitionMedia, self.media, 2, 4)];
        let base = |partition| self.offset + partition * stride;
        (0..Self::NUM_XCP).map(|partition| read(table, &slots, base(partition)).collect()).collect()
    }
}

fn of(values: &[Value], field: Field) -> impl Iterator<Item = u64> {
    values.iter().filter(move |value| value.field == field).map(|value| value.number)
}

fn scale(field: Field, unit: u64) -> u64 {
    if field == F::PcieSpeed && unit == UNIT_GIGATRANSFERS { 10 } else { 1 }
}

fn read(table: &[u8], slots: &[Slot], base: usize) -> impl Iterator<Item = Value> {
    slots.iter().flat_map(move |&Slot(field, offset, width, count)| {
        (0..count).filter_map(move |index| {
            let number = number(table, base + offset + index * width, width)?;
            let none = u64::MAX >> (64 - 8 * width);
            (number != none).then_some(Value { field, index, number })
        })
    })
}

/// A number of `width` bytes; the driver writes in the machine's order, and machines with AMD GPUs are
/// little-endian.
fn number(bytes: &[u8], offset: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
