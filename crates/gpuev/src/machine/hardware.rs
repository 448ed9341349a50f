//! What a node of KFD's topology says of its hardware: its caches, and how wide its memory is.
//!
//! Source: `drivers/gpu/drm/amd/amdkfd/kfd_topology.c` (`kfd_cache_show`, `mem_show`) and `kfd_crat.h`.

use std::collections::BTreeSet;
use std::path::Path;

use super::files;
use super::topology::{Properties, video_banks};
use crate::Machine;

/// An MI300X has some 1,200: each compute unit has some of its own.
const MOST_CACHES: usize = 1 << 14;
const PROPERTIES_LIMIT: usize = 16 << 10;

/// Caches that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caches {
    /// 1 is next to the compute units.
    pub level: u32,
    /// Size of each in KiB.
    pub kibibytes: u64,
    /// What they hold and whose they are: `HSA_CACHE_TYPE_DATA` (1), `INSTRUCTION` (2), `CPU` (4), `HSACU` (8).
    pub flags: u32,
    /// How many compute units share one.
    pub compute_units: usize,
    /// How many there are.
    pub count: usize,
}

impl Machine {
    /// The caches of a node, those that are alike together, in the order of the driver's list.
    #[must_use]
    pub fn caches(&self, node: u32) -> Vec<Caches> {
        let dir = self.path(format!("sys/class/kfd/kfd/topology/nodes/{node}/caches"));
        let mut found: Vec<Caches> = Vec::new();
        for number in numbers(&dir) {
            let path = dir.join(number.to_string()).join("properties");
            let Some(cache) = read_cache(&path) else { continue };
            let like = |known: &&mut Caches| Caches { count: 1, ..**known } == cache;
            match found.iter_mut().find(like) {
                Some(known) => known.count += 1,
                None => found.push(cache),
            }
        }
        found
    }

    /// How many bits wide the video memory of a node is.
    #[must_use]
    pub fn video_memory_width(&self, node: u32) -> Option<u32> {
        let dir = self.path(format!("sys/class/kfd/kfd/topology/nodes/{node}"));
        let widths = video_banks(&dir).filter_map(|bank| bank.get("width")).max()?;
        u32::try_from(widths).ok().filter(|bits| *bits > 0)
    }
}

fn numbers(dir: &Path) -> BTreeSet<u32> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().take(MOST_CACHES);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn read_cache(path: &Path) -> Option<Caches> {
    let bytes = files::read(path, PROPERTIES_LIMIT).ok()?;
    let properties = Properties::parse(&bytes);
    let number = |key| properties.get(key).and_then(|number| u32::try_from(number).ok());
    let siblings = bytes.split(|byte| *byte == b'\n').find_map(|line| {
        // Of each compute unit, a 1 where it shares the cache: `1,1,0,0`.
        line.strip_prefix(b"sibling_map ")
    });
    let compute_units = siblings.unwrap_or_default().iter().filter(|byte| **byte == b'1').count();
    Some(Caches {
        level: number("level")?,
        kibibytes: properties.get("size").filter(|size| *size > 0)?,
        flags: number("type").filter(|flags| *flags > 0)?,
        compute_units,
        count: 1,
    })
}
