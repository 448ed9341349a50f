//! How a GPU is doing.

use std::time::Duration;

use gpuev::Gpu;
use gpuev::health::{
    BadPages, Bytes, ClockDomain, Health, Hertz, Megatransfers, Microjoules, Microwatts,
    Millidegrees, Millivolts, Percent, Rpm, Sensors, TemperatureMetric, TemperatureSensor,
    ThrottlingLog,
};
use proptest::prelude::*;

use crate::tree::{Node, Tree, device_dir};

/// A machine with one GPU, and what its folder is called.
fn one_gpu() -> (Tree, Gpu) {
    let tree = Tree::new();
    tree.gpu(0);
    let gpu = tree.machine().gpus().unwrap().remove(0);
    (tree, gpu)
}

fn write(tree: &Tree, files: &[(&str, &str)]) {
    for (name, content) in files {
        tree.write(format!("{}/{name}", device_dir(0)), format!("{content}\n"));
    }
}

/// A table of `gpu_metrics` as the driver begins it: all ones, then the header.
fn table(format: u8, content: u8, size: u16, values: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0xff; usize::from(size)];
    bytes[..2].copy_from_slice(&size.to_le_bytes());
    bytes[2..4].copy_from_slice(&[format, content]);
    for (offset, value) in values {
        bytes[*offset..offset + value.len()].copy_from_slice(value);
    }
    bytes
}

fn with_metrics(bytes: &[u8]) -> Health {
    let (tree, gpu) = one_gpu();
    tree.write(format!("{}/gpu_metrics", device_dir(0)), bytes);
    gpu.health()
}

#[test]
fn a_gpu_that_tells_nothing_is_all_not_available() {
    let (_tree, gpu) = one_gpu();
    assert_eq!(gpu.health(), Health::default());
}

#[test]
fn hwmon_is_read_in_its_units() {
    let (tree, gpu) = one_gpu();
    write(
        &tree,
        &[
            ("hwmon/hwmon4/temp1_input", "47000"),
            ("hwmon/hwmon4/temp1_label", "edge"),
            ("hwmon/hwmon4/temp1_crit", "100000"),
            ("hwmon/hwmon4/temp1_crit_hyst", "-273150"),
            ("hwmon/hwmon4/temp1_emergency", "105000"),
            ("hwmon/hwmon4/temp2_input", "61500"),
            ("hwmon/hwmon4/temp2_label", "junction"),
            ("hwmon/hwmon4/temp3_input", "54000"),
            ("hwmon/hwmon4/temp3_label", "mem"),
            ("hwmon/hwmon4/temp3_emergency", "0"),
            ("hwmon/hwmon4/power1_average", "310500000"),
            ("hwmon/hwmon4/power1_cap", "750000000"),
            ("hwmon/hwmon4/power1_cap_min", "0"),
            ("hwmon/hwmon4/power1_cap_max", "780000000"),
            ("hwmon/hwmon4/power1_cap_default", "750000000"),
            ("hwmon/hwmon4/in0_input", "1050"),
            ("hwmon/hwmon4/in0_label", "vddgfx"),
            ("hwmon/hwmon4/fan1_input", "1830"),
            ("hwmon/hwmon4/fan1_max", "3300"),
            ("hwmon/hwmon4/pwm1", "128"),
            ("hwmon/hwmon4/freq1_input", "1700000000"),
            ("hwmon/hwmon4/freq1_label", "sclk"),
        ],
    );
    let health = gpu.health();
    assert_eq!(health.temperature(TemperatureSensor::Edge), Some(Millidegrees(47_000)));
    assert_eq!(health.temperature(TemperatureSensor::Junction), Some(Millidegrees(61_500)));
    assert_eq!(health.temperature(TemperatureSensor::Memory), Some(Millidegrees(54_000)));
    assert_eq!(health.temperatures[0].critical, Some(Millidegrees(100_000)));
    assert_eq!(health.temperatures[0].emergency, Some(Millidegrees(105_000)));
    assert_eq!(health.temperatures[2].emergency, None, "0 is no limit");
    assert_eq!(health.power.average, Some(Microwatts(310_500_000)));
    assert_eq!(health.power.current, None);
    assert_eq!(health.power.cap, Some(Microwatts(750_000_000)));
    assert_eq!(health.power.cap_min, Some(Microwatts(0)));
    assert_eq!(health.power.cap_max, Some(Microwatts(780_000_000)));
    assert_eq!(health.power.cap_default, Some(Microwatts(750_000_000)));
    assert_eq!(health.voltages.gfx, Some(Millivolts(1050)));
    assert_eq!(health.fan.speed, Some(Rpm(1830)));
    assert_eq!(health.fan.max, Some(Rpm(3300)));
    assert_eq!(health.fan.duty, Some(Percent(50)));
    assert_eq!(health.clocks[0].current, Some(Hertz(1_700_000_000)));

    let sensors = Sensors::of(&gpu);
    let edge = |metric| sensors.temperature(TemperatureSensor::Edge, metric);
    assert_eq!(edge(TemperatureMetric::Critical), Some(Millidegrees(100_000)));
    assert_eq!(edge(TemperatureMetric::CriticalHyst), None, "absolute zero is no temperature");
    assert_eq!(edge(TemperatureMetric::Lowest), None);
}

#[test]
fn labels_say_which_channel_is_which() {
    let (tree, gpu) = one_gpu();
    write(
        &tree,
        &[
            ("hwmon/hwmon0/temp1_input", "30000"),
            ("hwmon/hwmon0/temp1_label", "mem"),
            ("hwmon/hwmon0/temp2_input", "40000"),
            ("hwmon/hwmon0/temp2_label", "edge"),
            ("hwmon/hwmon0/temp3_input", "50000"),
            ("hwmon/hwmon0/temp3_label", "junction"),
        ],
    );
    let health = gpu.health();
    assert_eq!(health.temperature(TemperatureSensor::Edge), Some(Millidegrees(40_000)));
    assert_eq!(health.temperature(TemperatureSensor::Junction), Some(Millidegrees(50_000)));
    assert_eq!(health.temperature(TemperatureSensor::Memory), Some(Millidegrees(30_000)));
}

#[test]
fn what_cannot_be_true_is_not_available() {
    let (tree, gpu) = one_gpu();
    write(
        &tree,
        &[
            ("hwmon/hwmon0/temp1_input", "65535000"),
            ("hwmon/hwmon0/temp2_input", "-273150"),
            ("hwmon/hwmon0/temp3_input", "0"),
            ("hwmon/hwmon0/power1_average", "99999999999999"),
            ("hwmon/hwmon0/power1_input", "-5"),
            ("hwmon/hwmon0/power1_cap", "0"),
            ("hwmon/hwmon0/in0_input", "0"),
            ("hwmon/hwmon0/fan1_input", "4294967295"),
            ("hwmon/hwmon0/pwm1", "300"),
            ("gpu_busy_percent", "101"),
            ("mem_busy_percent", ""),
            ("mem_info_vram_total", "100"),
            ("mem_info_vram_used", "101"),
            ("mem_info_gtt_total", "0"),
            ("mem_info_gtt_used", "18446744073709551615"),
            ("pp_dpm_sclk", "0: 99999999Mhz *\nx\n: Mhz\n1 500Mhz"),
            ("current_link_speed", "Unknown"),
            ("current_link_width", "255"),
            ("max_link_speed", "-1 GT/s"),
            ("ras/umc_err_count", "ue: many\nce: -1"),
        ],
    );
    let mut health = gpu.health();
    assert_eq!(health.memory.vram.total, Some(Bytes(100)));
    health.memory.vram.total = None;
    assert_eq!(health.ras.len(), 1);
    assert_eq!((health.ras[0].uncorrectable, health.ras[0].correctable), (None, None));
    health.ras.clear();
    assert_eq!(health.memory.usable.total, Some(Bytes(100)));
    health.memory.usable.total = None;
    assert_eq!(health, Health::default());
}

#[test]
fn memory_activity_and_link() {
    let (tree, gpu) = one_gpu();
    write(
        &tree,
        &[
            ("gpu_busy_percent", "97"),
            ("mem_busy_percent", "41"),
            ("vcn_busy_percent", "3"),
            ("mem_info_vram_total", "206141652992"),
            ("mem_info_vram_used", "150323855360"),
            ("mem_info_vis_vram_total", "206141652992"),
            ("mem_info_vis_vram_used", "150323855360"),
            ("mem_info_gtt_total", "540880003072"),
            ("mem_info_gtt_used", "34603008"),
            ("current_link_speed", "16.0 GT/s PCIe"),
            ("current_link_width", "16"),
            ("max_link_speed", "32.0 GT/s PCIe"),
            ("max_link_width", "16"),
            ("pcie_replay_count", "12"),
        ],
    );
    let health = gpu.health();
    assert_eq!(health.activity.gfx, Some(Percent(97)));
    assert_eq!(health.activity.memory, Some(Percent(41)));
    assert_eq!(health.activity.media, Some(Percent(3)));
    assert_eq!(health.memory.vram.total, Some(Bytes(206_141_652_992)));
    assert_eq!(health.memory.vram.used, Some(Bytes(150_323_855_360)));
    assert_eq!(health.memory.visible_vram.used, Some(Bytes(150_323_855_360)));
    assert_eq!(health.memory.gtt.used, Some(Bytes(34_603_008)));
    assert_eq!(health.pcie.speed, Some(Megatransfers(16_000)));
    assert_eq!(health.pcie.max_speed, Some(Megatransfers(32_000)));
    assert_eq!((health.pcie.width, health.pcie.max_width), (Some(16), Some(16)));
    assert_eq!(health.pcie.replays, Some(12));
}

#[test]
fn clocks_have_levels() {
    let (tree, gpu) = one_gpu();
    write(
        &tree,
        &[
            ("pp_dpm_sclk", "S: 19Mhz *\n0: 500Mhz\n1: 1700Mhz\n2: 2100Mhz"),
            ("pp_dpm_mclk", "0: 900Mhz\n1: 1300Mhz *"),
            ("pp_dpm_fclk", "0: 1200Mhz\n1: 2000Mhz"),
        ],
    );
    let sensors = Sensors::of(&gpu);
    let mhz = |hertz: Option<Hertz>| hertz.map(Hertz::megahertz);
    let clock = sensors.clock(ClockDomain::Gfx).unwrap();
    assert_eq!(
        (mhz(clock.current), mhz(clock.min), mhz(clock.max)),
        (Some(19), Some(500), Some(2100))
    );
    let clock = sensors.clock(ClockDomain::Memory).unwrap();
    assert_eq!(
        (mhz(clock.current), mhz(clock.min), mhz(clock.max)),
        (Some(1300), Some(900), Some(1300))
    );
    let clock = sensors.clock(ClockDomain::Fabric).unwrap();
    assert_eq!((mhz(clock.current), mhz(clock.max)), (None, Some(2000)));
    assert_eq!(sensors.clock(ClockDomain::Video), None);
    let domains: Vec<_> =
        gpu.health().clocks.iter().map(|clock| clock.domain.to_string()).collect();
    assert_eq!(domains, ["sclk", "mclk", "fclk"]);
}

#[test]
fn errors_are_counted_by_block() {
    let (tree, gpu) = one_gpu();
    write(
        &tree,
        &[
            ("ras/umc_err_count", "ue: 1\nce: 27"),
            ("ras/aca_umc", "ue: 1\nce: 27\nde: 4"),
            ("ras/sdma_err_count", "ue: 0\nce: 0"),
            ("ras/gfx_err_count", "Query currently inaccessible"),
            ("ras/features", "feature mask: 0x5fef"),
            (
                "ras/gpu_vram_bad_pages",
                "0x00000001 : 0x00001000 : R\n0x00000002 : 0x00001000 : P\n\
                 0x00000003 : 0x00001000 : F\n0x00000004 : 0x00001000 : R\n\0\0",
            ),
        ],
    );
    let health = gpu.health();
    let found: Vec<_> = health
        .ras
        .iter()
        .map(|ras| (ras.block.as_str(), ras.uncorrectable, ras.correctable, ras.deferred))
        .collect();
    let expected = [
        ("gfx", None, None, None),
        ("sdma", Some(0), Some(0), None),
        ("umc", Some(1), Some(27), Some(4)),
    ];
    assert_eq!(found, expected);
    let BadPages { retired, pending, unretired, .. } = health.bad_pages.unwrap();
    assert_eq!((retired, pending, unretired), (2, 1, 1));
}

#[test]
fn metrics_1_3_of_a_graphics_card() {
    let health = with_metrics(&table(
        1,
        3,
        120,
        &[
            (4, &[45, 0, 60, 0, 58, 0, 50, 0, 51, 0, 52, 0]),
            (16, &[88, 0, 30, 0, 7, 0, 180, 0]),
            (54, &2400_u16.to_le_bytes()),
            (58, &1000_u16.to_le_bytes()),
            (68, &0x10_u32.to_le_bytes()),
            (74, &[16, 0, 160, 0]),
            (88, &[55, 0, 56, 0]),
            (104, &[0xe8, 3, 0x1a, 4, 0x46, 5]),
            (112, &(1_u64 << 36).to_le_bytes()),
        ],
    ));
    use TemperatureSensor::{Edge, Hbm, Junction, Memory, VrGfx, VrMemory, VrSoc};
    let celsius = |sensor| health.temperature(sensor).map(|t| t.0 / 1000);
    assert_eq!([Edge, Junction, Memory].map(celsius), [Some(45), Some(60), Some(58)]);
    assert_eq!([VrGfx, VrSoc, VrMemory].map(celsius), [Some(50), Some(51), Some(52)]);
    assert_eq!([Hbm(0), Hbm(1), Hbm(2)].map(celsius), [Some(55), Some(56), None]);
    assert_eq!(health.activity.gfx, Some(Percent(88)));
    assert_eq!(health.activity.memory, Some(Percent(30)));
    assert_eq!(health.activity.media, Some(Percent(7)));
    assert_eq!(health.power.average, Some(Microwatts(180_000_000)));
    assert_eq!(health.clocks[0].current, Some(Hertz(2_400_000_000)));
    assert_eq!(health.pcie.width, Some(16));
    assert_eq!(health.pcie.speed, Some(Megatransfers(16_000)));
    assert_eq!(health.voltages.soc, Some(Millivolts(1000)));
    assert_eq!(health.voltages.gfx, Some(Millivolts(1050)));
    assert_eq!(health.voltages.memory, Some(Millivolts(1350)));
    assert_eq!(health.throttling.chip_status, Some(0x10));
    let names: Vec<_> = gpuev::names::throttlers(health.throttling.status.unwrap()).collect();
    assert_eq!(names, ["TEMP_HOTSPOT"]);
}

#[test]
fn metrics_of_the_first_revisions() {
    let health = with_metrics(&table(
        1,
        0,
        80,
        &[
            (16, &[45, 0, 60, 0, 58, 0]),
            (28, &[88, 0, 30, 0, 7, 0, 180, 0]),
            (54, &1900_u16.to_le_bytes()),
            (68, &3_u32.to_le_bytes()),
            (74, &[16, 160]),
        ],
    ));
    assert_eq!(health.temperature(TemperatureSensor::Edge), Some(Millidegrees(45_000)));
    assert_eq!(health.activity.media, Some(Percent(7)));
    assert_eq!(health.power.average, Some(Microwatts(180_000_000)));
    assert_eq!(health.clocks[0].current, Some(Hertz(1_900_000_000)));
    assert_eq!(health.throttling.chip_status, Some(3));
    let link = (health.pcie.width, health.pcie.speed);
    assert_eq!(link, (Some(16), Some(Megatransfers(16_000))));
    let health = with_metrics(&table(
        2,
        0,
        120,
        &[
            (40, &[0x00, 0x19, 0x20, 0x03]),
            (80, &1500_u16.to_le_bytes()),
            (112, &1_u32.to_le_bytes()),
        ],
    ));
    assert_eq!((health.activity.gfx, health.activity.media), (Some(Percent(64)), Some(Percent(8))));
    assert_eq!(health.clocks[0].current, Some(Hertz(1_500_000_000)));
    assert_eq!(health.throttling.chip_status, Some(1));
}

#[test]
fn metrics_of_accelerators() {
    // Junction, memory, regulator, power, activities stand at the same place in 1.4 to 1.8.
    let first: &[u8] = &[60, 0, 55, 0, 50, 0, 0xbc, 2, 91, 0, 33, 0];
    let energy = (65_536_u64 * 7).to_le_bytes();
    let clock = 2100_u16.to_le_bytes();
    for (content, size, energy_at, clock_at, replays_at, residency_at) in [
        (4, 288, 24, 240, 88, None),
        (5, 360, 88, 312, 152, None),
        (6, 1664, 16, 264, 104, Some(32)),
        (7, 2208, 24, 296, 112, Some(40)),
        (8, 3360, 24, 296, 112, Some(40)),
        (8, 3872, 24, 296, 112, Some(40)),
    ] {
        let replays = 5_u64.to_le_bytes();
        let mut residencies = Vec::new();
        for residency in [1000_u32, 0, 250, 10, 20, 30] {
            residencies.extend(residency.to_le_bytes());
        }
        let mut values: Vec<(usize, &[u8])> =
            vec![(4, first), (energy_at, &energy), (clock_at + 2, &clock), (replays_at, &replays)];
        values.extend(residency_at.map(|at| (at, residencies.as_slice())));
        let health = with_metrics(&table(1, content, size, &values));
        let what = format!("1.{content} of {size} bytes");
        let junction = health.temperature(TemperatureSensor::Junction);
        assert_eq!(junction, Some(Millidegrees(60_000)), "{what}");
        assert_eq!(health.power.current, Some(Microwatts(700_000_000)), "{what}");
        assert_eq!(health.activity.gfx, Some(Percent(91)), "{what}");
        assert_eq!(health.activity.memory, Some(Percent(33)), "{what}");
        assert_eq!(health.energy, Some(Microjoules(7_000_000)), "{what}");
        assert_eq!(health.clocks[0].current, Some(Hertz(2_100_000_000)), "{what}");
        assert_eq!(health.pcie.replays, Some(5), "{what}");
        let power = health.throttling.residency.map(|residency| (residency.ticks, residency.power));
        assert_eq!(power, residency_at.map(|_| (1000, Some(250))), "{what}");
    }
}

#[test]
fn a_partition_has_its_own_activity() {
    let tree = Tree::new();
    let device = tree.gpu(0);
    for part in 0..2 {
        let (node, gpu_id) = (1 + part, 7 + part);
        tree.node(Node {
            node,
            gpu_id,
            location_id: 0x300 | part,
            render_minor: 128,
            unique_id: 1,
        });
    }
    tree.write(format!("{device}/gpu_busy_percent"), "99\n");
    let busy: Vec<u8> = [40_u32, 60].into_iter().flat_map(u32::to_le_bytes).collect();
    // Where the second partition's XCCs and VCNs are, in both lengths of 1.8.
    for (size, stride) in [(3360, 376), (3872, 440)] {
        let media_at = 344 + stride + 112;
        let bytes = table(1, 8, size, &[(344 + stride, &busy), (media_at, &[5, 0, 9, 0])]);
        tree.write(format!("{device}/gpu_metrics"), bytes);
        let gpus = tree.machine().gpus().unwrap();
        let activity = |place: usize| Sensors::of(&gpus[place]).activity();
        assert_eq!(activity(0).gfx, None, "the whole GPU's activity is not the partition's");
        assert_eq!(activity(1).gfx, Some(Percent(50)));
        assert_eq!(activity(1).media, Some(Percent(9)));
    }
}

#[test]
fn metrics_of_apus() {
    let status = (1_u64 << 32).to_le_bytes();
    let bytes =
        table(2, 2, 128, &[(28, &[0x14, 0x1e, 0xf4, 0x01]), (76, &[0xd0, 7]), (120, &status)]);
    let health = with_metrics(&bytes);
    assert_eq!(health.activity.gfx, Some(Percent(77)));
    assert_eq!(health.activity.media, Some(Percent(5)));
    assert_eq!(health.clocks[0].current, Some(Hertz(2_000_000_000)));
    assert_eq!(health.throttling.status, Some(1 << 32));

    let bytes = table(2, 4, 168, &[(28, &7700_u16.to_le_bytes()), (156, &900_u16.to_le_bytes())]);
    let health = with_metrics(&bytes);
    assert_eq!(health.activity.gfx, Some(Percent(77)));
    assert_eq!(health.voltages.gfx, Some(Millivolts(900)));

    let bytes =
        table(3, 0, 264, &[(42, &[0x00, 0x19, 0x20, 0x03]), (174, &1500_u16.to_le_bytes())]);
    let health = with_metrics(&bytes);
    assert_eq!((health.activity.gfx, health.activity.media), (Some(Percent(64)), Some(Percent(8))));
    assert_eq!(health.clocks[0].current, Some(Hertz(1_500_000_000)));
}

#[test]
fn metrics_1_9_describe_themselves() {
    // unit << 24 | type << 20 | id << 10 | instances
    let mut bytes = vec![0, 0, 1, 9];
    bytes.extend(5_i32.to_le_bytes());
    let attribute = |bytes: &mut Vec<u8>, encoding: u64, values: &[u8]| {
        bytes.extend(encoding.to_le_bytes());
        bytes.extend(values);
    };
    attribute(&mut bytes, 2 << 24 | 2 << 20 | 1, &[62, 0]);
    attribute(&mut bytes, 999 << 10 | 6 << 20 | 3, &[7; 24]);
    attribute(&mut bytes, 3 << 24 | 4 << 20 | 3 << 10 | 1, &500_u32.to_le_bytes());
    attribute(&mut bytes, 6 << 24 | 2 << 20 | 17 << 10 | 1, &[32, 0]);
    attribute(&mut bytes, 2 << 24 | 2 << 20 | 48 << 10 | 3, &[40, 0, 0xff, 0xff, 41, 0]);
    let health = with_metrics(&bytes);
    assert_eq!(health.temperature(TemperatureSensor::Junction), Some(Millidegrees(62_000)));
    assert_eq!(health.power.current, Some(Microwatts(500_000_000)));
    assert_eq!(health.pcie.speed, Some(Megatransfers(32_000)));
    assert_eq!(health.temperature(TemperatureSensor::Hbm(0)), Some(Millidegrees(40_000)));
}

#[test]
fn a_table_of_another_size_or_revision_is_not_believed() {
    let values: &[(usize, &[u8])] = &[(4, &[45, 0, 60, 0, 58, 0])];
    for (format, content, size) in [(1, 3, 118), (1, 3, 122), (1, 77, 120), (9, 0, 120), (1, 0, 96)]
    {
        assert_eq!(with_metrics(&table(format, content, size, values)), Health::default());
    }
    let whole = table(1, 3, 120, values);
    for length in 0..whole.len() {
        assert_eq!(with_metrics(&whole[..length]), Health::default(), "{length} bytes");
    }
}

#[test]
fn hbm_stacks_keep_their_numbers() {
    let health = with_metrics(&table(1, 1, 96, &[(90, &[61, 0]), (94, &[63, 0])]));
    let celsius = |stack| health.temperature(TemperatureSensor::Hbm(stack)).map(|t| t.0 / 1000);
    assert_eq!([0, 1, 2, 3].map(celsius), [None, Some(61), None, Some(63)]);
}

#[test]
fn a_sleeping_gpu_is_left_asleep() {
    let (tree, gpu) = one_gpu();
    write(
        &tree,
        &[
            ("power/runtime_status", "suspended"),
            ("hwmon/hwmon0/temp1_input", "40000"),
            ("gpu_busy_percent", "5"),
            ("pp_dpm_sclk", "0: 500Mhz *"),
            ("ras/umc_err_count", "ue: 0\nce: 0"),
            ("mem_info_vram_total", "1024"),
        ],
    );
    let health = gpu.health();
    assert!(health.suspended);
    assert!(health.temperatures.is_empty() && health.clocks.is_empty() && health.ras.is_empty());
    assert_eq!(health.activity.gfx, None);
    assert_eq!(health.memory.vram.total, Some(Bytes(1024)));
    write(&tree, &[("power/runtime_status", "active")]);
    assert_eq!(gpu.health().activity.gfx, Some(Percent(5)));
}

#[test]
fn each_look_is_fresh() {
    let (tree, gpu) = one_gpu();
    write(&tree, &[("hwmon/hwmon0/temp1_input", "40000")]);
    assert_eq!(gpu.health().temperature(TemperatureSensor::Edge), Some(Millidegrees(40_000)));
    write(&tree, &[("hwmon/hwmon0/temp1_input", "90000")]);
    assert_eq!(gpu.health().temperature(TemperatureSensor::Edge), Some(Millidegrees(90_000)));
}

#[test]
fn the_driver_says_whether_it_tells_of_throttling() {
    let (tree, gpu) = one_gpu();
    let log = || Sensors::of(&gpu).throttling_log();
    assert_eq!(log(), None);
    let bdf = "0000:03:00.0: thermal throttling logging";
    let text = format!("{bdf} enabled, with interval 60 seconds");
    write(&tree, &[("thermal_throttling_logging", &text)]);
    assert_eq!(log(), Some(ThrottlingLog { enabled: true, interval: Duration::from_secs(60) }));
    write(&tree, &[("thermal_throttling_logging", &format!("{bdf} disabled"))]);
    assert_eq!(log(), Some(ThrottlingLog { enabled: false, interval: Duration::ZERO }));
}

#[test]
fn numbers_are_shown_with_their_units() {
    assert_eq!(Millidegrees(61_500).to_string(), "61.5 °C");
    assert_eq!(Microwatts(310_500_000).to_string(), "310.5 W");
    assert_eq!(Microjoules(1_500_000).to_string(), "1.500 J");
    assert_eq!(Millivolts(1050).to_string(), "1050 mV");
    assert_eq!(Percent(97).to_string(), "97 %");
    assert_eq!(Bytes(512).to_string(), "512 B");
    assert_eq!(Bytes(206_141_652_992).to_string(), "192.0 GiB");
    assert_eq!(Hertz(1_700_000_000).to_string(), "1700 MHz");
    assert_eq!(Rpm(1830).to_string(), "1830 rpm");
    assert_eq!(Megatransfers(16_000).to_string(), "16.0 GT/s");
}

const FILES: [&str; 16] = [
    "gpu_metrics",
    "hwmon/hwmon0/temp1_input",
    "hwmon/hwmon0/temp1_label",
    "hwmon/hwmon0/power1_average",
    "hwmon/hwmon0/in0_input",
    "hwmon/hwmon0/fan1_input",
    "hwmon/hwmon0/pwm1",
    "gpu_busy_percent",
    "mem_info_vram_total",
    "pp_dpm_sclk",
    "current_link_speed",
    "current_link_width",
    "ras/umc_err_count",
    "ras/gpu_vram_bad_pages",
    "power/runtime_status",
    "thermal_throttling_logging",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_not_available_and_never_a_panic(
        contents in proptest::collection::vec(
            (0..FILES.len(), proptest::collection::vec(any::<u8>(), 0..200)), 1..8),
    ) {
        let (tree, gpu) = one_gpu();
        for (file, content) in contents {
            tree.write(format!("{}/{}", device_dir(0), FILES[file]), content);
        }
        let health = gpu.health();
        let _ = (format!("{health:?}"), Sensors::of(&gpu).throttling_log());
        prop_assert!(health.activity.gfx.is_none_or(|busy| busy.0 <= 100));
    }

    #[test]
    fn any_table_with_a_known_header_is_read(
        layout in prop::sample::select(vec![
            (1, 0, 80), (2, 0, 120), (1, 1, 96), (1, 3, 120), (1, 4, 288), (1, 5, 360), (1, 6, 1664), (1, 7, 2208),
            (1, 8, 3360), (1, 9, 400), (2, 1, 120), (2, 4, 168), (3, 0, 264_u16),
        ]),
        fill in proptest::collection::vec(any::<u8>(), 4096),
    ) {
        let (format, content, size) = layout;
        let bytes = table(format, content, size, &[(4, &fill[4..usize::from(size)])]);
        let health = with_metrics(&bytes);
        for found in &health.temperatures {
            prop_assert!(found.current.unwrap().0 <= 200_000);
        }
    }
}
