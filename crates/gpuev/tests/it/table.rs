//! The driver's table `gpu_metrics` as it is, and the list of bad pages.

use gpuev::health::{BadPageStatus, MetricsTable, Sensors};
use proptest::prelude::*;

use crate::tree::{Tree, device_dir};

fn table(bytes: &[u8]) -> Option<MetricsTable> {
    let tree = Tree::new();
    tree.gpu(0);
    tree.write(format!("{}/gpu_metrics", device_dir(0)), bytes);
    let gpu = tree.machine().gpus().unwrap().remove(0);
    Sensors::of(&gpu).metrics_table()
}

/// A table in which each byte is its offset, lowest seven bits: never all ones.
fn counting(size: u16, content: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| (at & 0x7f) as u8).collect();
    bytes[..2].copy_from_slice(&size.to_le_bytes());
    bytes[2..4].copy_from_slice(&[1, content]);
    bytes
}

/// Where a field is in such a table.
fn offset(table: &MetricsTable, name: &str) -> u64 {
    table.get(name).unwrap()[0].unwrap() & 0x7f
}

/// Names and offsets.
type Fields = &'static [(&'static str, u64)];

/// Offsets by the header of the kernel, modulo 128.
#[test]
fn fields_are_where_the_drivers_structure_has_them() {
    let known: [(u16, u8, Fields); 8] = [
        (96, 1, &[("energy_accumulator", 24), ("throttle_status", 68), ("temperature_hbm", 88)]),
        (104, 2, &[("gfx_activity_acc", 80), ("firmware_timestamp", 96)]),
        (120, 3, &[("pcie_link_speed", 76), ("voltage_gfx", 106), ("indep_throttle_status", 112)]),
        (288, 4, &[("energy_accumulator", 24), ("throttle_status", 40), ("pcie_link_width", 48)]),
        (
            360,
            5,
            &[("energy_accumulator", 88), ("pcie_link_width", 112), ("current_uclk", 352 - 256)],
        ),
        (
            1664,
            6,
            &[
                ("accumulation_counter", 32),
                ("pcie_link_width", 60),
                ("pcie_replay_count_acc", 104),
            ],
        ),
        (
            2208,
            7,
            &[("vram_max_bandwidth", 16), ("energy_accumulator", 24), ("current_uclk", 336 - 256)],
        ),
        (
            3360,
            8,
            &[("accumulation_counter", 40), ("pcie_link_width", 68), ("num_partition", 338 - 256)],
        ),
    ];
    for (size, content, fields) in known {
        let table = table(&counting(size, content)).unwrap();
        assert_eq!((table.size, table.format, table.content), (size, 1, content));
        for (name, at) in fields {
            assert_eq!(offset(&table, name), *at, "{name} of 1.{content}");
        }
    }
}

#[test]
fn partitions_have_their_own_fields() {
    for (size, content, stride, fields) in
        [(1664, 6, 168, 4), (2208, 7, 232, 5), (3360, 8, 376, 7), (3872, 8, 440, 8)]
    {
        let table = table(&counting(size, content)).unwrap();
        assert_eq!(table.partitions.len(), 8);
        let begin = if content == 6 { 312 } else { 344 };
        for (place, partition) in (0_u64..).zip(&table.partitions) {
            assert_eq!(partition.len(), fields, "1.{content} of {size} bytes");
            let first = partition[0].values[0].unwrap() & 0x7f;
            assert_eq!(
                (partition[0].name, first),
                ("gfx_busy_inst", (begin + stride * place) & 0x7f)
            );
        }
        assert_eq!(offset(&table, "pcie_lc_perf_other_end_recovery"), (begin + 8 * stride) & 0x7f);
    }
}

#[test]
fn all_ones_are_no_value() {
    let mut bytes = counting(120, 3);
    bytes[22..24].fill(0xff);
    bytes[88..96].fill(0xff);
    let table = table(&bytes).unwrap();
    assert_eq!(table.get("average_socket_power"), Some(&[None][..]));
    assert_eq!(table.get("temperature_hbm"), Some(&[None; 4][..]));
    assert_eq!(table.get("vcn_activity"), None, "1.3 has no such field");
}

#[test]
fn a_revision_that_is_not_known_has_a_header_and_no_fields() {
    let mut bytes = counting(120, 3);
    bytes[2] = 7;
    let table = table(&bytes).unwrap();
    assert_eq!((table.size, table.format, table.fields.len()), (120, 7, 0));
}

#[test]
fn attributes_describe_themselves() {
    let attribute = |id: u64, kind: u64, unit: u64, count: u64| {
        (unit << 24 | kind << 20 | id << 10 | count).to_le_bytes()
    };
    let mut bytes = vec![0, 1, 1, 9, 3, 0, 0, 0];
    bytes.extend(attribute(17, 2, 6, 1));
    bytes.extend(32_u16.to_le_bytes());
    bytes.extend(attribute(33, 2, 1, 2));
    bytes.extend([0x10, 0x02, 0xff, 0xff]);
    bytes.extend(attribute(999, 2, 0, 1));
    bytes.extend([1, 0]);
    let table = table(&bytes).unwrap();
    assert_eq!(
        table.get("pcie_link_speed"),
        Some(&[Some(320)][..]),
        "in tenths, as in all other revisions"
    );
    assert_eq!(table.get("current_gfxclks"), Some(&[Some(0x210), None][..]));
    assert_eq!(table.fields.len(), 2);
}

proptest! {
    // Each makes a machine.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..4000), content in 0_u8..12) {
        if let Some(header) = bytes.get_mut(2..4) {
            header.copy_from_slice(&[1, content]);
        }
        let _anything = table(&bytes);
    }
}

#[test]
fn bad_pages_one_by_one() {
    let tree = Tree::new();
    tree.gpu(0);
    let pages = || {
        let gpu = tree.machine().gpus().unwrap().remove(0);
        let list = Sensors::of(&gpu).bad_page_list()?;
        Some(list.iter().map(|page| (page.page, page.size, page.status)).collect::<Vec<_>>())
    };
    assert_eq!(pages(), None);
    let lines = "0x00abcdef : 0x00001000 : R\n0x12 : 0x1000 : P\n\nrubbish\n0x13 : 0x1000 : F\n0x14 : 0x1000 : X\n";
    tree.write(format!("{}/ras/gpu_vram_bad_pages", device_dir(0)), lines);
    let expected = [
        (0xab_cdef, 4096, BadPageStatus::Reserved),
        (0x12, 4096, BadPageStatus::Pending),
        (0x13, 4096, BadPageStatus::Unreservable),
    ];
    assert_eq!(pages(), Some(expected.to_vec()));
}
