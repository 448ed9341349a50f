//! The GPUs that this machine is known to have, with their counters of errors: what is missing after a restart, and what rose
//! while nobody looked, is seen by comparing with it.

use std::collections::BTreeMap;

use gpuev::health::RasErrors;
use gpuev::{Bdf, GpuId, UniqueId};
use serde::{Deserialize, Serialize};

use crate::signal::{RasIncrease, RasKind};

/// The name of the file in the state folder.
pub(crate) const FILE: &str = "gpus.json";
/// What this code reads and writes.
const VERSION: u32 = 1;
/// GPUs that are remembered.
const MOST: usize = 256;
/// Counters of a GPU.
const MOST_COUNTERS: usize = 256;

/// What is known of the machine's GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    version: u32,
    boot_id: String,
    gpus: BTreeMap<String, Known>,
}

/// A GPU that was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    index: u32,
    unique_id: Option<u64>,
    kfd_id: u32,
    #[serde(default)]
    counters: Counters,
}

/// What the counters of errors were when they were last read, by block and kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    totals: BTreeMap<String, u64>,
    /// The driver was loaded after that: it counts from 0.
    begun_anew: bool,
}

impl Inventory {
    /// Of a machine of which nothing is known yet.
    #[must_use]
    pub fn new(boot_id: &str) -> Self {
        Self { version: VERSION, boot_id: boot_id.to_owned(), gpus: BTreeMap::new() }
    }

    /// What an earlier run kept, as `text`, for the boot `boot_id`.
    ///
    /// # Errors
    /// It is damaged, or of another version.
    pub fn read(text: &str, boot_id: &str) -> Result<Self, String> {
        let mut kept: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if kept.version != VERSION {
            return Err(format!("it is of version {}", kept.version));
        }
        if kept.boot_id != boot_id {
            for known in kept.gpus.values_mut() {
                known.counters = Counters { totals: BTreeMap::new(), begun_anew: true };
            }
            kept.boot_id = boot_id.to_owned();
        }
        Ok(kept)
    }

    /// These GPUs are there. One that sits in another place now is not missing from its old one, and one in the place of
    /// another replaces it.
    pub(crate) fn present(&mut self, gpus: &[GpuId]) {
        for gpu in gpus {
            let unique_id = gpu.unique_id.map(|id| id.0);
            let place = gpu.bdf.to_string();
            if unique_id.is_some() {
                self.gpus.retain(|other, known| *other == place || known.unique_id != unique_id);
            }
            let has_room = self.gpus.len() < MOST || self.gpus.contains_key(&place);
            match self.gpus.get_mut(&place) {
                Some(known) if known.unique_id == unique_id => {
                    (known.index, known.kfd_id) = (gpu.index, gpu.kfd_id);
                }
                _ if has_room => {
                    let (index, kfd_id) = (gpu.index, gpu.kfd_id);
                    let counters = Counters::default();
                    self.gpus.insert(place, Known { index, unique_id, kfd_id, counters });
                }
                _ => {}
            }
        }
    }

    /// The GPUs that were there, and are not among `gpus`.
    pub(crate) fn missing(&self, gpus: &[GpuId]) -> Vec<GpuId> {
        let known = self.gpus.iter().filter_map(|(place, known)| {
            let bdf: Bdf = place.parse().ok()?;
            let unique_id = known.unique_id.map(UniqueId);
            Some(GpuId { index: known.index, bdf, unique_id, partition: 0, kfd_id: known.kfd_id })
        });
        known.filter(|known| !gpus.iter().any(|gpu| gpu.bdf == known.bdf)).collect()
    }

    /// The counters of `gpu`.
    pub(crate) fn counters(&self, gpu: GpuId) -> Counters {
        let known = self.gpus.get(&gpu.bdf.to_string());
        let known = known.filter(|known| known.unique_id == gpu.unique_id.map(|id| id.0));
        known.map(|known| known.counters.clone()).unwrap_or_default()
    }

    /// Takes over the counters of `gpu`.
    pub(crate) fn set_counters(&mut self, gpu: GpuId, counters: &Counters) {
        if let Some(known) = self.gpus.get_mut(&gpu.bdf.to_string())
            && known.counters != *counters
        {
            known.counters = counters.clone();
        }
    }
}

impl Counters {
    /// Takes over what the GPU counts now, and gives what rose since it was last read. A GPU that sleeps or is being reset
    /// does not tell. A total that is lower counts from 0 again. What was counted before a GPU was first seen is not news.
    pub(crate) fn increases(&mut self, now: &[RasErrors]) -> Vec<RasIncrease> {
        let mut found = Vec::new();
        for block in now {
            let kinds = [
                (RasKind::Uncorrectable, block.uncorrectable),
                (RasKind::Correctable, block.correctable),
                (RasKind::Deferred, block.deferred),
            ];
            for (kind, total) in kinds {
                let Some(total) = total else { continue };
                let key = format!("{}/{}", block.block, kind.name());
                if self.totals.len() >= MOST_COUNTERS && !self.totals.contains_key(&key) {
                    continue;
                }
                let first = if self.begun_anew { 0 } else { total };
                let before = self.totals.insert(key, total).unwrap_or(first);
                let increase = if total < before { total } else { total - before };
                if increase > 0 {
                    found.push(RasIncrease { block: block.block.clone(), kind, increase, total });
                }
            }
        }
        found
    }
}
