//! The pages of VRAM that went bad, one by one.
//!
//! Source: `amdgpu_ras_sysfs_badpages_read` in `drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c`.

use std::path::Path;

use crate::machine::files;

/// A line has 28 bytes, and a GPU is retired long before it has so many bad pages.
const LIMIT: usize = 1 << 20;

/// What became of a bad page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPageStatus {
    /// No longer used (`R`).
    Reserved,
    /// To be taken out of use at the next occasion, a reset or a reboot (`P`).
    Pending,
    /// Could not be taken out of use (`F`).
    Unreservable,
}

/// A page of VRAM that went bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadPage {
    /// Number of the page, as the driver prints it.
    pub page: u64,
    /// Its size in bytes.
    pub size: u64,
    /// What became of it.
    pub status: BadPageStatus,
}

/// Lines of `page : size : R|P|F`; `None` where there is no such list.
pub(super) fn list(device_dir: &Path) -> Option<Vec<BadPage>> {
    let bytes = files::read(&device_dir.join("ras/gpu_vram_bad_pages"), LIMIT).ok()?;
    Some(bytes.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

fn parse(line: &[u8]) -> Option<BadPage> {
    let mut words = std::str::from_utf8(line).ok()?.split(':').map(str::trim);
    let mut hex = || u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok();
    let (page, size) = (hex()?, hex()?);
    let status = match words.next()? {
        "R" => BadPageStatus::Reserved,
        "P" => BadPageStatus::Pending,
        "F" => BadPageStatus::Unreservable,
        _ => return None,
    };
    Some(BadPage { page, size, status })
}
