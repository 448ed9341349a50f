//! `/sys/class/kfd/kfd/topology` (`kfd_topology.c`).

use std::fmt::Write as _;
use std::io;

use super::Tree;
use crate::gpu::{Device, SimGpu};
use crate::kernel::Kernel;

pub(crate) const KFD: &str = "sys/devices/virtual/kfd/kfd";

/// Lists every device that is present anew, with a new generation.
pub(crate) fn write(
    tree: &Tree,
    kernel: Kernel,
    devices: &[Device],
    generation: u64,
) -> io::Result<()> {
    let topology = format!("{KFD}/topology");
    tree.remove(format!("{topology}/nodes"))?;
    let present = devices.iter().filter(|device| device.present);
    let nodes = present.flat_map(|device| device.gpus().map(move |gpu| (device, gpu)));
    let mut gpus = 0;
    for (node, (device, gpu)) in (1..).zip(nodes) {
        let dir = format!("{topology}/nodes/{node}");
        write_gpu(tree, kernel, &dir, device, &gpu)?;
        write_links(tree, &dir, node, 0..1)?;
        gpus = node;
    }
    write_cpu(tree, &format!("{topology}/nodes/0"), gpus)?;
    let oem = "platform_oem 35498446626881\nplatform_id 1329222514\nplatform_rev 1\n";
    tree.write(format!("{topology}/system_properties"), oem)?;
    tree.write(format!("{topology}/generation_id"), format!("{generation}\n"))
}

/// PCI Express from node `from` to each of `to`, and the folder for links between GPUs, which
/// readers expect even when it is empty.
fn write_links(tree: &Tree, dir: &str, from: u32, to: std::ops::Range<u32>) -> io::Result<()> {
    tree.mkdir(format!("{dir}/io_links"))?;
    tree.mkdir(format!("{dir}/p2p_links"))?;
    for (link, to) in to.enumerate() {
        let properties = format!(
            "type 2\nversion_major 0\nversion_minor 0\nnode_from {from}\nnode_to {to}\nweight 20\n\
             min_latency 0\nmax_latency 0\nmin_bandwidth 312\nmax_bandwidth 31507\n\
             recommended_transfer_size 0\nrecommended_sdma_engine_id_mask 0\nflags 1\n"
        );
        tree.write(format!("{dir}/io_links/{link}/properties"), properties)?;
    }
    Ok(())
}

fn write_cpu(tree: &Tree, dir: &str, gpus: u32) -> io::Result<()> {
    write_links(tree, dir, 0, 1..gpus + 1)?;
    tree.write(format!("{dir}/gpu_id"), "0\n")?;
    tree.write(format!("{dir}/name"), "\n")?;
    tree.write(format!("{dir}/mem_banks/0/properties"), memory_bank(0, 134_902_976_512))?;
    let properties = [
        ("cpu_cores_count", 64),
        ("mem_banks_count", 1),
        ("io_links_count", u64::from(gpus)),
        ("max_engine_clk_ccompute", 3_700),
    ];
    tree.write(format!("{dir}/properties"), lines(&properties))
}

fn write_gpu(
    tree: &Tree,
    kernel: Kernel,
    dir: &str,
    device: &Device,
    gpu: &SimGpu,
) -> io::Result<()> {
    if device.denied {
        // kfd_devcgroup_check_permission
        return ["gpu_id", "name", "properties"]
            .iter()
            .try_for_each(|file| tree.deny(&format!("{dir}/{file}")));
    }
    let memory = device.board.vram_bytes / u64::from(device.partitions);
    tree.write(format!("{dir}/gpu_id"), format!("{}\n", gpu.kfd_gpu_id))?;
    tree.write(format!("{dir}/name"), "ip discovery\n")?;
    tree.write(format!("{dir}/mem_banks/0/properties"), memory_bank(1, memory))?;
    tree.write(format!("{dir}/properties"), lines(&properties(kernel, device, gpu)))
}

fn memory_bank(heap_type: u32, bytes: u64) -> String {
    format!("heap_type {heap_type}\nsize_in_bytes {bytes}\nflags 0\nwidth 384\nmem_clk_max 1124\n")
}

fn lines(properties: &[(&str, u64)]) -> String {
    let mut text = String::new();
    for (key, value) in properties {
        let _ = writeln!(text, "{key} {value}");
    }
    text
}

fn properties(kernel: Kernel, device: &Device, gpu: &SimGpu) -> Vec<(&'static str, u64)> {
    let board = device.board;
    let units = board.compute_units / device.partitions;
    vec![
        ("cpu_cores_count", 0),
        ("simd_count", u64::from(units * board.simd_per_cu)),
        ("mem_banks_count", 1),
        ("caches_count", 206),
        ("io_links_count", 1),
        ("p2p_links_count", 0),
        ("cpu_core_id_base", 0),
        ("simd_id_base", 2_147_487_744),
        ("max_waves_per_simd", 16),
        ("lds_size_in_kb", 64),
        ("gds_size_in_kb", 0),
        ("num_gws", 64),
        ("wave_front_size", if board.gfx_target < 100_000 { 64 } else { 32 }),
        ("array_count", 12),
        ("simd_arrays_per_engine", 2),
        ("cu_per_simd_array", 8),
        ("simd_per_cu", u64::from(board.simd_per_cu)),
        ("max_slots_scratch_cu", 32),
        ("gfx_target_version", u64::from(board.gfx_target)),
        ("vendor_id", 0x1002),
        ("device_id", u64::from(board.device)),
        ("location_id", u64::from(device.location_id(kernel, gpu.partition))),
        ("domain", u64::from(device.bdf.domain)),
        ("drm_render_minor", u64::from(gpu.render_minor)),
        ("hive_id", 0),
        ("num_sdma_engines", 2),
        ("num_sdma_xgmi_engines", 0),
        ("num_sdma_queues_per_engine", 6),
        ("num_cp_queues", 8),
        ("max_engine_clk_fcompute", u64::from(board.sclk_mhz[2])),
        ("local_mem_size", 0),
        ("fw_version", 522),
        ("capability", 671_588_992),
        ("debug_prop", 1_495),
        ("sdma_fw_version", 20),
        ("unique_id", gpu.unique_id),
        (
            "num_xcc",
            if device.partitions == 1 { 1 } else { u64::from((8 / device.partitions).max(1)) },
        ),
        ("max_engine_clk_ccompute", 3_700),
    ]
}
