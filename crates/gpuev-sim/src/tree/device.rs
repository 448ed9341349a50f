//! A GPU's folder on the PCI bus, its DRM nodes, and the links to them.

use std::fmt::Write as _;
use std::io;

use super::{Tree, hwmon, write_all};
use crate::board::Board;
use crate::clock::boot_ns;
use crate::gpu::{Device, SimGpu};
use crate::health::{Health, RAS_BLOCKS};
use crate::metrics::gpu_metrics;

const GTT_BYTES: u64 = 67_373_875_200;
const DRIVER: &str = "sys/bus/pci/drivers/amdgpu";

fn hwmon_dir(device: &Device) -> String {
    format!("{}/hwmon/hwmon{}", device.dir(), device.number + 2)
}

/// Plugs a device in: every file and link of it.
pub(crate) fn add(tree: &Tree, device: &Device, health: &Health) -> io::Result<()> {
    let dir = device.dir();
    write_identity(tree, device, &dir)?;
    write_link_and_partition(tree, device, &dir)?;
    hwmon::write_limits(tree, &hwmon_dir(device), device.board)?;
    write_health(tree, device, health)?;
    for (path, target) in links(device) {
        tree.link(&path, &target)?;
    }
    tree.link(&format!("{dir}/driver"), DRIVER)?;
    tree.link(&format!("{dir}/subsystem"), "sys/bus/pci")?;
    tree.link(&format!("{}/device", hwmon_dir(device)), &dir)?;
    device.gpus().try_for_each(|gpu| add_drm(tree, device, &gpu))
}

/// Takes a device out: every file and link of it.
pub(crate) fn remove(tree: &Tree, device: &Device) -> io::Result<()> {
    for (path, _) in links(device) {
        tree.remove(path)?;
    }
    for gpu in device.gpus() {
        tree.remove(drm_parent(device, &gpu))?;
        for path in drm_links(&gpu) {
            tree.remove(path)?;
        }
        tree.remove(format!("dev/dri/card{}", gpu.card))?;
        tree.remove(format!("dev/dri/renderD{}", gpu.render_minor))?;
    }
    tree.remove(device.dir())
}

/// Links from elsewhere to a device.
fn links(device: &Device) -> [(String, String); 3] {
    let dir = device.dir();
    let hwmon = hwmon_dir(device);
    [
        (format!("sys/bus/pci/devices/{}", device.bdf), dir.clone()),
        (format!("{DRIVER}/{}", device.bdf), dir),
        (format!("sys/class/hwmon/hwmon{}", device.number + 2), hwmon),
    ]
}

/// The device that a partition's DRM nodes belong to: the PCI device for the first, a platform
/// device for each other.
fn drm_parent(device: &Device, gpu: &SimGpu) -> String {
    if gpu.partition == 0 {
        return device.dir();
    }
    // One platform device for each partition but the first, counted over the machine.
    let number = gpu.index - 1 - device.number;
    format!("sys/devices/platform/amdgpu_xcp.{number}")
}

/// Links to a GPU's DRM nodes.
fn drm_links(gpu: &SimGpu) -> [String; 4] {
    [
        format!("sys/class/drm/card{}", gpu.card),
        format!("sys/class/drm/renderD{}", gpu.render_minor),
        format!("sys/dev/char/226:{}", gpu.card),
        format!("sys/dev/char/226:{}", gpu.render_minor),
    ]
}

fn add_drm(tree: &Tree, device: &Device, gpu: &SimGpu) -> io::Result<()> {
    let parent = drm_parent(device, gpu);
    for (name, minor) in [
        (format!("card{}", gpu.card), gpu.card),
        (format!("renderD{}", gpu.render_minor), gpu.render_minor),
    ] {
        add_drm_node(tree, &parent, &name, &minor.to_string())?;
    }
    Ok(())
}

/// A DRM node of the device in the folder `parent`: its own folder, the links to it, and the node.
pub(crate) fn add_drm_node(tree: &Tree, parent: &str, name: &str, minor: &str) -> io::Result<()> {
    let dir = format!("{parent}/drm/{name}");
    tree.write(format!("{dir}/dev"), format!("226:{minor}\n"))?;
    let uevent = format!("MAJOR=226\nMINOR={minor}\nDEVNAME=dri/{name}\nDEVTYPE=drm_minor\n");
    tree.write(format!("{dir}/uevent"), uevent)?;
    tree.link(&format!("{dir}/device"), parent)?;
    tree.link(&format!("sys/class/drm/{name}"), &dir)?;
    tree.link(&format!("sys/dev/char/226:{minor}"), &dir)?;
    tree.write(format!("dev/dri/{name}"), "")
}

fn write_identity(tree: &Tree, device: &Device, dir: &str) -> io::Result<()> {
    let Board { device: id, subsystem_vendor, subsystem_device, revision, class, .. } =
        *device.board;
    let bdf = device.bdf;
    let uevent = format!(
        "DRIVER=amdgpu\nPCI_CLASS={class:X}\nPCI_ID=1002:{id:04X}\n\
         PCI_SUBSYS_ID={subsystem_vendor:04X}:{subsystem_device:04X}\nPCI_SLOT_NAME={bdf}\n\
         MODALIAS=pci:v00001002d{id:08X}sv{subsystem_vendor:08X}sd{subsystem_device:08X}\n"
    );
    let files = [
        ("uevent", uevent),
        ("vendor", "0x1002\n".to_owned()),
        ("device", format!("0x{id:04x}\n")),
        ("class", format!("0x{class:06x}\n")),
        ("revision", format!("0x{revision:02x}\n")),
        ("subsystem_vendor", format!("0x{subsystem_vendor:04x}\n")),
        ("subsystem_device", format!("0x{subsystem_device:04x}\n")),
        ("unique_id", format!("{:016x}\n", device.unique_id)),
        ("serial_number", format!("{:016x}\n", device.unique_id)),
        ("product_name", format!("{}\n", device.board.product_name)),
        ("product_number", format!("{id:04X}-{revision:02X}\n")),
        ("vbios_version", format!("{}\n", device.board.vbios)),
        ("numa_node", "0\n".to_owned()),
        ("enable", "1\n".to_owned()),
    ];
    write_all(tree, dir, files)
}

fn write_link_and_partition(tree: &Tree, device: &Device, dir: &str) -> io::Result<()> {
    let speed = format!("{}\n", device.board.link_speed);
    let compute = match device.partitions {
        1 => "SPX",
        2 => "DPX",
        4 => "QPX",
        _ => "CPX",
    };
    let logging =
        format!("{}: thermal throttling logging enabled, with interval 60 seconds\n", device.bdf);
    let files = [
        ("current_link_speed", speed.clone()),
        ("max_link_speed", speed),
        ("current_link_width", "16\n".to_owned()),
        ("max_link_width", "16\n".to_owned()),
        ("current_compute_partition", format!("{compute}\n")),
        ("available_compute_partition", "SPX, DPX, QPX, CPX\n".to_owned()),
        ("current_memory_partition", "NPS1\n".to_owned()),
        ("thermal_throttling_logging", logging),
        ("power_dpm_force_performance_level", "auto\n".to_owned()),
        ("power_dpm_state", "performance\n".to_owned()),
        ("mem_info_vram_vendor", "samsung\n".to_owned()),
        ("mem_info_vram_total", format!("{}\n", device.board.vram_bytes)),
        ("mem_info_vis_vram_total", format!("{}\n", device.board.vis_vram_bytes)),
        ("mem_info_gtt_total", format!("{GTT_BYTES}\n")),
        ("ras/features", "feature mask: 0x3fff\n".to_owned()),
    ];
    write_all(tree, dir, files)
}

/// What moves: sensors, counters, clocks.
pub(crate) fn write_health(tree: &Tree, device: &Device, health: &Health) -> io::Result<()> {
    let board = device.board;
    let dir = device.dir();
    let files = [
        ("gpu_busy_percent", format!("{}\n", health.busy_percent)),
        ("mem_busy_percent", format!("{}\n", health.mem_busy_percent)),
        ("mem_info_vram_used", format!("{}\n", health.vram_used)),
        ("mem_info_vis_vram_used", format!("{}\n", health.vram_used)),
        ("mem_info_gtt_used", format!("{}\n", health.gtt_used)),
        ("pp_dpm_sclk", levels(&board.sclk_mhz, health)),
        ("pp_dpm_mclk", levels(&board.mclk_mhz, health)),
        ("pp_dpm_socclk", levels(&board.socclk_mhz, health)),
        ("pp_dpm_fclk", levels(&board.fclk_mhz, health)),
        ("pcie_replay_count", format!("{}\n", health.pcie_replays)),
        ("ras/gpu_vram_bad_pages", bad_pages(&health.bad_pages)),
    ];
    write_all(tree, &dir, files)?;
    tree.write(format!("{dir}/gpu_metrics"), gpu_metrics(board, health, boot_ns()))?;
    for (block, (uncorrected, corrected)) in RAS_BLOCKS.iter().zip(health.ras) {
        let counts = format!("ue: {uncorrected}\nce: {corrected}\n");
        tree.write(format!("{dir}/ras/{block}_err_count"), counts)?;
    }
    hwmon::write_readings(tree, &hwmon_dir(device), board, health)
}

/// `0: 500Mhz *`: the star marks the level in force.
fn levels(mhz: &[u32], health: &Health) -> String {
    let mut text = String::new();
    let current = health.level(mhz.len());
    for (level, mhz) in mhz.iter().enumerate() {
        let star = if level == current { "*" } else { "" };
        let _ = writeln!(text, "{level}: {mhz}Mhz {star}");
    }
    text
}

/// `page : size : flag`; R is reserved, as after the driver took it out of use.
fn bad_pages(pages: &[u64]) -> String {
    let mut text = String::new();
    for page in pages {
        let _ = writeln!(text, "0x{page:08x} : 0x00001000 : R");
    }
    text
}
