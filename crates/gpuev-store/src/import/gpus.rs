//! Which GPU a text means by an index or a PCI address.

use gpuev::{Bdf, GpuId};

/// More GPUs than that, no machine has; a text that names more is broken.
const MOST: usize = 4096;

#[derive(Debug)]
pub(super) struct Gpus(Vec<GpuId>);

impl Gpus {
    pub(super) fn new(known: Vec<GpuId>) -> Self {
        Self(known)
    }

    /// The GPU that the text counts as number `index`.
    pub(super) fn by_index(&mut self, index: u32) -> Option<GpuId> {
        let place = usize::try_from(index).ok().filter(|place| *place < MOST)?;
        while self.0.len() <= place {
            let index = u32::try_from(self.0.len()).ok()?;
            self.0.push(unknown(index));
        }
        self.0.get(place).copied()
    }

    /// The GPU at `bdf`, its first partition.
    pub(super) fn by_bdf(&mut self, bdf: Bdf) -> Option<GpuId> {
        if let Some(known) = self.0.iter().find(|gpu| gpu.bdf == bdf) {
            return Some(*known);
        }
        let index = u32::try_from(self.0.len()).ok().filter(|_| self.0.len() < MOST)?;
        self.0.push(GpuId { bdf, ..unknown(index) });
        self.0.last().copied()
    }
}

/// A GPU of which nothing is known but that it is another one than the rest. Its KFD number is not 0, which
/// is system memory.
fn unknown(index: u32) -> GpuId {
    let [_, _, slot, bus] = index.to_be_bytes();
    let bdf = Bdf { domain: 0xffff, bus, device: slot & 31, function: 0 };
    GpuId { index, bdf, unique_id: None, partition: 0, kfd_id: index.saturating_add(1) }
}
