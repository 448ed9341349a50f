//! Which GPUs a simulated machine has, and what each is called.

use std::fmt;

use crate::board::Board;
use crate::kernel::Kernel;
use crate::zoo::text;

/// A GPU of a simulated machine as KFD lists it: a whole GPU, or one partition of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimGpu {
    /// Place on this machine, from 0; stays the same when another GPU goes.
    pub index: usize,
    /// Which physical GPU, from 0.
    pub device: usize,
    /// PCI address, as `0000:03:00.0`.
    pub bdf: String,
    /// KFD's id (`gpu_id`), never 0.
    pub kfd_gpu_id: u32,
    /// `unique_id`; the same for all partitions of a GPU.
    pub unique_id: u64,
    /// Number of the partition, from 0.
    pub partition: u32,
    /// How many partitions this GPU has; 1 if it is not partitioned.
    pub partitions: u32,
    /// Minor of `/dev/dri/renderD<minor>`.
    pub render_minor: u32,
    /// Number of `/dev/dri/card<number>`.
    pub card: u32,
    /// Whether it is plugged in.
    pub present: bool,
}

/// A PCI address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bdf {
    pub(crate) domain: u32,
    pub(crate) bus: u32,
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:00.0", self.domain, self.bus)
    }
}

/// A physical GPU.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) number: usize,
    pub(crate) board: &'static Board,
    pub(crate) bdf: Bdf,
    pub(crate) unique_id: u64,
    pub(crate) partitions: u32,
    pub(crate) first_index: usize,
    pub(crate) denied: bool,
    pub(crate) present: bool,
    /// How often it came or went.
    pub(crate) life: u64,
    /// It was divided anew, and is another device now.
    pub(crate) replaced: bool,
}

/// Devices on one PCI domain; the buses before belong to the board.
const DEVICES_PER_DOMAIN: u32 = 240;
const FIRST_BUS: u32 = 3;

impl Device {
    pub(crate) fn new(
        number: usize,
        board: &'static Board,
        partitions: u32,
        first_index: usize,
        denied: bool,
    ) -> Self {
        let place = u32::try_from(number).unwrap_or(0);
        let bdf =
            Bdf { domain: place / DEVICES_PER_DOMAIN, bus: FIRST_BUS + place % DEVICES_PER_DOMAIN };
        let unique_id = 0x9246_f3a1_b0c7_0000 + number as u64;
        Device {
            number,
            board,
            bdf,
            unique_id,
            partitions,
            first_index,
            denied,
            present: true,
            life: 0,
            replaced: false,
        }
    }

    /// Folder of the PCI device, from the machine's root. Its host bridge is one that real
    /// machines hardly have, so that the folder is the machine's alone where a program sees it
    /// beside real ones.
    pub(crate) fn dir(&self) -> String {
        let bridge = self.number % 210;
        let root = self.bdf.domain;
        let (slot, function) = (1 + bridge / 7, 1 + bridge % 7);
        let bdf = self.bdf;
        format!("sys/devices/pci{root:04x}:02/{root:04x}:02:{slot:02x}.{function}/{bdf}")
    }

    /// Its KFD nodes.
    pub(crate) fn gpus(&self) -> impl Iterator<Item = SimGpu> + '_ {
        (0..self.partitions).map(|partition| {
            let index = self.first_index + partition as usize;
            let number = u32::try_from(index).unwrap_or(0);
            SimGpu {
                index,
                device: self.number,
                bdf: self.bdf.to_string(),
                kfd_gpu_id: gpu_id(index),
                unique_id: self.unique_id,
                partition,
                partitions: self.partitions,
                render_minor: 128 + number,
                card: number,
                present: self.present,
            }
        })
    }

    /// `location_id`: bus, device and function, and the partition where this driver puts it.
    ///
    /// AMD's own driver uses bits 31 to 28; Linux adds it to the function, of which there are 8.
    pub(crate) fn location_id(&self, kernel: Kernel, partition: u32) -> u32 {
        let place = self.bdf.bus << 8;
        match kernel {
            Kernel::Dkms if self.partitions <= 16 => place | partition << 28,
            _ if self.partitions <= 8 => place | partition,
            _ => place,
        }
    }
}

/// The GPUs of a machine that was found, numbered anew.
pub(crate) fn found(gpus: impl Iterator<Item = text::Gpu>) -> Vec<SimGpu> {
    let mut devices: Vec<String> = Vec::new();
    let numbered = (0..).zip(gpus).map(|(index, gpu)| {
        let known = devices.iter().position(|bdf| *bdf == gpu.bdf);
        let device = known.unwrap_or(devices.len());
        if known.is_none() {
            devices.push(gpu.bdf.clone());
        }
        SimGpu {
            index,
            device,
            bdf: gpu.bdf,
            kfd_gpu_id: gpu.kfd_id,
            unique_id: gpu.unique_id,
            partition: gpu.partition,
            partitions: gpu.partitions,
            render_minor: gpu.render_minor,
            card: gpu.card.unwrap_or(0),
            present: true,
        }
    });
    numbered.collect()
}

/// KFD's ids are 16-bit hashes: they look random, and differ.
pub(crate) fn gpu_id(index: usize) -> u32 {
    let index = u32::try_from(index).unwrap_or(0);
    (0x5a21 + index.wrapping_mul(0x1353)) & 0xffff
}
