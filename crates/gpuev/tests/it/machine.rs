//! Which GPUs a machine has.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use gpuev::{DeniedNode, ErrorKind, GfxTarget, Machine, UniqueId};
use proptest::prelude::*;

use crate::tree::{Node, Tree, node_dir};

#[test]
fn a_gpu_has_all_its_names() {
    let tree = Tree::new();
    tree.cpu(0);
    let device = tree.gpu(0);
    tree.write(format!("{device}/product_name"), "AMD Instinct MI300X OAM\n");
    tree.write(format!("{device}/current_compute_partition"), "SPX\n");
    tree.write(format!("{device}/current_memory_partition"), "NPS1\n");
    let inventory = tree.machine().inventory().unwrap();
    assert_eq!(inventory.generation, 2);
    assert!(inventory.denied.is_empty() && inventory.unreadable.is_empty());
    let [gpu] = inventory.gpus.as_slice() else { panic!("{inventory:?}") };
    assert_eq!(gpu.id.index, 0);
    assert_eq!(gpu.id.bdf.to_string(), "0000:03:00.0");
    assert_eq!(gpu.id.unique_id.unwrap().to_string(), "9246f3a1b0c70000");
    assert_eq!((gpu.id.partition, gpu.partitions), (0, 1));
    assert_eq!((gpu.id.kfd_id, gpu.node), (1000, 1));
    assert_eq!(gpu.name, "AMD Instinct MI300X OAM");
    assert_eq!(gpu.gfx_target.unwrap().to_string(), "gfx942");
    assert_eq!((gpu.render_minor, gpu.card), (Some(128), Some(1)));
    assert_eq!(gpu.device_id, Some(0x74a1));
    assert_eq!(gpu.compute_units, Some(304));
    assert_eq!(gpu.hive, Some(77));
    assert_eq!(gpu.compute_partition.as_deref(), Some("SPX"));
    assert_eq!(gpu.memory_partition.as_deref(), Some("NPS1"));
    assert_eq!(gpu.device_dir, tree.path(device));
    assert!(!gpu.apu);
}

#[test]
fn instruction_sets_are_written_as_compilers_do() {
    for (version, name) in [
        (80_003, "gfx803"),
        (90_006, "gfx906"),
        (90_010, "gfx90a"),
        (90_012, "gfx90c"),
        (90_402, "gfx942"),
        (90_500, "gfx950"),
        (100_300, "gfx1030"),
        (110_001, "gfx1101"),
        (110_501, "gfx1151"),
        (120_001, "gfx1201"),
    ] {
        assert_eq!(GfxTarget(version).to_string(), name);
    }
}

#[test]
fn the_name_comes_from_the_board_then_the_lists_then_the_driver() {
    let tree = Tree::new();
    let device = tree.gpu(0);
    let name = || tree.machine().gpus().unwrap()[0].name.clone();
    assert_eq!(name(), "", "`ip discovery` is no name");
    tree.write(format!("{}/name", node_dir(1)), "aldebaran\n");
    assert_eq!(name(), "aldebaran");
    tree.write(
        "usr/share/misc/pci.ids",
        "1001  Other\n\t74a1  Wrong\n1002  AMD/ATI\n# c\n\t74a0  Aqua Vanjaram [Instinct MI300A]\n\
         \t74a1  Aqua Vanjaram [Instinct MI300X]\n\t\t1002 74a1  Board\n1003  Last\n\t74a1  Wrong\n",
    );
    assert_eq!(name(), "Instinct MI300X");
    tree.write(
        "usr/share/libdrm/amdgpu.ids",
        "# comment, 1, x\n1.0.0\n74A1,\t01,\tWrong revision\n74A1,\t00,\tAMD Instinct MI300X\n",
    );
    assert_eq!(name(), "AMD Instinct MI300X");
    tree.write(format!("{device}/product_name"), "Board\u{1b}[31m\n");
    assert_eq!(name(), "AMD Instinct MI300X", "control bytes are no name");
    tree.write(format!("{device}/product_name"), "x".repeat(4000));
    assert_eq!(name(), "AMD Instinct MI300X", "nor is a page of them");
    tree.write(format!("{device}/product_name"), "Board\n");
    assert_eq!(name(), "Board");
}

#[test]
fn the_order_is_that_of_pci_addresses() {
    let tree = Tree::new();
    for (node, location_id) in [(1, 0xc300), (2, 0x0300), (3, 0x8300)] {
        let gpu_id = node * 11;
        tree.node(Node { node, gpu_id, location_id, render_minor: 127 + node, unique_id: 0 });
    }
    let gpus = tree.machine().gpus().unwrap();
    let order: Vec<_> = gpus.iter().map(|g| (g.id.index, g.id.bdf.to_string(), g.node)).collect();
    let expected = [(0, "0000:03:00.0", 2), (1, "0000:83:00.0", 3), (2, "0000:c3:00.0", 1)];
    assert_eq!(order, expected.map(|(index, bdf, node)| (index, bdf.to_owned(), node)));
    assert!(gpus.iter().all(|gpu| gpu.id.unique_id.is_none()), "0 is no unique id");
}

#[test]
fn a_pci_domain_is_part_of_the_address() {
    let tree = Tree::new();
    tree.gpu(0);
    let properties = "location_id 768\ndomain 65536\n";
    tree.write(format!("{}/properties", node_dir(1)), properties);
    assert_eq!(tree.machine().gpus().unwrap()[0].id.bdf.to_string(), "10000:03:00.0");
}

/// Eight partitions of GPU 0, with the bits of their number at `shift` of `location_id`.
fn partitioned(tree: &Tree, shift: u32) {
    let device = tree.gpu(0);
    tree.write(format!("{device}/current_compute_partition"), "CPX\n");
    for part in 0..8 {
        tree.node(Node {
            node: 1 + part,
            gpu_id: 500 + part,
            location_id: 0x300 | part.checked_shl(shift).unwrap_or(0),
            render_minor: 128 + part,
            unique_id: 0xffff_0000 + u64::from(part),
        });
        if part > 0 {
            let xcp = format!("sys/devices/platform/amdgpu_xcp_{}", part - 1);
            tree.write(format!("{xcp}/drm/card{}/dev", 10 + part), "");
            tree.link(
                format!("sys/class/drm/renderD{}/device", 128 + part),
                format!("../../../devices/platform/amdgpu_xcp_{}", part - 1),
            );
        }
    }
}

#[test]
fn partitions_share_an_address_and_have_numbers() {
    // Out-of-tree driver, Linux, and a driver that does not number them.
    for shift in [28, 0, 32] {
        let tree = Tree::new();
        partitioned(&tree, shift);
        let gpus = tree.machine().gpus().unwrap();
        assert_eq!(gpus.len(), 8, "shift {shift}");
        for (part, gpu) in (0..).zip(&gpus) {
            assert_eq!(gpu.id.bdf.to_string(), "0000:03:00.0");
            assert_eq!((gpu.id.partition, gpu.partitions), (part, 8));
            assert_eq!(gpu.id.kfd_id, 500 + part);
            assert_eq!(gpu.id.unique_id, Some(UniqueId(0x9246_f3a1_b0c7_0000)));
            assert_eq!(gpu.render_minor, Some(128 + part));
            assert_eq!(gpu.card, Some(if part == 0 { 1 } else { 10 + part }));
            assert_eq!(gpu.compute_partition.as_deref(), Some("CPX"));
        }
    }
}

#[test]
fn partitions_are_recognised_without_a_pci_bus() {
    let tree = Tree::new();
    partitioned(&tree, 0);
    tree.remove("sys/bus");
    let gpus = tree.machine().gpus().unwrap();
    assert!(gpus.iter().all(|gpu| gpu.id.bdf.to_string() == "0000:03:00.0" && gpu.partitions == 8));
}

#[test]
fn a_virtual_function_is_not_a_partition() {
    let tree = Tree::new();
    tree.gpu(0);
    tree.write("sys/bus/pci/devices/0000:03:00.2/vendor", "0x1002\n");
    tree.node(Node { node: 2, gpu_id: 9, location_id: 0x302, render_minor: 129, unique_id: 0 });
    let gpus = tree.machine().gpus().unwrap();
    assert_eq!(gpus[1].id.bdf.to_string(), "0000:03:00.2");
    assert_eq!((gpus[1].id.partition, gpus[1].partitions), (0, 1));
}

#[test]
fn sixty_three_partitions_and_sixty_four_gpus() {
    let tree = Tree::new();
    for part in 0..63 {
        let location_id = 0x300;
        let (gpu_id, render_minor) = (1 + part, 128 + part);
        tree.node(Node { node: part, gpu_id, location_id, render_minor, unique_id: 5 });
    }
    let gpus = tree.machine().gpus().unwrap();
    assert_eq!((gpus.len(), gpus[62].id.partition, gpus[62].partitions), (63, 62, 63));

    let tree = Tree::new();
    for n in 0..64 {
        tree.gpu(n);
    }
    let gpus = tree.machine().gpus().unwrap();
    assert_eq!((gpus.len(), gpus[63].id.index), (64, 63));
    assert_eq!(gpus[63].id.bdf.to_string(), "0000:42:00.0");
}

#[test]
fn a_denied_node_is_not_an_error() {
    let tree = Tree::new();
    for n in 0..3 {
        tree.gpu(n);
    }
    tree.deny(format!("{}/gpu_id", node_dir(1)));
    tree.deny(format!("{}/properties", node_dir(3)));
    let inventory = tree.machine().inventory().unwrap();
    assert_eq!(inventory.denied, [DeniedNode { node: 1 }, DeniedNode { node: 3 }]);
    assert_eq!(inventory.gpus.len(), 1);
    assert_eq!((inventory.gpus[0].node, inventory.gpus[0].id.index), (2, 0));
    let error = inventory.find("0000:03:00.0").unwrap_err().to_string();
    assert!(error.contains("2 that the device cgroup keeps from us"), "{error}");
}

#[test]
fn an_apu_is_a_gpu() {
    let tree = Tree::new();
    let properties = "cpu_cores_count 16\nsimd_count 24\nsimd_per_cu 2\ngfx_target_version 110003\n\
                      location_id 50432\ndomain 0\ndrm_render_minor 128\nunique_id 0\n";
    tree.write(format!("{}/gpu_id", node_dir(0)), "31415\n");
    tree.write(format!("{}/properties", node_dir(0)), properties);
    let gpus = tree.machine().gpus().unwrap();
    assert!(gpus[0].apu);
    assert_eq!(
        (gpus[0].id.bdf.to_string().as_str(), gpus[0].compute_units),
        ("0000:c5:00.0", Some(12))
    );
}

#[test]
fn no_gpu_is_an_empty_list_and_no_topology_says_why() {
    let tree = Tree::new();
    tree.cpu(0);
    assert!(tree.machine().gpus().unwrap().is_empty());
    assert_eq!(tree.machine().find("0").unwrap_err().kind(), ErrorKind::NoGpu);

    let hint = |tree: &Tree| {
        let error = tree.machine().inventory().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoGpu);
        assert_eq!(tree.machine().generation().unwrap_err().kind(), ErrorKind::NoGpu);
        error.hint().unwrap().to_owned()
    };
    let tree = Tree::bare();
    assert!(hint(&tree).contains("the PCI bus cannot be seen"));
    tree.write("sys/bus/pci/devices/.keep", "");
    assert!(hint(&tree).contains("no AMD GPU is on the PCI bus"));
    tree.write("sys/bus/pci/devices/0000:03:00.0/vendor", "0x1002\n");
    tree.write("sys/bus/pci/devices/0000:03:00.0/class", "0x030000\n");
    assert!(hint(&tree).contains("modprobe amdgpu"));
    tree.write("sys/module/amdgpu/initstate", "live\n");
    assert!(hint(&tree).contains("CONFIG_HSA_AMD") && hint(&tree).contains("mount /sys"));
    tree.write("sys/class/kfd/kfd/dev", "235:0\n");
    assert!(hint(&tree).contains("kernel's log"));
}

#[test]
fn a_node_without_identity_is_told_apart_from_the_others() {
    let tree = Tree::new();
    for n in 0..4 {
        tree.gpu(n);
    }
    tree.write(format!("{}/gpu_id", node_dir(1)), "nonsense");
    tree.remove(format!("{}/properties", node_dir(2)));
    tree.write(format!("{}/properties", node_dir(3)), "");
    let inventory = tree.machine().inventory().unwrap();
    let nodes: Vec<_> = inventory.unreadable.iter().map(|node| node.node).collect();
    assert_eq!(nodes, [1, 2, 3]);
    assert!(inventory.unreadable[0].problem.contains("nodes/1/gpu_id"));
    assert_eq!(inventory.gpus.len(), 1);
}

#[test]
fn the_address_is_found_behind_the_render_node() {
    let tree = Tree::new();
    tree.gpu(4);
    tree.write(format!("{}/properties", node_dir(5)), "drm_render_minor 132\nlocation_id -1\n");
    let gpus = tree.machine().gpus().unwrap();
    assert_eq!(gpus[0].id.bdf.to_string(), "0000:07:00.0");
    assert_eq!(gpus[0].gfx_target, None);
    assert_eq!(gpus[0].compute_units, None);
}

#[test]
fn files_that_are_no_files_do_not_stop_anybody() {
    let tree = Tree::new();
    let device = tree.gpu(0);
    for name in ["product_name", "current_compute_partition"] {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            tree.path(format!("{device}/{name}")),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
    }
    fs::create_dir_all(tree.path(format!("{device}/current_memory_partition"))).unwrap();
    // A gigabyte, of which only the first page may be read.
    let huge = fs::File::create(tree.path(format!("{}/name", node_dir(1)))).unwrap();
    huge.set_len(1 << 30).unwrap();
    let mut properties = fs::File::options()
        .append(true)
        .open(tree.path(format!("{}/properties", node_dir(1))))
        .unwrap();
    properties.write_all(b"\n").unwrap();
    properties.set_len(1 << 30).unwrap();
    let gpu = &tree.machine().gpus().unwrap()[0];
    assert_eq!(gpu.id.bdf.to_string(), "0000:03:00.0");
    assert_eq!(gpu.compute_partition, None);
    assert_eq!(gpu.memory_partition, None);
}

#[test]
fn gpus_are_found_by_what_people_write() {
    let tree = Tree::new();
    tree.gpu(0);
    tree.gpu(1);
    let machine = tree.machine();
    for name in
        ["1", "0000:04:00.0", "04:00.0", "9246f3a1b0c70001", "0x9246F3A1B0C70001", "0000:04:00.0/0"]
    {
        assert_eq!(machine.find(name).unwrap().id.index, 1, "{name}");
    }
    for name in ["2", "0000:05:00.0", "0000:04:00.0/1", "1111111111111111"] {
        let error = machine.find(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(text.contains("0: 0000:03:00.0 (9246f3a1b0c70000), 1: 0000:04:00.0"), "{text}");
    }
    for name in ["", "gpu0", "-1", "0000:04:00.0/x", "0000:04:00", "0x", "/", "0/"] {
        let error = machine.find(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        assert!(error.to_string().contains("does not name a GPU"), "{error}");
    }
}

#[test]
fn an_address_without_partition_means_all_of_them() {
    let tree = Tree::new();
    partitioned(&tree, 0);
    let inventory = tree.machine().inventory().unwrap();
    assert_eq!(inventory.select("0000:03:00.0").unwrap().len(), 8);
    assert_eq!(inventory.find("0000:03:00.0/5").unwrap().id.partition, 5);
    assert_eq!(inventory.find("9246f3a1b0c70000/2").unwrap().id.partition, 2);
    let error = inventory.find("0000:03:00.0").unwrap_err().to_string();
    assert!(error.contains("8 partitions") && error.contains("0000:03:00.0/0"), "{error}");
}

#[test]
fn the_topology_changes() {
    let tree = Tree::new();
    tree.gpu(0);
    let machine = tree.machine();
    assert_eq!(machine.generation().unwrap(), 2);
    tree.gpu(1);
    tree.write("sys/class/kfd/kfd/topology/generation_id", "3\n");
    let inventory = machine.inventory().unwrap();
    assert_eq!((inventory.generation, inventory.gpus.len()), (3, 2));
    tree.remove(node_dir(1));
    assert_eq!(machine.gpus().unwrap()[0].id.bdf.to_string(), "0000:04:00.0");
    tree.write("sys/class/kfd/kfd/topology/generation_id", "many\n");
    assert_eq!(machine.generation().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(machine.inventory().unwrap().generation, 0);
}

#[test]
fn what_the_machine_says_of_itself() {
    let tree = Tree::new();
    tree.write("sys/module/amdgpu/version", "6.12.12\n");
    tree.write("sys/module/amdgpu/srcversion", "0123456789ABCDEF\n");
    tree.write("sys/module/amdgpu/refcnt", "4\n");
    tree.write("proc/sys/kernel/osrelease", "7.2.13+deb14-amd64\n");
    tree.write("proc/sys/kernel/random/boot_id", "1f0c-22\n");
    tree.write("proc/sys/kernel/hostname", "node7\n");
    let machine = tree.machine();
    let driver = machine.driver();
    assert!(driver.loaded && !driver.built_in);
    assert_eq!(driver.version.as_deref(), Some("6.12.12"));
    assert_eq!(driver.srcversion.as_deref(), Some("0123456789ABCDEF"));
    assert_eq!(driver.references, Some(4));
    assert_eq!(machine.kernel_release().as_deref(), Some("7.2.13+deb14-amd64"));
    assert_eq!(machine.boot_id().as_deref(), Some("1f0c-22"));
    assert_eq!(machine.hostname().as_deref(), Some("node7"));
    tree.remove("sys/module/amdgpu/initstate");
    assert!(machine.driver().built_in);
    let bare = Tree::bare().machine();
    assert!(!bare.driver().loaded);
    assert_eq!(bare.boot_id(), None);
    assert_eq!(Machine::host().root(), Path::new("/"));
    assert_eq!(machine.path("/proc/1"), machine.path("proc/1"));
    assert!(machine.path("/proc/1").starts_with(machine.root()));
}

/// The files of one GPU that do not identify it.
const DETAILS: [&str; 8] = [
    "unique_id",
    "product_name",
    "revision",
    "current_compute_partition",
    "current_memory_partition",
    "vendor",
    "class",
    "drm",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_in_a_detail_loses_no_gpu(
        file in 0..DETAILS.len() + 3,
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let tree = Tree::new();
        tree.cpu(0);
        tree.gpu(0);
        let device = tree.gpu(1);
        let path = match file.checked_sub(DETAILS.len()) {
            None => format!("{device}/{}", DETAILS[file]),
            Some(0) => format!("{}/name", node_dir(2)),
            Some(1) => "sys/class/kfd/kfd/topology/generation_id".to_owned(),
            Some(_) => "usr/share/libdrm/amdgpu.ids".to_owned(),
        };
        if tree.path(&path).exists() {
            tree.remove(&path);
        }
        tree.write(path, garbage);
        let gpus = tree.machine().gpus().unwrap();
        prop_assert_eq!(gpus.len(), 2);
        prop_assert_eq!(gpus[1].id.bdf.to_string(), "0000:04:00.0");
        prop_assert_eq!(gpus[1].id.kfd_id, 1001);
    }

    #[test]
    fn garbage_in_an_identity_is_a_gpu_or_says_so(
        in_properties: bool,
        garbage in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "(location_id|domain|gpu_id|unique_id|drm_render_minor|gfx_target_version) [0-9-]{0,25}\n"
                .prop_map(String::into_bytes),
        ],
    ) {
        let tree = Tree::new();
        tree.gpu(0);
        tree.gpu(1);
        let name = if in_properties { "properties" } else { "gpu_id" };
        tree.write(format!("{}/{name}", node_dir(2)), garbage);
        let inventory = tree.machine().inventory().unwrap();
        prop_assert!((1..=2).contains(&inventory.gpus.len()));
        prop_assert_eq!(inventory.gpus.iter().filter(|gpu| gpu.id.kfd_id == 1000).count(), 1);
        let _ = format!("{inventory:?}");
        for gpu in &inventory.gpus {
            prop_assert_ne!(gpu.id.kfd_id, 0);
        }
        prop_assert!(inventory.unreadable.len() + inventory.gpus.len() <= 2);
    }
}
