//! Memory and bus errors that the GPU itself counts (RAS).
//!
//! Source: `drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c`. The driver adds up what it finds; counters begin at 0
//! when it is loaded.

use std::path::Path;

use crate::machine::files;

/// There are about twenty blocks.
const MOST_BLOCKS: usize = 128;
/// A line has 28 bytes, and a GPU is retired long before it has so many bad pages.
const BAD_PAGES_LIMIT: usize = 1 << 20;

/// Errors of one block of a GPU since the driver was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RasErrors {
    /// Which block: `umc` (memory), `sdma`, `gfx`, `mmhub`, `pcie_bif`, `xgmi_wafl`, ...
    pub block: String,
    /// Data was lost.
    pub uncorrectable: Option<u64>,
    /// Data was mended.
    pub correctable: Option<u64>,
    /// Bad data was found and nobody has used it yet. Newer drivers only.
    pub deferred: Option<u64>,
}

/// Pages of VRAM that went bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadPages {
    /// No longer used.
    pub retired: u64,
    /// Bad, and to be retired at the next occasion (a reset or a reboot).
    pub pending: u64,
    /// Bad, and could not be retired.
    pub unretired: u64,
}

/// The counters of each block, in order of name. While the GPU is reset they cannot be read and are `None`.
pub(super) fn errors(device_dir: &Path) -> Vec<RasErrors> {
    let Ok(entries) = std::fs::read_dir(device_dir.join("ras")) else { return Vec::new() };
    let mut blocks: Vec<RasErrors> = entries
        .flatten()
        .take(MOST_BLOCKS)
        .filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            let block = name.strip_suffix("_err_count").or_else(|| name.strip_prefix("aca_"))?;
            Some(parse(block, &files::text(&entry.path()).unwrap_or_default()))
        })
        .collect();
    // A block that has both files has the same numbers in them, and `aca_` one more: that first.
    blocks.sort_by(|a, b| (&a.block, a.deferred.is_none()).cmp(&(&b.block, b.deferred.is_none())));
    blocks.dedup_by(|a, b| a.block == b.block);
    blocks
}

/// The counters of one block; `None` where the GPU has none for it.
pub(super) fn errors_of(device_dir: &Path, block: &str) -> Option<RasErrors> {
    if block.contains('/') {
        return None;
    }
    let files = [format!("ras/aca_{block}"), format!("ras/{block}_err_count")];
    let found = files.iter().map(|file| device_dir.join(file)).filter(|path| path.is_file());
    let errors = found.map(|path| parse(block, &files::text(&path).unwrap_or_default()));
    errors.min_by_key(|errors| errors.deferred.is_none())
}

fn parse(block: &str, text: &str) -> RasErrors {
    let count = |kind: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(kind)?.strip_prefix(':'));
        line?.trim().parse().ok()
    };
    RasErrors {
        block: block.to_owned(),
        uncorrectable: count("ue"),
        correctable: count("ce"),
        deferred: count("de"),
    }
}

/// Lines of `page : size : R|P|F`.
pub(super) fn bad_pages(device_dir: &Path) -> Option<BadPages> {
    let bytes = files::read(&device_dir.join("ras/gpu_vram_bad_pages"), BAD_PAGES_LIMIT).ok()?;
    let mut pages = BadPages::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        match line.trim_ascii().rsplit(|byte| *byte == b' ').next() {
            Some(b"R") => pages.retired += 1,
            Some(b"P") => pages.pending += 1,
            Some(b"F") => pages.unretired += 1,
            _ => {}
        }
    }
    Some(pages)
}
