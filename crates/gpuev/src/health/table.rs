//! All numbers of the driver's binary table `gpu_metrics`, by the driver's own names.
//!
//! [`super::metrics`] reads of it what every sample needs; this is for those who want the table as it is.
//! Source: `drivers/gpu/drm/amd/include/kgd_pp_interface.h`. The structures are in natural alignment, so their
//! declarations say where each field is.

/// A field: its name, the bytes of one number, how many numbers; 0 for one that is no array.
type Declaration = (&'static str, usize, usize);

/// One field of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsField {
    /// As the driver's structure calls it.
    pub name: &'static str,
    /// Whether it is an array.
    pub array: bool,
    /// Its numbers; `None` for all ones, by which the driver says that there is no value.
    pub values: Vec<Option<u64>>,
}

/// The table as the driver filled it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsTable {
    /// Size in bytes by its header.
    pub size: u16,
    /// First number of its revision: 1 for GPUs, 2 and 3 for APUs.
    pub format: u8,
    /// Second number of its revision.
    pub content: u8,
    /// The fields that its revision has.
    pub fields: Vec<MetricsField>,
    /// The fields of each partition, for revisions that have them.
    pub partitions: Vec<Vec<MetricsField>>,
}

struct Layout {
    revision: (u8, u8),
    parts: &'static [&'static [Declaration]],
    /// The structure of one partition, eight times, and what follows.
    partition: Option<(&'static [Declaration], &'static [Declaration])>,
}

/// `NUM_XCP`.
const PARTITIONS: usize = 8;

const LAYOUTS: [Layout; 14] = [
    Layout { revision: (1, 1), parts: &[DISCRETE, HBM], partition: None },
    Layout { revision: (1, 2), parts: &[DISCRETE, HBM, STAMP], partition: None },
    Layout { revision: (1, 3), parts: &[DISCRETE, HBM, STAMP, VOLTAGES], partition: None },
    Layout {
        revision: (1, 4),
        parts: &[SOCKET, VCN, ENGINES_1_4, LINKS, STAMP, CLOCKS],
        partition: None,
    },
    Layout {
        revision: (1, 5),
        parts: &[SOCKET, VCN, JPEG, ENGINES_1_4, NAKS_AFTER_COUNTERS, STAMP, CLOCKS],
        partition: None,
    },
    Layout {
        revision: (1, 6),
        parts: &[SOCKET, ENERGY, RESIDENCIES, NAKS_AFTER_COUNTERS, STAMP, CLOCKS, PARTITION_COUNT],
        partition: Some((PARTITION_1_6, RECOVERIES)),
    },
    Layout {
        revision: (1, 7),
        parts: &[
            SOCKET,
            BANDWIDTH,
            ENERGY,
            RESIDENCIES,
            NAKS_AFTER_COUNTERS,
            LINK_STATUS,
            STAMP,
            CLOCKS,
            PARTITION_COUNT,
        ],
        partition: Some((PARTITION_1_7, RECOVERIES)),
    },
    Layout {
        revision: (1, 8),
        parts: &[
            SOCKET,
            BANDWIDTH,
            ENERGY,
            RESIDENCIES,
            NAKS_AFTER_COUNTERS,
            LINK_STATUS,
            STAMP,
            CLOCKS,
            PARTITION_COUNT,
        ],
        partition: Some((PARTITION_1_8, RECOVERIES)),
    },
    Layout { revision: (2, 0), parts: &[COUNTER, APU_BEGIN, APU_REST], partition: None },
    Layout { revision: (2, 1), parts: &[APU_BEGIN, COUNTER, APU_REST], partition: None },
    Layout { revision: (2, 2), parts: &[APU_BEGIN, COUNTER, APU_REST, APU_2_2], partition: None },
    Layout {
        revision: (2, 3),
        parts: &[APU_BEGIN, COUNTER, APU_REST, APU_2_2, APU_2_3],
        partition: None,
    },
    Layout {
        revision: (2, 4),
        parts: &[APU_BEGIN, COUNTER, APU_REST, APU_2_2, APU_2_3, APU_2_4],
        partition: None,
    },
    Layout { revision: (3, 0), parts: &[APU_3_0], partition: None },
];

const DISCRETE: &[Declaration] = &[
    ("temperature_edge", 2, 0),
    ("temperature_hotspot", 2, 0),
    ("temperature_mem", 2, 0),
    ("temperature_vrgfx", 2, 0),
    ("temperature_vrsoc", 2, 0),
    ("temperature_vrmem", 2, 0),
    ("average_gfx_activity", 2, 0),
    ("average_umc_activity", 2, 0),
    ("average_mm_activity", 2, 0),
    ("average_socket_power", 2, 0),
    ("energy_accumulator", 8, 0),
    ("system_clock_counter", 8, 0),
    ("average_gfxclk_frequency", 2, 0),
    ("average_socclk_frequency", 2, 0),
    ("average_uclk_frequency", 2, 0),
    ("average_vclk0_frequency", 2, 0),
    ("average_dclk0_frequency", 2, 0),
    ("average_vclk1_frequency", 2, 0),
    ("average_dclk1_frequency", 2, 0),
    ("current_gfxclk", 2, 0),
    ("current_socclk", 2, 0),
    ("current_uclk", 2, 0),
    ("current_vclk0", 2, 0),
    ("current_dclk0", 2, 0),
    ("current_vclk1", 2, 0),
    ("current_dclk1", 2, 0),
    ("throttle_status", 4, 0),
    ("current_fan_speed", 2, 0),
    ("pcie_link_width", 2, 0),
    ("pcie_link_speed", 2, 0),
    ("", 2, 0),
    ("gfx_activity_acc", 4, 0),
    ("mem_activity_acc", 4, 0),
];
const HBM: &[Declaration] = &[("temperature_hbm", 2, 4)];
const STAMP: &[Declaration] = &[("firmware_timestamp", 8, 0)];
const VOLTAGES: &[Declaration] = &[
    ("voltage_soc", 2, 0),
    ("voltage_gfx", 2, 0),
    ("voltage_mem", 2, 0),
    ("", 2, 0),
    ("indep_throttle_status", 8, 0),
];

/// The MI300 family.
const SOCKET: &[Declaration] = &[
    ("temperature_hotspot", 2, 0),
    ("temperature_mem", 2, 0),
    ("temperature_vrsoc", 2, 0),
    ("current_socket_power", 2, 0),
    ("average_gfx_activity", 2, 0),
    ("average_umc_activity", 2, 0),
];
const VCN: &[Declaration] = &[("vcn_activity", 2, 4)];
const JPEG: &[Declaration] = &[("jpeg_activity", 2, 32)];
const BANDWIDTH: &[Declaration] = &[("vram_max_bandwidth", 8, 0)];
const ENERGY: &[Declaration] = &[("energy_accumulator", 8, 0), ("system_clock_counter", 8, 0)];
const ENGINES_1_4: &[Declaration] =
    &[("energy_accumulator", 8, 0), ("system_clock_counter", 8, 0), ("throttle_status", 4, 0)];
const RESIDENCIES: &[Declaration] = &[
    ("accumulation_counter", 4, 0),
    ("prochot_residency_acc", 4, 0),
    ("ppt_residency_acc", 4, 0),
    ("socket_thm_residency_acc", 4, 0),
    ("vr_thm_residency_acc", 4, 0),
    ("hbm_thm_residency_acc", 4, 0),
];
const LINKS: &[Declaration] = &[
    ("gfxclk_lock_status", 4, 0),
    ("pcie_link_width", 2, 0),
    ("pcie_link_speed", 2, 0),
    ("xgmi_link_width", 2, 0),
    ("xgmi_link_speed", 2, 0),
    ("gfx_activity_acc", 4, 0),
    ("mem_activity_acc", 4, 0),
    ("pcie_bandwidth_acc", 8, 0),
    ("pcie_bandwidth_inst", 8, 0),
    ("pcie_l0_to_recov_count_acc", 8, 0),
    ("pcie_replay_count_acc", 8, 0),
    ("pcie_replay_rover_count_acc", 8, 0),
    ("xgmi_read_data_acc", 8, 8),
    ("xgmi_write_data_acc", 8, 8),
];
/// As [`LINKS`], with the counters of refused packets among them.
const NAKS_AFTER_COUNTERS: &[Declaration] = &[
    ("gfxclk_lock_status", 4, 0),
    ("pcie_link_width", 2, 0),
    ("pcie_link_speed", 2, 0),
    ("xgmi_link_width", 2, 0),
    ("xgmi_link_speed", 2, 0),
    ("gfx_activity_acc", 4, 0),
    ("mem_activity_acc", 4, 0),
    ("pcie_bandwidth_acc", 8, 0),
    ("pcie_bandwidth_inst", 8, 0),
    ("pcie_l0_to_recov_count_acc", 8, 0),
    ("pcie_replay_count_acc", 8, 0),
    ("pcie_replay_rover_count_acc", 8, 0),
    ("pcie_nak_sent_count_acc", 4, 0),
    ("pcie_nak_rcvd_count_acc", 4, 0),
    ("xgmi_read_data_acc", 8, 8),
    ("xgmi_write_data_acc", 8, 8),
];
const LINK_STATUS: &[Declaration] = &[("xgmi_link_status", 2, 8), ("", 2, 0)];
const CLOCKS: &[Declaration] = &[
    ("current_gfxclks", 2, 8),
    ("current_socclks", 2, 4),
    ("current_vclk0s", 2, 4),
    ("current_dclk0s", 2, 4),
    ("current_uclk", 2, 0),
];
const PARTITION_COUNT: &[Declaration] = &[("num_partition", 2, 0)];
const RECOVERIES: &[Declaration] = &[("pcie_lc_perf_other_end_recovery", 4, 0)];
const PARTITION_1_6: &[Declaration] =
    &[("gfx_busy_inst", 4, 8), ("jpeg_busy", 2, 32), ("vcn_busy", 2, 4), ("gfx_busy_acc", 8, 8)];
const PARTITION_1_7: &[Declaration] = &[
    ("gfx_busy_inst", 4, 8),
    ("jpeg_busy", 2, 32),
    ("vcn_busy", 2, 4),
    ("gfx_busy_acc", 8, 8),
    ("gfx_below_host_limit_acc", 8, 8),
];
/// The out-of-tree driver has one field more; the table's size tells.
const PARTITION_1_8: &[Declaration] = &[
    ("gfx_busy_inst", 4, 8),
    ("jpeg_busy", 2, 40),
    ("vcn_busy", 2, 4),
    ("gfx_busy_acc", 8, 8),
    ("gfx_below_host_limit_ppt_acc", 8, 8),
    ("gfx_below_host_limit_thm_acc", 8, 8),
    ("gfx_low_utilization_acc", 8, 8),
    ("gfx_below_host_limit_total_acc", 8, 8),
];

const COUNTER: &[Declaration] = &[("system_clock_counter", 8, 0)];
/// APUs. In which unit temperatures, powers and activities of revisions 2.0 to 2.3 are depends on the APU.
const APU_BEGIN: &[Declaration] = &[
    ("temperature_gfx", 2, 0),
    ("temperature_soc", 2, 0),
    ("temperature_core", 2, 8),
    ("temperature_l3", 2, 2),
    ("average_gfx_activity", 2, 0),
    ("average_mm_activity", 2, 0),
];
const APU_REST: &[Declaration] = &[
    ("average_socket_power", 2, 0),
    ("average_cpu_power", 2, 0),
    ("average_soc_power", 2, 0),
    ("average_gfx_power", 2, 0),
    ("average_core_power", 2, 8),
    ("average_gfxclk_frequency", 2, 0),
    ("average_socclk_frequency", 2, 0),
    ("average_uclk_frequency", 2, 0),
    ("average_fclk_frequency", 2, 0),
    ("average_vclk_frequency", 2, 0),
    ("average_dclk_frequency", 2, 0),
    ("current_gfxclk", 2, 0),
    ("current_socclk", 2, 0),
    ("current_uclk", 2, 0),
    ("current_fclk", 2, 0),
    ("current_vclk", 2, 0),
    ("current_dclk", 2, 0),
    ("current_coreclk", 2, 8),
    ("current_l3clk", 2, 2),
    ("throttle_status", 4, 0),
    ("fan_pwm", 2, 0),
];
const APU_2_2: &[Declaration] = &[("", 2, 3), ("indep_throttle_status", 8, 0)];
const APU_2_3: &[Declaration] = &[
    ("average_temperature_gfx", 2, 0),
    ("average_temperature_soc", 2, 0),
    ("average_temperature_core", 2, 8),
    ("average_temperature_l3", 2, 2),
];
const APU_2_4: &[Declaration] = &[
    ("average_cpu_voltage", 2, 0),
    ("average_soc_voltage", 2, 0),
    ("average_gfx_voltage", 2, 0),
    ("average_cpu_current", 2, 0),
    ("average_soc_current", 2, 0),
    ("average_gfx_current", 2, 0),
];
const APU_3_0: &[Declaration] = &[
    ("temperature_gfx", 2, 0),
    ("temperature_soc", 2, 0),
    ("temperature_core", 2, 16),
    ("temperature_skin", 2, 0),
    ("average_gfx_activity", 2, 0),
    ("average_vcn_activity", 2, 0),
    ("average_ipu_activity", 2, 8),
    ("average_core_c0_activity", 2, 16),
    ("average_dram_reads", 2, 0),
    ("average_dram_writes", 2, 0),
    ("average_ipu_reads", 2, 0),
    ("average_ipu_writes", 2, 0),
    ("system_clock_counter", 8, 0),
    ("average_socket_power", 4, 0),
    ("average_ipu_power", 2, 0),
    ("average_apu_power", 4, 0),
    ("average_gfx_power", 4, 0),
    ("average_dgpu_power", 4, 0),
    ("average_all_core_power", 4, 0),
    ("average_core_power", 2, 16),
    ("average_sys_power", 2, 0),
    ("stapm_power_limit", 2, 0),
    ("current_stapm_power_limit", 2, 0),
    ("average_gfxclk_frequency", 2, 0),
    ("average_socclk_frequency", 2, 0),
    ("average_vpeclk_frequency", 2, 0),
    ("average_ipuclk_frequency", 2, 0),
    ("average_fclk_frequency", 2, 0),
    ("average_vclk_frequency", 2, 0),
    ("average_uclk_frequency", 2, 0),
    ("average_mpipu_frequency", 2, 0),
    ("current_coreclk", 2, 16),
    ("current_core_maxfreq", 2, 0),
    ("current_gfx_maxfreq", 2, 0),
    ("throttle_residency_prochot", 4, 0),
    ("throttle_residency_spl", 4, 0),
    ("throttle_residency_fppt", 4, 0),
    ("throttle_residency_sppt", 4, 0),
    ("throttle_residency_thm_core", 4, 0),
    ("throttle_residency_thm_gfx", 4, 0),
    ("throttle_residency_thm_soc", 4, 0),
    ("time_filter_alphavalue", 4, 0),
];

/// `AMDGPU_METRICS_ATTR_ID_*` of revision 1.9, by number.
const ATTRIBUTES: [&str; 49] = [
    "temperature_hotspot",
    "temperature_mem",
    "temperature_vrsoc",
    "current_socket_power",
    "average_gfx_activity",
    "average_umc_activity",
    "vram_max_bandwidth",
    "energy_accumulator",
    "system_clock_counter",
    "accumulation_counter",
    "prochot_residency_acc",
    "ppt_residency_acc",
    "socket_thm_residency_acc",
    "vr_thm_residency_acc",
    "hbm_thm_residency_acc",
    "gfxclk_lock_status",
    "pcie_link_width",
    "pcie_link_speed",
    "xgmi_link_width",
    "xgmi_link_speed",
    "gfx_activity_acc",
    "mem_activity_acc",
    "pcie_bandwidth_acc",
    "pcie_bandwidth_inst",
    "pcie_l0_to_recov_count_acc",
    "pcie_replay_count_acc",
    "pcie_replay_rover_count_acc",
    "pcie_nak_sent_count_acc",
    "pcie_nak_rcvd_count_acc",
    "xgmi_read_data_acc",
    "xgmi_write_data_acc",
    "xgmi_link_status",
    "firmware_timestamp",
    "current_gfxclks",
    "current_socclks",
    "current_vclk0s",
    "current_dclk0s",
    "current_uclk",
    "num_partition",
    "pcie_lc_perf_other_end_recovery",
    "gfx_busy_inst",
    "jpeg_busy",
    "vcn_busy",
    "gfx_busy_acc",
    "gfx_below_host_limit_ppt_acc",
    "gfx_below_host_limit_thm_acc",
    "gfx_low_utilization_acc",
    "gfx_below_host_limit_total_acc",
    "temperature_hbm",
];

/// `AMDGPU_METRICS_UNIT_SPEED_1`: whole GT/s, where all other revisions count tenths.
const UNIT_GIGATRANSFERS: u64 = 6;
/// More attributes than a page could hold.
const MOST_ATTRIBUTES: u64 = 512;

/// Takes fields out of a table, one after the other.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next number; the outer `None` where the table ends.
    fn number(&mut self, width: usize) -> Option<u64> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(width)?)?;
        self.at += width;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn field(&mut self, &(name, width, count): &Declaration) -> Option<MetricsField> {
        self.at = self.at.next_multiple_of(width);
        let none = u64::MAX >> (64 - 8 * width);
        let numbers = (0..count.max(1)).map(|_| self.number(width));
        let values = numbers.map(|number| number.map(|n| (n != none).then_some(n)));
        Some(MetricsField { name, array: count > 0, values: values.collect::<Option<_>>()? })
    }

    /// The fields of a structure; those that have no name are padding.
    fn fields(&mut self, declarations: &[Declaration]) -> Vec<MetricsField> {
        let fields = declarations.iter().map_while(|declaration| self.field(declaration));
        fields.filter(|field| !field.name.is_empty()).collect()
    }
}

impl MetricsTable {
    /// The table in `bytes`; `None` where it is none. Of a revision that is not known there are no fields.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor { bytes, at: 0 };
        let size = u16::try_from(cursor.number(2)?).ok()?;
        let [format, content] = *bytes.get(2..4)?.first_chunk()?;
        let mut table = Self { size, format, content, ..Self::default() };
        if (format, content) == (1, 9) {
            table.read_attributes(bytes);
        } else if let Some(layout) = LAYOUTS.iter().find(|l| l.revision == (format, content)) {
            // What is longer than it says is padded to a page; what is shorter is not believed.
            table.read(layout, bytes.get(..usize::from(size))?);
        }
        Some(table)
    }

    fn read(&mut self, layout: &Layout, bytes: &[u8]) {
        let mut cursor = Cursor { bytes, at: 4 };
        self.fields = layout.parts.iter().flat_map(|part| cursor.fields(part)).collect();
        let Some((partition, rest)) = layout.partition else { return };
        let begin = cursor.at.next_multiple_of(8);
        // One counter and its padding follow the partitions.
        let stride = bytes.len().saturating_sub(begin + 8) / PARTITIONS;
        let read = |index: usize| {
            let at = begin + index * stride;
            Cursor { bytes: bytes.get(..at + stride).unwrap_or_default(), at }.fields(partition)
        };
        self.partitions = (0..PARTITIONS).map(read).collect();
        let mut after = Cursor { bytes, at: begin + PARTITIONS * stride };
        self.fields.extend(after.fields(rest));
    }

    /// A count, then for each attribute an encoded description and its numbers, without padding
    /// (`drivers/gpu/drm/amd/pm/swsmu/smu_cmn.h`).
    fn read_attributes(&mut self, bytes: &[u8]) {
        let mut cursor = Cursor { bytes, at: 4 };
        let count = cursor.number(4).unwrap_or(0).min(MOST_ATTRIBUTES);
        for _ in 0..count {
            let Some(encoding) = cursor.number(8) else { return };
            let width = 1_usize << (encoding >> 21 & 3);
            let instances = usize::try_from(encoding & 0x3ff).unwrap_or(0);
            let name =
                usize::try_from(encoding >> 10 & 0x3ff).ok().and_then(|id| ATTRIBUTES.get(id));
            let tenths =
                encoding >> 24 & 0xff == UNIT_GIGATRANSFERS && name == Some(&"pcie_link_speed");
            let none = u64::MAX >> (64 - 8 * width);
            let numbers = (0..instances).map_while(|_| cursor.number(width));
            let scale = if tenths { 10 } else { 1 };
            let values: Vec<_> =
                numbers.map(|n| (n != none).then(|| n.saturating_mul(scale))).collect();
            if let Some(name) = name.filter(|_| !values.is_empty()) {
                self.fields.push(MetricsField { name, array: values.len() > 1, values });
            }
        }
    }

    /// The numbers of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[Option<u64>]> {
        self.fields.iter().find(|field| field.name == name).map(|field| &*field.values)
    }
}
