//! Links between the nodes of KFD's topology: how GPUs reach one another, and which CPU is nearest.
//!
//! Source: `drivers/gpu/drm/amd/amdkfd/kfd_topology.c` (`iolink_show`) and `kfd_crat.h` for the numbers.

use std::path::Path;

use super::files;
use super::topology::Properties;
use crate::{Gpu, Machine};

/// `CRAT_IOLINK_TYPE_PCIEXPRESS`.
const TYPE_PCIE: u64 = 2;
/// `CRAT_IOLINK_TYPE_XGMI`.
const TYPE_XGMI: u64 = 11;
/// The largest machine known has 72 nodes, each with a link to each other one.
const MOST_LINKS: usize = 4096;
const PROPERTIES_LIMIT: usize = 16 << 10;

/// What a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkKind {
    /// PCI Express.
    Pcie,
    /// XGMI (Infinity Fabric): between GPUs, between the partitions of a GPU, and to the CPU of an APU.
    Xgmi,
    /// Another number of the driver's.
    Other(u32),
}

/// A link from one node of KFD's topology to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Number of the node at its other end.
    pub to: u32,
    /// The longer the way, the larger the number: 15 for one XGMI link, 20 or 40 for PCI Express.
    pub weight: u64,
    /// Megabytes a second, 0 where the driver does not say.
    pub min_bandwidth: u64,
    /// Megabytes a second, 0 where the driver does not say.
    pub max_bandwidth: u64,
    /// `CRAT_IOLINK_FLAGS_*`.
    pub flags: u32,
    /// Whether it is listed as direct access from GPU to GPU over PCI Express (`p2p_links`).
    pub peer: bool,
}

/// The way from one GPU to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// What it runs over; over several links, what the GPUs' own links are.
    pub kind: LinkKind,
    /// How many links: 1 direct, 2 by way of one CPU, 3 by way of two, 4 where the driver shows no link
    /// between the CPUs.
    pub hops: u32,
    /// The sum of the links' weights; `None` where that of one is not known.
    pub weight: Option<u64>,
}

impl Machine {
    /// The links of a node, in order of the node at the other end; those of `p2p_links` last.
    #[must_use]
    pub fn links(&self, node: u32) -> Vec<Link> {
        let dir = self.path(format!("sys/class/kfd/kfd/topology/nodes/{node}"));
        let mut links = read_links(&dir.join("io_links"), false);
        links.extend(read_links(&dir.join("p2p_links"), true));
        links
    }

    /// The link to the CPU that is nearest to a node; its `to` is the CPU's node, which is its NUMA node.
    #[must_use]
    pub fn nearest_cpu(&self, node: u32) -> Option<Link> {
        let links = self.links(node).into_iter();
        links.filter(|link| !link.peer && self.is_cpu(link.to)).min_by_key(|link| link.weight)
    }

    /// The way from one GPU to another; `None` from a GPU to itself and where the driver shows none.
    #[must_use]
    pub fn route(&self, from: &Gpu, to: &Gpu) -> Option<Route> {
        if from.node == to.node {
            return None;
        }
        let direct =
            self.links(from.node).into_iter().find(|link| !link.peer && link.to == to.node);
        if let Some(Link { kind, weight, .. }) = direct {
            return Some(Route { kind, hops: 1, weight: Some(weight) });
        }
        let (near, far) = (self.nearest_cpu(from.node)?, self.nearest_cpu(to.node)?);
        let ends = near.weight.checked_add(far.weight);
        if near.to == far.to {
            return Some(Route { kind: near.kind, hops: 2, weight: ends });
        }
        let between = self.links(near.to).into_iter().find(|link| link.to == far.to);
        let weight = between.and_then(|link| ends?.checked_add(link.weight));
        Some(Route { kind: near.kind, hops: if between.is_some() { 3 } else { 4 }, weight })
    }

    fn is_cpu(&self, node: u32) -> bool {
        let path = self.path(format!("sys/class/kfd/kfd/topology/nodes/{node}/gpu_id"));
        files::number(&path) == Some(0_u32)
    }
}

fn read_links(dir: &Path, peer: bool) -> Vec<Link> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.flatten().take(MOST_LINKS).map(|entry| entry.path().join("properties"));
    let mut links: Vec<Link> = paths.filter_map(|path| read_link(&path, peer)).collect();
    links.sort_unstable_by_key(|link| link.to);
    links
}

fn read_link(path: &Path, peer: bool) -> Option<Link> {
    let properties = Properties::parse(&files::read(path, PROPERTIES_LIMIT).ok()?);
    let kind = match properties.get("type")? {
        TYPE_PCIE => LinkKind::Pcie,
        TYPE_XGMI => LinkKind::Xgmi,
        other => LinkKind::Other(u32::try_from(other).ok()?),
    };
    Some(Link {
        kind,
        to: u32::try_from(properties.get("node_to")?).ok()?,
        weight: properties.get("weight").unwrap_or(0),
        min_bandwidth: properties.get("min_bandwidth").unwrap_or(0),
        max_bandwidth: properties.get("max_bandwidth").unwrap_or(0),
        flags: properties.get("flags").and_then(|bits| u32::try_from(bits).ok()).unwrap_or(0),
        peer,
    })
}
