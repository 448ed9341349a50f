//! KFD's topology: one folder per node, a node per CPU package, GPU, or partition of a GPU.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::chips;
use super::files;
use super::names::Names;
use crate::advice::no_topology;
use crate::health::Bytes;
use crate::{
    Bdf, Card, DeniedNode, GfxTarget, Gpu, GpuId, Inventory, Machine, Result, UniqueId,
    UnreadableNode,
};

/// The largest machine known has 72 nodes; what says it has more than this is not believed.
const MOST_NODES: usize = 4096;
/// Some thirty lines of `key value`; KFD fills at most a page.
const PROPERTIES_LIMIT: usize = 16 << 10;
/// A topology that changes while it is read is read again, but not for ever.
const ATTEMPTS: u32 = 4;
/// A node has one or two.
const MOST_BANKS: usize = 64;
/// 64 TiB.
const MOST_BYTES: u64 = 1 << 46;

/// What a look at one node gives.
enum Node {
    Cpu,
    Gone,
    Denied,
    Unreadable(String),
    Gpu(Box<Found>),
}

/// A GPU node before its place among the others is known.
struct Found {
    node: u32,
    kfd_id: u32,
    location: Location,
    code_name: Option<String>,
    properties: Properties,
    /// Bytes of the node's memory banks.
    memory: Option<u64>,
}

/// Where KFD says that a node is.
#[derive(Clone, Copy)]
struct Location {
    bdf: Bdf,
    /// Bits 31 to 28 of `location_id`; see [`settle`] for where else it may be.
    partition: u32,
}

pub(super) fn inventory(machine: &Machine) -> Result<Inventory> {
    let mut inventory = look(machine)?;
    for _ in 1..ATTEMPTS {
        let now = machine.generation().unwrap_or_default();
        if now == inventory.generation {
            break;
        }
        inventory = look(machine)?;
    }
    Ok(inventory)
}

fn look(machine: &Machine) -> Result<Inventory> {
    let generation = machine.generation().unwrap_or_default();
    let mut inventory = Inventory { generation, ..Inventory::default() };
    let mut found = Vec::new();
    for (node, dir) in node_dirs(machine)? {
        match read_node(machine, node, &dir) {
            Node::Cpu | Node::Gone => {}
            Node::Denied => inventory.denied.push(DeniedNode { node }),
            Node::Unreadable(problem) => {
                inventory.unreadable.push(UnreadableNode { node, problem });
            }
            Node::Gpu(gpu) => found.push(*gpu),
        }
    }
    inventory.gpus = list(machine, found);
    inventory.left_out = left_out(machine, &inventory.gpus);
    Ok(inventory)
}

/// The cards on the PCI bus that KFD does not list.
fn left_out(machine: &Machine, gpus: &[Gpu]) -> Vec<Card> {
    let mut cards = machine.cards();
    cards.retain(|card| gpus.iter().all(|gpu| gpu.id.bdf != card.bdf));
    cards
}

fn node_dirs(machine: &Machine) -> Result<Vec<(u32, PathBuf)>> {
    let path = machine.path("sys/class/kfd/kfd/topology/nodes");
    let entries = std::fs::read_dir(&path).map_err(|error| no_topology(machine, &path, error))?;
    let mut dirs: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .take(MOST_NODES)
        .collect();
    dirs.sort_unstable_by_key(|(node, _)| *node);
    Ok(dirs)
}

fn read_node(machine: &Machine, node: u32, dir: &Path) -> Node {
    let path = dir.join("gpu_id");
    let kfd_id = match files::text(&path) {
        Err(error) => return unreadable(&path, &error),
        Ok(text) => match text.parse() {
            Ok(0) => return Node::Cpu,
            Ok(id) => id,
            Err(_) => {
                return Node::Unreadable(format!("{}: {text:?} is not a GPU id", path.display()));
            }
        },
    };
    let path = dir.join("properties");
    let properties = match files::read(&path, PROPERTIES_LIMIT) {
        Ok(bytes) => Properties::parse(&bytes),
        Err(error) => return unreadable(&path, &error),
    };
    let Some(location) = location(machine, &properties) else {
        return Node::Unreadable(format!("{}: no PCI address", path.display()));
    };
    let code_name = files::non_empty(&dir.join("name"));
    let memory = memory(dir, &properties);
    Node::Gpu(Box::new(Found { node, kfd_id, location, code_name, properties, memory }))
}

fn unreadable(path: &Path, error: &io::Error) -> Node {
    match error.kind() {
        // EPERM from `kfd_devcgroup_check_permission`; EACCES from a security module.
        io::ErrorKind::PermissionDenied => Node::Denied,
        io::ErrorKind::NotFound if !path.parent().is_some_and(Path::exists) => Node::Gone,
        _ => Node::Unreadable(format!("{}: {error}", path.display())),
    }
}

/// The node's banks of video memory; before Linux 4.16 its property `local_mem_size`.
fn memory(dir: &Path, properties: &Properties) -> Option<u64> {
    let sizes = video_banks(dir).filter_map(|bank| bank.get("size_in_bytes"));
    let sum = sizes.reduce(u64::saturating_add).or_else(|| properties.get("local_mem_size"));
    sum.filter(|bytes| (1..=MOST_BYTES).contains(bytes))
}

/// The banks of video memory of the node at `dir`.
pub(super) fn video_banks(dir: &Path) -> impl Iterator<Item = Properties> {
    let banks = std::fs::read_dir(dir.join("mem_banks")).into_iter().flatten().flatten();
    let banks = banks.take(MOST_BANKS).filter_map(|bank| {
        let bytes = files::read(&bank.path().join("properties"), PROPERTIES_LIMIT).ok()?;
        Some(Properties::parse(&bytes))
    });
    // Heap types 1 and 2: video memory that the CPU can reach, and that it cannot.
    banks.filter(|bank| bank.get("heap_type").is_some_and(|heap| matches!(heap, 1 | 2)))
}

/// KFD's own word, or where that makes no sense, the device behind the render node.
fn location(machine: &Machine, properties: &Properties) -> Option<Location> {
    let domain = properties.get("domain").map_or(Some(0), |domain| u32::try_from(domain).ok());
    let id = properties.get("location_id").and_then(|id| u32::try_from(id).ok());
    if let (Some(domain), Some(id)) = (domain, id) {
        let [_, _, bus, devfn] = id.to_be_bytes();
        let bdf = Bdf { domain, bus, device: devfn >> 3, function: devfn & 7 };
        return Some(Location { bdf, partition: id >> 28 });
    }
    let minor = properties.minor()?;
    let link =
        std::fs::read_link(machine.path(format!("sys/class/drm/renderD{minor}/device"))).ok()?;
    let bdf = link.file_name()?.to_str()?.parse().ok()?;
    Some(Location { bdf, partition: 0 })
}

/// Groups nodes by GPU, numbers the partitions, and gives each its place in the list.
fn list(machine: &Machine, found: Vec<Found>) -> Vec<Gpu> {
    let mut groups: BTreeMap<Bdf, Vec<Found>> = BTreeMap::new();
    let seen: BTreeSet<Bdf> = found.iter().map(|one| one.location.bdf).collect();
    for mut one in found {
        one.location = settle(machine, &seen, &one);
        groups.entry(one.location.bdf).or_default().push(one);
    }
    let mut names = Names::new(machine);
    let mut gpus: Vec<Gpu> = groups
        .into_iter()
        .flat_map(|(bdf, group)| partitions(machine, &mut names, bdf, group))
        .collect();
    for (index, gpu) in (0..).zip(&mut gpus) {
        gpu.id.index = index;
    }
    gpus
}

/// AMD's out-of-tree driver writes the partition into bits 31 to 28 of `location_id`, Linux into those of the
/// PCI function. So an address that has no PCI device, while function 0 has, is a partition of the latter.
fn settle(machine: &Machine, seen: &BTreeSet<Bdf>, found: &Found) -> Location {
    let location = found.location;
    let first = Bdf { function: 0, ..location.bdf };
    let whole =
        location.partition != 0 || location.bdf == first || pci_dir(machine, location.bdf).exists();
    // A container may see neither the bus nor the first partition; then the kind of chip tells.
    let has_first = seen.contains(&first)
        || pci_dir(machine, first).exists()
        || found.properties.gfx_target().is_some_and(chips::may_be_partitioned);
    if whole || !has_first {
        return location;
    }
    Location { bdf: first, partition: u32::from(location.bdf.function) }
}

fn pci_dir(machine: &Machine, bdf: Bdf) -> PathBuf {
    machine.path(format!("sys/bus/pci/devices/{bdf}"))
}

/// The nodes of one PCI address as GPUs, in order of partition.
fn partitions(
    machine: &Machine,
    names: &mut Names<'_>,
    bdf: Bdf,
    mut group: Vec<Found>,
) -> Vec<Gpu> {
    group.sort_by_key(|one| (one.location.partition, one.node));
    // Two nodes under one number: the driver does not number partitions, their order does.
    let numbered =
        group.windows(2).all(|pair| pair[0].location.partition < pair[1].location.partition);
    let device_dir = device_dir(machine, bdf, &group);
    // A partition's own unique id is derived from the GPU's; the GPU's is what lasts.
    let unique_id = unique_id(&device_dir, &group);
    let device_id =
        group.iter().find_map(|one| u16::try_from(one.properties.get("device_id")?).ok());
    let code_name = group.iter().find_map(|one| one.code_name.clone());
    let name = names.of(&device_dir, device_id, code_name);
    let compute_partition = files::non_empty(&device_dir.join("current_compute_partition"));
    let memory_partition = files::non_empty(&device_dir.join("current_memory_partition"));
    let partitions = count_partitions(compute_partition.as_deref(), device_id, &group, numbered);
    (0..)
        .zip(group)
        .map(|(place, one)| {
            let partition = if numbered { one.location.partition } else { place };
            let gfx_target =
                one.properties.gfx_target().or_else(|| chips::gfx_target_of(device_id?));
            let minor = one.properties.minor();
            Gpu {
                id: GpuId { index: 0, bdf, unique_id, partition, kfd_id: one.kfd_id },
                node: one.node,
                name: name.clone(),
                gfx_target,
                render_minor: minor,
                card: card(machine, &device_dir, minor),
                partitions,
                device_dir: device_dir.clone(),
                partition_dir: minor
                    .map(|minor| machine.path(format!("sys/class/drm/renderD{minor}/device"))),
                device_id,
                apu: is_apu(&one, gfx_target, &device_dir),
                local_memory: one.memory.map(Bytes),
                compute_units: one.properties.compute_units(),
                hive: one.properties.get("hive_id").filter(|hive| *hive != 0),
                compute_partition: compute_partition.clone(),
                memory_partition: memory_partition.clone(),
            }
        })
        .collect()
}

/// How many partitions the driver divides a GPU into, whoever may see them: by the GPU's mode, else by how many
/// compute dies it has and one partition gets. Where nothing tells, those that are seen.
fn count_partitions(
    mode: Option<&str>,
    device_id: Option<u16>,
    group: &[Found],
    numbered: bool,
) -> u32 {
    let by_mode = match mode {
        Some("SPX") => Some(1),
        Some("DPX") => Some(2),
        Some("TPX") => Some(3),
        Some("QPX") => Some(4),
        _ => None,
    };
    let by_dies = || {
        let of_partition = group.iter().find_map(|one| one.properties.get("num_xcc"))?;
        let dies = u64::from(chips::compute_dies(device_id?)?).checked_div(of_partition)?;
        u32::try_from(dies).ok()
    };
    let seen = u32::try_from(group.len()).unwrap_or(u32::MAX);
    let highest = group.iter().map(|one| one.location.partition).max().filter(|_| numbered);
    let at_least = seen.max(highest.unwrap_or(0).saturating_add(1));
    by_mode.or_else(by_dies).unwrap_or(at_least).max(at_least)
}

/// Whether a node's GPU shares package and memory with a CPU. KFD itself says so up to Raven only, whose node has
/// the CPU's cores too. Later the kind of chip tells; of a chip that is not known, that KFD counts the host's memory
/// as the GPU's own, or a table `gpu_metrics` of the form that APUs have.
fn is_apu(found: &Found, target: Option<GfxTarget>, device_dir: &Path) -> bool {
    let property = |name| found.properties.get(name).unwrap_or(0);
    if property("cpu_cores_count") > 0 {
        return true;
    }
    if target.is_some_and(chips::is_mi300) {
        // `HSA_CAP_FLAGS_COHERENTHOSTACCESS`, or MI300A by its PCI id.
        return property("capability") & COHERENT_HOST_ACCESS != 0
            || property("device_id") == u64::from(chips::MI300A);
    }
    target.and_then(chips::is_apu).unwrap_or_else(|| {
        let total = |name| files::number::<u64>(&device_dir.join(name));
        let (vram, gtt) = (total("mem_info_vram_total"), total("mem_info_gtt_total"));
        let borrows = found.memory.is_some() && found.memory == gtt && found.memory > vram;
        borrows || (is_awake(device_dir) && has_metrics_of_an_apu(device_dir))
    })
}

fn is_awake(device_dir: &Path) -> bool {
    let status = files::text(&device_dir.join("power/runtime_status"));
    status.map_or(true, |status| !status.starts_with("suspend"))
}

/// Format revisions 2 and 3 of `gpu_metrics` are those of APUs.
fn has_metrics_of_an_apu(device_dir: &Path) -> bool {
    let header = files::read(&device_dir.join("gpu_metrics"), 4).unwrap_or_default();
    matches!(header.get(2), Some(2 | 3))
}

/// The PCI bus's own folder; in a container that hides the bus, the one behind the render node.
fn device_dir(machine: &Machine, bdf: Bdf, group: &[Found]) -> PathBuf {
    let by_bus = pci_dir(machine, bdf);
    if by_bus.is_dir() {
        return by_bus;
    }
    let minor = group.first().and_then(|one| one.properties.minor());
    let by_render = minor.map(|minor| machine.path(format!("sys/class/drm/renderD{minor}/device")));
    by_render.filter(|dir| dir.is_dir()).unwrap_or(by_bus)
}

fn unique_id(device_dir: &Path, group: &[Found]) -> Option<UniqueId> {
    let by_device = files::text(&device_dir.join("unique_id")).ok();
    by_device
        .and_then(|hex| u64::from_str_radix(hex.strip_prefix("0x").unwrap_or(&hex), 16).ok())
        .filter(|id| *id != 0)
        .or_else(|| {
            group.iter().find_map(|one| one.properties.get("unique_id").filter(|id| *id != 0))
        })
        .map(UniqueId)
}

/// The `cardN` beside the render node: of the PCI device, or of the `amdgpu_xcp` platform device that a
/// further partition has.
fn card(machine: &Machine, device_dir: &Path, render_minor: Option<u32>) -> Option<u32> {
    let by_render =
        render_minor.map(|minor| machine.path(format!("sys/class/drm/renderD{minor}/device/drm")));
    let entries = by_render
        .and_then(|path| std::fs::read_dir(path).ok())
        .or_else(|| std::fs::read_dir(device_dir.join("drm")).ok())?;
    entries
        .flatten()
        .take(MOST_NODES)
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("card")?.parse().ok())
        .min()
}

/// Bit 28 of `capability`.
const COHERENT_HOST_ACCESS: u64 = 1 << 28;

/// `key value` lines, the first of each key.
pub(super) struct Properties(Vec<(String, u64)>);

impl Properties {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let line = |line: &[u8]| {
            let (key, value) = std::str::from_utf8(line).ok()?.trim().split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        };
        Self(bytes.split(|byte| *byte == b'\n').filter_map(line).collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    /// Render nodes start at 128; KFD writes 0 for a device without one.
    fn minor(&self) -> Option<u32> {
        let minor = u32::try_from(self.get("drm_render_minor")?).ok()?;
        (128..1 << 20).contains(&minor).then_some(minor)
    }

    fn gfx_target(&self) -> Option<GfxTarget> {
        let target = u32::try_from(self.get("gfx_target_version")?).ok()?;
        (10_000..1_000_000).contains(&target).then_some(GfxTarget(target))
    }

    fn compute_units(&self) -> Option<u32> {
        let per_unit = self.get("simd_per_cu").filter(|simds| *simds > 0)?;
        u32::try_from(self.get("simd_count")? / per_unit)
            .ok()
            .filter(|units| *units > 0 && *units < 1 << 16)
    }
}
