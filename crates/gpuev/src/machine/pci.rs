//! AMD's display and compute devices on the PCI bus, whether or not KFD lists them.

use std::fmt;
use std::path::{Path, PathBuf};

use super::files;
use crate::{Bdf, Machine};

/// The largest bus known has a few hundred devices.
const MOST_DEVICES: usize = 4096;

/// An AMD GPU on the PCI bus.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Card {
    /// Where.
    pub bdf: Bdf,
    /// PCI device id.
    pub device_id: Option<u16>,
    /// The driver that is bound to it: `amdgpu`, `radeon`, `vfio-pci`, ...
    pub driver: Option<String>,
}

impl fmt::Display for Card {
    /// `0000:01:00.0 (1002:6613)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device_id {
            Some(id) => write!(f, "{} (1002:{id:04x})", self.bdf),
            None => write!(f, "{}", self.bdf),
        }
    }
}

impl Machine {
    /// AMD's display controllers and processing accelerators on the PCI bus, in order of address.
    #[must_use]
    pub fn cards(&self) -> Vec<Card> {
        let devices = std::fs::read_dir(self.path("sys/bus/pci/devices"));
        let mut cards: Vec<Card> = devices
            .into_iter()
            .flatten()
            .flatten()
            .take(MOST_DEVICES)
            .filter_map(|device| card(&device.path()))
            .collect();
        cards.sort_by_key(|card| card.bdf);
        cards
    }
}

fn card(dir: &Path) -> Option<Card> {
    let bdf = dir.file_name()?.to_str()?.parse().ok()?;
    let driver = bound_driver(dir);
    let is_amd = hex(dir, "vendor") == Some(0x1002);
    // Class 03: display controller; 12: processing accelerator, as the Instinct cards are. A driver for GPUs tells
    // what a device is where the class is not known.
    let is_gpu = match hex(dir, "class") {
        Some(class) => matches!(class >> 16, 0x03 | 0x12),
        None => matches!(driver.as_deref(), Some("amdgpu" | "radeon")),
    };
    let device_id = hex(dir, "device").and_then(|id| u16::try_from(id).ok());
    (is_amd && is_gpu).then_some(Card { bdf, device_id, driver })
}

fn bound_driver(dir: &Path) -> Option<String> {
    let target: PathBuf = std::fs::read_link(dir.join("driver")).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

fn hex(dir: &Path, file: &str) -> Option<u32> {
    let text = files::text(&dir.join(file)).ok()?;
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
