//! Which GPU somebody means: by index, PCI address, or unique id, with or without a partition.

use std::fmt::Write as _;

use crate::{Bdf, Error, ErrorKind, Gpu, GpuId, Inventory, Result, UniqueId};

/// GPUs that are chosen for good: what is chosen is what it selects at any time, so a card stays chosen when its
/// partitions change. Made from what people write ([`Inventory::selector`]), from a [`Gpu`] (the card, or one
/// partition of a card that has several), or from a [`GpuId`] (exactly that partition).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GpuSelector {
    card: Card,
    /// `None` for all partitions of the card.
    partition: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Card {
    At(Bdf),
    With(UniqueId),
}

impl GpuSelector {
    /// Whether `gpu` is one of those.
    #[must_use]
    pub fn selects(&self, gpu: GpuId) -> bool {
        let is_card = match self.card {
            Card::At(bdf) => gpu.bdf == bdf,
            Card::With(id) => gpu.unique_id == Some(id),
        };
        is_card && self.partition.is_none_or(|partition| gpu.partition == partition)
    }
}

impl From<GpuId> for GpuSelector {
    fn from(gpu: GpuId) -> Self {
        Self { card: Card::At(gpu.bdf), partition: Some(gpu.partition) }
    }
}

impl From<&Gpu> for GpuSelector {
    fn from(gpu: &Gpu) -> Self {
        let partition = (gpu.partitions > 1).then_some(gpu.id.partition);
        Self { card: Card::At(gpu.id.bdf), partition }
    }
}

/// What people write to name a GPU.
enum Name {
    Index(u32),
    Bdf(Bdf),
    UniqueId(UniqueId),
}

impl Inventory {
    /// The one GPU that `selector` names: an index (`0`), a PCI address (`0000:03:00.0`), a unique id (16 hex
    /// digits), or one of the latter two with a partition (`0000:03:00.0/2`).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where it names none or, for lack of a partition, more than one;
    /// [`ErrorKind::NoGpu`] where there is none at all. Both list what there is.
    pub fn find(&self, selector: &str) -> Result<&Gpu> {
        match self.select(selector)?.as_slice() {
            [gpu] => Ok(gpu),
            several => {
                let what = format!("{selector:?} names {} partitions", several.len());
                let bdf = several.first().map_or_else(String::new, |gpu| gpu.id.bdf.to_string());
                Err(Error::new(ErrorKind::InvalidInput, what)
                    .with_hint(format!("name one, e.g. {bdf}/0; {}", self.list())))
            }
        }
    }

    /// All GPUs that `selector` names, in order: as [`Inventory::find`], but a PCI address or unique id
    /// without a partition stands for all its partitions.
    ///
    /// # Errors
    /// As [`Inventory::find`].
    pub fn select(&self, selector: &str) -> Result<Vec<&Gpu>> {
        if self.gpus.is_empty() {
            return Err(Error::new(
                ErrorKind::NoGpu,
                format!("GPU {selector:?}: this machine has none"),
            )
            .with_hint(self.list()));
        }
        let (name, partition) = parse(selector).ok_or_else(|| {
            not_a_name(selector).with_hint(format!(
                "give an index, a PCI address, a unique id, or one of these with /partition; {}",
                self.list()
            ))
        })?;
        let named = |gpu: &&Gpu| {
            partition.is_none_or(|partition| gpu.id.partition == partition)
                && match name {
                    Name::Index(index) => gpu.id.index == index,
                    Name::Bdf(bdf) => gpu.id.bdf == bdf,
                    Name::UniqueId(id) => gpu.id.unique_id == Some(id),
                }
        };
        let found: Vec<_> = self.gpus.iter().filter(named).collect();
        if found.is_empty() {
            let what = format!("no GPU {selector:?} on this machine");
            return Err(Error::new(ErrorKind::InvalidInput, what).with_hint(self.list()));
        }
        Ok(found)
    }

    /// What `selector` selects now and later: see [`Inventory::select`]. An index is that of this moment.
    ///
    /// # Errors
    /// As [`Inventory::find`].
    pub fn selector(&self, selector: &str) -> Result<GpuSelector> {
        let found = self.select(selector)?;
        let selected = parse(selector).and_then(|(name, partition)| match (name, partition) {
            (Name::Bdf(bdf), _) => Some(GpuSelector { card: Card::At(bdf), partition }),
            (Name::UniqueId(id), _) => Some(GpuSelector { card: Card::With(id), partition }),
            (Name::Index(_), None) => found.first().map(|gpu| GpuSelector::from(*gpu)),
            (Name::Index(_), Some(_)) => found.first().map(|gpu| GpuSelector::from(gpu.id)),
        });
        selected.ok_or_else(|| not_a_name(selector))
    }

    /// What there is, for the end of an error.
    fn list(&self) -> String {
        let mut text = String::from("there is");
        for (place, gpu) in self.gpus.iter().enumerate() {
            let mark = if place == 0 { " " } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{mark}{}: {}", gpu.id.index, gpu.id.bdf);
            if gpu.partitions > 1 {
                let _ = write!(text, "/{}", gpu.id.partition);
            }
            if let Some(id) = gpu.id.unique_id {
                let _ = write!(text, " ({id})");
            }
        }
        if self.gpus.is_empty() {
            text.push_str(" none");
        }
        if !self.denied.is_empty() {
            let _ =
                write!(text, ", and {} that the device cgroup keeps from us", self.denied.len());
        }
        text
    }
}

fn not_a_name(selector: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{selector:?} does not name a GPU"))
}

fn parse(selector: &str) -> Option<(Name, Option<u32>)> {
    let (name, partition) = match selector.trim().split_once('/') {
        Some((name, partition)) => (name, Some(partition.parse().ok()?)),
        None => (selector.trim(), None),
    };
    Some((parse_name(name)?, partition))
}

fn parse_name(name: &str) -> Option<Name> {
    if name.contains(':') {
        return name.parse().ok().map(Name::Bdf);
    }
    let hex = name.strip_prefix("0x").or_else(|| (name.len() == 16).then_some(name));
    match hex {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|id| Name::UniqueId(UniqueId(id))),
        None => name.parse().ok().map(Name::Index),
    }
}
