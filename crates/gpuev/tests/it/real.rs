//! What real machines say, and what it means: partitions in containers, APUs, old kernels, cards without KFD.

use gpuev::health::{Bytes, Percent, Usage};
use gpuev::{Gpu, Inventory};

use crate::tree::{Tree, device_dir, node_dir};

const GIB: u64 = 1 << 30;

/// A node of KFD: what its properties say, and its memory bank.
fn node(tree: &Tree, node: u32, properties: &str, bank: u64) {
    let dir = node_dir(node);
    tree.write(format!("{dir}/gpu_id"), format!("{}\n", 1000 + node));
    tree.write(format!("{dir}/properties"), properties);
    let bank = format!("heap_type 1\nsize_in_bytes {bank}\nflags 0\n");
    tree.write(format!("{dir}/mem_banks/0/properties"), bank);
}

/// A partition of the GPU at 0a:00.0, as Linux places it.
fn partition(tree: &Tree, number: u32, device: u16) {
    let location = 0x0a00 | number;
    let properties = format!(
        "cpu_cores_count 0\nsimd_count 152\nsimd_per_cu 4\ngfx_target_version 90402\nnum_xcc 1\ndevice_id {device}\n\
         location_id {location}\ndomain 0\ndrm_render_minor {}\nunique_id 10523\n",
        128 + number
    );
    node(tree, 1 + number, &properties, 24 * GIB);
}

fn card(tree: &Tree, bdf: &str, files: &[(&str, &str)]) -> String {
    let dir = format!("sys/bus/pci/devices/{bdf}");
    tree.write(format!("{dir}/vendor"), "0x1002\n");
    tree.write(format!("{dir}/class"), "0x030000\n");
    for (file, content) in files {
        tree.write(format!("{dir}/{file}"), format!("{content}\n"));
    }
    dir
}

fn only(inventory: &Inventory) -> &Gpu {
    let [gpu] = &inventory.gpus[..] else { panic!("{inventory:?}") };
    gpu
}

#[test]
fn one_of_eight_partitions_in_a_container_is_what_it_is_on_the_host() {
    for sees_bus in [true, false] {
        let tree = Tree::new();
        tree.cpu(0);
        partition(&tree, 5, 0x74a1);
        if sees_bus {
            let files = [("current_compute_partition", "CPX"), ("unique_id", "00000000000028ff")];
            card(&tree, "0000:0a:00.0", &files);
        }
        let inventory = tree.machine().inventory().unwrap();
        let gpu = only(&inventory);
        assert_eq!(gpu.id.bdf.to_string(), "0000:0a:00.0", "bus: {sees_bus}");
        assert_eq!((gpu.id.partition, gpu.partitions), (5, 8), "bus: {sees_bus}");
        assert_eq!(gpu.local_memory, Some(Bytes(24 * GIB)));
    }
}

#[test]
fn a_partition_that_is_missing_does_not_change_the_number_of_the_others() {
    for (mode, device, count) in [
        ("CPX", 0x74a1, 8),
        ("CPX", 0x74a2, 4),
        ("CPX", 0x74a0, 6),
        ("QPX", 0x74a1, 4),
        ("", 0x74a1, 8),
        ("CPX", 0x7fff, 4),
    ] {
        let tree = Tree::new();
        for number in [0, 1, 3] {
            partition(&tree, number, device);
        }
        card(&tree, "0000:0a:00.0", &[("current_compute_partition", mode)]);
        let gpus = tree.machine().gpus().unwrap();
        let seen: Vec<_> = gpus.iter().map(|gpu| (gpu.id.partition, gpu.partitions)).collect();
        assert_eq!(seen, [(0, count), (1, count), (3, count)], "{mode} of {device:x}");
    }
}

#[test]
fn what_is_of_the_whole_gpu_is_not_a_partitions() {
    let tree = Tree::new();
    for number in 0..4 {
        partition(&tree, number, 0x74a2);
    }
    let files = [
        ("current_compute_partition", "CPX"),
        ("mem_info_vram_total", "206141652992"),
        ("mem_info_vram_used", "297775104"),
        ("gpu_busy_percent", "87"),
        ("hwmon/hwmon1/power1_average", "300000000"),
        ("hwmon/hwmon1/temp1_input", "60000"),
        ("ras/umc_err_count", "ue: 1\nce: 0"),
    ];
    card(&tree, "0000:0a:00.0", &files);
    let healths: Vec<_> = tree.machine().gpus().unwrap().iter().map(Gpu::health).collect();
    let totals: u64 = healths.iter().map(|health| health.memory.vram.total.unwrap().0).sum();
    assert_eq!(totals, 4 * 24 * GIB, "sums are right");
    for health in &healths {
        assert_eq!(health.memory.vram.used, None, "nobody says");
        assert_eq!((health.power.average, health.activity.gfx), (None, None));
        assert!(health.ras.is_empty() && health.temperatures.is_empty());
        let whole = health.of_gpu();
        let used = Usage { total: Some(Bytes(206_141_652_992)), used: Some(Bytes(297_775_104)) };
        assert_eq!((whole.memory.vram, whole.memory.usable), (used, used));
        assert_eq!(whole.activity.gfx, Some(Percent(87)));
        assert_eq!((whole.temperatures.len(), whole.ras.len()), (1, 1));
        assert!(whole.power.average.is_some() && whole.whole_gpu.is_none());
    }
}

#[test]
fn a_partition_tells_of_itself_in_a_table_of_its_own() {
    let tree = Tree::new();
    partition(&tree, 3, 0x74a1);
    let mut table = vec![0xff; 488];
    table[..4].copy_from_slice(&[0xe8, 1, 1, 0]);
    table[48..52].copy_from_slice(&42_u32.to_le_bytes());
    table[160..162].copy_from_slice(&7_u16.to_le_bytes());
    tree.write("sys/class/drm/renderD131/device/xcp/xcp_metrics", &table);
    let gpu = only(&tree.machine().inventory().unwrap()).clone();
    let activity = gpu.health().activity;
    assert_eq!((activity.gfx, activity.media), (Some(Percent(42)), Some(Percent(7))));
    // Revision 1.1: attribute 40 has one number of four bytes, which is 9.
    let attribute = (40_u64 << 10 | 4 << 20 | 1).to_le_bytes();
    let table = [&[0, 0, 1, 1, 1, 0, 0, 0][..], &attribute, &9_u32.to_le_bytes()].concat();
    tree.write("sys/class/drm/renderD131/device/xcp/xcp_metrics", table);
    assert_eq!(gpu.health().activity.gfx, Some(Percent(9)));
}

/// A GPU of this instruction set, and what its files and KFD say of its memory.
fn gpu_with(target: u32, capability: u64, bank: u64, files: &[(&str, &str)]) -> (Tree, Gpu) {
    let tree = Tree::new();
    let properties = format!(
        "cpu_cores_count 0\nsimd_count 80\nsimd_per_cu 2\ngfx_target_version {target}\ncapability {capability}\n\
         location_id 768\ndomain 0\nlocal_mem_size 0\n"
    );
    node(&tree, 1, &properties, bank);
    card(&tree, "0000:03:00.0", files);
    let gpu = only(&tree.machine().inventory().unwrap()).clone();
    (tree, gpu)
}

#[test]
fn apus_are_told_from_cards() {
    let vram = |bytes| [("mem_info_vram_total", bytes), ("mem_info_gtt_total", "17179869184")];
    let coherent = 1 << 28;
    for (target, capability, bank, vram_total, is_apu) in [
        (90_012, 0, 16 * GIB, "536870912", true),
        (110_003, 0, 31 * GIB, "4294967296", true),
        (110_501, 0, 16 * GIB, "536870912", true),
        (110_599, 0, 0, "0", true),
        (100_306, 0, 16 * GIB, "536870912", true),
        (90_402, coherent, 128 * GIB, "137438953472", true),
        (90_402, 0, 192 * GIB, "206158430208", false),
        // MI250X beside a CPU of the same fabric.
        (90_010, coherent, 64 * GIB, "68719476736", false),
        (90_010, 0, 64 * GIB, "68719476736", false),
        (100_302, 0, 16 * GIB, "17179869184", false),
        (120_001, 0, 16 * GIB, "17179869184", false),
        // Chips that this list does not know: one borrows its memory from the host.
        (130_000, 0, 16 * GIB, "536870912", true),
        (130_000, 0, 16 * GIB, "17179869184", false),
        (130_000, 0, 8 * GIB, "8589934592", false),
    ] {
        let (_tree, gpu) = gpu_with(target, capability, bank, &vram(vram_total));
        assert_eq!(gpu.apu, is_apu, "{target} with {bank} of {vram_total}");
    }
    let (tree, card) = gpu_with(130_000, 0, 8 * GIB, &[]);
    assert!(!card.apu);
    tree.write("sys/bus/pci/devices/0000:03:00.0/gpu_metrics", [8, 1, 3, 0]);
    assert!(tree.machine().gpus().unwrap()[0].apu, "the table's form tells");
}

#[test]
fn the_memory_of_an_apu_is_what_it_can_use() {
    let files = [
        ("mem_info_vram_total", "536870912"),
        ("mem_info_vram_used", "512753664"),
        ("mem_info_gtt_total", "118111600640"),
        ("mem_info_gtt_used", "25864192000"),
    ];
    let (_tree, apu) = gpu_with(110_501, 0, 110 * GIB, &files);
    let memory = apu.health().memory;
    assert_eq!(memory.usable.total, Some(Bytes(536_870_912 + 118_111_600_640)));
    assert_eq!(memory.usable.used, Some(Bytes(512_753_664 + 25_864_192_000)));
    assert_eq!(memory.vram.total, Some(Bytes(536_870_912)));
    let (_tree, card) = gpu_with(110_000, 0, GIB / 2, &files);
    assert_eq!(card.health().memory.usable, card.health().memory.vram);
    // Half of a sum is none.
    let (_tree, unknown) = gpu_with(110_501, 0, 110 * GIB, &files[..3]);
    assert_eq!(unknown.health().memory.usable.used, None);
    // All memory of MI300A is its VRAM.
    let (_tree, mi300a) = gpu_with(90_402, 1 << 28, 128 * GIB, &files);
    assert_eq!(mi300a.health().memory.usable, mi300a.health().memory.vram);
}

#[test]
fn old_kernels_do_not_say_the_instruction_set() {
    for (device, target) in [(0x6860, "gfx900"), (0x15dd, "gfx902"), (0x67ef, "gfx803")] {
        let tree = Tree::new();
        let properties = format!("cpu_cores_count 0\ndevice_id {device}\nlocation_id 768\n");
        node(&tree, 1, &properties, GIB);
        let gpu = only(&tree.machine().inventory().unwrap()).clone();
        assert_eq!(gpu.gfx_target.map(|target| target.to_string()).as_deref(), Some(target));
    }
}

#[test]
fn power_that_cannot_be_is_not_told() {
    let draws = |average: &str, cap: &str| {
        let files = [("hwmon/hwmon1/power1_average", average), ("hwmon/hwmon1/power1_cap", cap)];
        let (_tree, gpu) = gpu_with(90_012, 0, GIB, &files);
        gpu.health().power.average.map(|power| power.0)
    };
    assert_eq!(draws("0", "0"), None, "the second die of an MI250");
    assert_eq!(draws("1000", "0"), None, "watts times 256 through 1000");
    assert_eq!(draws("11000", "0"), None);
    assert_eq!(draws("1090000000", "37000000"), None, "thirty times the limit");
    assert_eq!(draws("40000000", "37000000"), Some(40_000_000));
    assert_eq!(draws("3103000", "0"), Some(3_103_000));
}

#[test]
fn activity_of_an_apus_table_is_in_hundredths() {
    let busy = |revision: u8, size: u16, at: usize, value: u16, target| {
        let (tree, gpu) = gpu_with(target, 0, GIB, &[]);
        let mut table = vec![0xff; usize::from(size)];
        table[..2].copy_from_slice(&size.to_le_bytes());
        let (format, content) = if revision == 30 { (3, 0) } else { (2, revision - 20) };
        table[2..4].copy_from_slice(&[format, content]);
        table[at..at + 2].copy_from_slice(&value.to_le_bytes());
        tree.write("sys/bus/pci/devices/0000:03:00.0/gpu_metrics", table);
        gpu.health().activity.gfx.map(|percent| percent.0)
    };
    for (revision, size, at) in [(20, 120, 40), (21, 120, 28), (22, 128, 28), (23, 152, 28)] {
        assert_eq!(busy(revision, size, at, 79, 110_003), Some(0), "{revision}");
        assert_eq!(busy(revision, size, at, 5700, 110_003), Some(57), "{revision}");
        assert_eq!(busy(revision, size, at, 10_000, 110_003), Some(100), "{revision}");
    }
    assert_eq!(busy(30, 264, 42, 5700, 110_501), Some(57));
    // Van Gogh's unit depends on its firmware: what may be either is not told.
    assert_eq!(busy(23, 152, 28, 57, 100_303), None);
    assert_eq!(busy(23, 152, 28, 5700, 100_303), Some(57));
    assert_eq!(busy(23, 152, 28, 0, 100_303), Some(0));
}

#[test]
fn cards_without_kfd_are_named_with_what_drives_them() {
    let tree = Tree::new();
    tree.cpu(0);
    let oland = card(&tree, "0000:01:00.0", &[("device", "0x6613")]);
    tree.link(format!("{oland}/driver"), "../../../drivers/amdgpu");
    let given = card(&tree, "0000:02:00.0", &[("device", "0x744c")]);
    tree.link(format!("{given}/driver"), "../../../drivers/vfio-pci");
    tree.gpu(4);
    let inventory = tree.machine().inventory().unwrap();
    assert_eq!(only(&inventory).device_dir, tree.path(device_dir(4)));
    let missing = gpuev::advice::missing(&inventory);
    assert_eq!(missing.len(), 2, "{missing:?}");
    for word in ["0000:01:00.0", "1002:6613", "amdgpu", "left it out", "dmesg"] {
        assert!(missing[0].contains(word), "{word}: {missing:?}");
    }
    assert!(
        missing[1].contains("vfio-pci") && missing[1].contains("virtual machine"),
        "{missing:?}"
    );
    // A node that the device cgroup hides may be one of them.
    tree.deny(format!("{}/gpu_id", node_dir(0)));
    let denied = gpuev::advice::missing(&tree.machine().inventory().unwrap());
    assert!(denied.iter().any(|text| text.contains("or KFD has left it out")), "{denied:?}");
}

/// Why a machine without KFD has no GPU.
fn why(tree: &Tree) -> String {
    tree.machine().inventory().unwrap_err().to_string()
}

#[test]
fn what_is_advised_without_a_driver_depends_on_the_cards() {
    let tree = Tree::bare();
    assert!(why(&tree).contains("PCI bus cannot be seen"), "{}", why(&tree));
    tree.write("sys/bus/pci/devices/.keep", "");
    assert!(why(&tree).contains("no AMD GPU is on the PCI bus"), "{}", why(&tree));
    let pitcairn = card(&tree, "0000:01:00.0", &[("device", "0x6818")]);
    assert!(why(&tree).contains("0000:01:00.0 (1002:6818) has no driver"), "{}", why(&tree));
    assert!(why(&tree).contains("modprobe amdgpu"), "{}", why(&tree));
    tree.write("etc/modprobe.d/gpu.conf", "# off\nblacklist amdgpu\n");
    assert!(
        why(&tree).contains("blacklisted in") && why(&tree).contains("gpu.conf"),
        "{}",
        why(&tree)
    );
    assert!(!why(&tree).contains("modprobe amdgpu"), "{}", why(&tree));
    tree.remove("etc/modprobe.d/gpu.conf");
    tree.write("run/.containerenv", "");
    assert!(why(&tree).contains("the host has to load amdgpu"), "{}", why(&tree));
    tree.link(format!("{pitcairn}/driver"), "../../../drivers/radeon");
    assert!(why(&tree).contains("radeon, which has no KFD"), "{}", why(&tree));
    assert!(!why(&tree).contains("load"), "{}", why(&tree));
}

#[test]
fn windows_passes_no_kfd_on() {
    let tree = Tree::bare();
    tree.write("proc/sys/kernel/osrelease", "5.15.153.1-microsoft-standard-WSL2\n");
    assert!(why(&tree).contains("WSL"), "{}", why(&tree));
    assert!(!why(&tree).contains("modprobe"), "{}", why(&tree));
    let tree = Tree::bare();
    tree.write("dev/dxg", "");
    assert!(why(&tree).contains("WSL"), "{}", why(&tree));
}
