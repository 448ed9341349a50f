//! KFD's topology: one folder per node, a node per CPU package, GPU, or partition of a GPU.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::files;
use super::names::Names;
use crate::{
    Bdf, DeniedNode, Error, ErrorKind, GfxTarget, Gpu, GpuId, Inventory, Machine, Result, UniqueId,
    UnreadableNode,
};

/// The largest machine known has 72 nodes; what says it has more than this is not believed.
const MOST_NODES: usize = 4096;
/// Some thirty lines of `key value`; KFD fills at most a page.
const PROPERTIES_LIMIT: usize = 16 << 10;
/// A topology that changes while it is read is read again, but not for ever.
const ATTEMPTS: u32 = 4;

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
    let mut inventory =
        Inventory { generation, gpus: Vec::new(), denied: Vec::new(), unreadable: Vec::new() };
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
    Ok(inventory)
}

fn node_dirs(machine: &Machine) -> Result<Vec<(u32, PathBuf)>> {
    let path = machine.path("sys/class/kfd/kfd/topology/nodes");
    let entries = std::fs::read_dir(&path).map_err(|error| absent(machine, &path, error))?;
    let mut dirs: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .take(MOST_NODES)
        .collect();
    dirs.sort_unstable_by_key(|(node, _)| *node);
    Ok(dirs)
}

/// Why there is no topology, and what to do about it.
pub(super) fn absent(machine: &Machine, path: &Path, error: io::Error) -> Error {
    if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
        return Error::io(format!("read {}", path.display()), error);
    }
    let hint = if machine.path("sys/class/kfd").is_dir() {
        "the amdgpu driver is loaded and lists no topology; look for kfd in the kernel's log"
    } else if machine.driver().loaded {
        "the amdgpu driver is loaded without KFD: in a container, mount /sys of the host; else the kernel lacks CONFIG_HSA_AMD"
    } else if has_amd_display_device(machine) {
        "there is an AMD GPU and no driver: load it with `modprobe amdgpu`"
    } else {
        "no AMD GPU is on the PCI bus; try a simulated one with `--source sim`"
    };
    Error::io(format!("no AMD GPU: read {}", path.display()), error)
        .with_kind(ErrorKind::NoGpu)
        .with_hint(hint)
}

fn has_amd_display_device(machine: &Machine) -> bool {
    let Ok(devices) = std::fs::read_dir(machine.path("sys/bus/pci/devices")) else { return false };
    devices.flatten().take(MOST_NODES).any(|device| {
        let says = |file: &str| files::text(&device.path().join(file)).unwrap_or_default();
        // Class 03: display controller; 12: processing accelerator, as the Instinct cards are.
        says("vendor") == "0x1002" && matches!(says("class").get(..4), Some("0x03" | "0x12"))
    })
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
    Node::Gpu(Box::new(Found { node, kfd_id, location, code_name, properties }))
}

fn unreadable(path: &Path, error: &io::Error) -> Node {
    match error.kind() {
        // EPERM from `kfd_devcgroup_check_permission`; EACCES from a security module.
        io::ErrorKind::PermissionDenied => Node::Denied,
        io::ErrorKind::NotFound if !path.parent().is_some_and(Path::exists) => Node::Gone,
        _ => Node::Unreadable(format!("{}: {error}", path.display())),
    }
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
        one.location = settle(machine, &seen, one.location);
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
fn settle(machine: &Machine, seen: &BTreeSet<Bdf>, location: Location) -> Location {
    let first = Bdf { function: 0, ..location.bdf };
    let whole =
        location.partition != 0 || location.bdf == first || pci_dir(machine, location.bdf).exists();
    if whole || !(seen.contains(&first) || pci_dir(machine, first).exists()) {
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
    let partitions = u32::try_from(group.len()).unwrap_or(u32::MAX);
    (0..)
        .zip(group)
        .map(|(place, one)| {
            let partition = if numbered { one.location.partition } else { place };
            Gpu {
                id: GpuId { index: 0, bdf, unique_id, partition, kfd_id: one.kfd_id },
                node: one.node,
                name: name.clone(),
                gfx_target: one.properties.gfx_target(),
                render_minor: one.properties.minor(),
                card: card(machine, &device_dir, one.properties.minor()),
                partitions,
                device_dir: device_dir.clone(),
                device_id,
                apu: one.properties.get("cpu_cores_count").is_some_and(|cores| cores > 0),
                compute_units: one.properties.compute_units(),
                hive: one.properties.get("hive_id").filter(|hive| *hive != 0),
                compute_partition: compute_partition.clone(),
                memory_partition: memory_partition.clone(),
            }
        })
        .collect()
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
