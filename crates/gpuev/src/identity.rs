//! What a GPU is called: the names that last, and the one people use.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// A PCI address: domain, bus, device, function. Written `0000:03:00.0`, lower-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// PCI domain (segment).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for Bdf {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse_bdf(text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("{text:?} is not a PCI address"))
                .with_hint("write it as domain:bus:device.function, e.g. 0000:03:00.0")
        })
    }
}

fn parse_bdf(text: &str) -> Option<Bdf> {
    let (rest, function) = text.rsplit_once('.')?;
    let mut parts = rest.rsplit(':');
    let device = u8::from_str_radix(parts.next()?, 16).ok().filter(|d| *d < 32)?;
    let bus = u8::from_str_radix(parts.next()?, 16).ok()?;
    let domain = parts.next().map_or(Some(0), |domain| u32::from_str_radix(domain, 16).ok())?;
    let function = function.parse().ok().filter(|f| *f < 8)?;
    parts.next().is_none().then_some(Bdf { domain, bus, device, function })
}

/// The number that the GPU's maker gave it (`unique_id` in sysfs): the same in every machine and slot.
/// Written as 16 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueId(pub u64);

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which GPU: by what lasts (unique id and partition), by what people read (PCI address, index), and by
/// what the driver calls it now (KFD's id, which changes with the partition mode and is not to be kept).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuId {
    /// Place in the machine's list, in order of PCI address and partition, from 0.
    pub index: u32,
    /// PCI address.
    pub bdf: Bdf,
    /// The maker's number; `None` on GPUs that have none (most APUs and older cards).
    pub unique_id: Option<UniqueId>,
    /// Partition of that GPU, from 0.
    pub partition: u32,
    /// KFD's number (`gpu_id`), never 0.
    pub kfd_id: u32,
}
