//! What the driver raised, and whether a history agrees with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gpuev::{GapCause, GpuId, Item};
use gpuev_store::Place;

/// A line that the driver raised.
#[derive(Debug, Clone)]
struct Line {
    gpu: usize,
    boot_ns: u64,
    raw: String,
}

/// All that was raised, by whomever. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Truth(Arc<Mutex<Vec<Line>>>);

impl Truth {
    /// Tells of a line that is about to be raised.
    pub(super) fn tell(&self, gpu: usize, boot_ns: u64, message: &[u8]) {
        let raw = String::from_utf8_lossy(message).trim_end_matches('\n').to_owned();
        self.0.lock().unwrap().push(Line { gpu, boot_ns, raw });
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Everything that was raised is recorded once, or of a time that a gap of its GPU covers; and nothing is
    /// recorded that was not raised. Gives how many lines were recorded, and how many were not.
    pub(super) fn holds_for(&self, recorded: &[(Place, Item)]) -> (usize, usize) {
        let mut found: BTreeMap<(usize, String), usize> = BTreeMap::new();
        let mut gaps: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
        for (_, item) in recorded {
            match item {
                Item::Event(event) => {
                    let raw = String::from_utf8_lossy(event.raw()).into_owned();
                    *found.entry((place(event.gpu), raw)).or_default() += 1;
                }
                Item::Gap(gap) => {
                    gaps.entry(place(gap.gpu))
                        .or_default()
                        .push((gap.from_boot_ns, gap.to_boot_ns));
                }
            }
        }
        let lines = self.0.lock().unwrap();
        let mut missing = 0;
        for line in lines.iter() {
            if let Some(count) = found.remove(&(line.gpu, line.raw.clone())) {
                assert_eq!(count, 1, "recorded more than once: {line:?}");
                continue;
            }
            missing += 1;
            let of_gpu = gaps.get(&line.gpu).map_or(&[][..], Vec::as_slice);
            let covers = |(from, to): &(u64, u64)| (*from..=*to).contains(&line.boot_ns);
            assert!(of_gpu.iter().any(covers), "missing, and in no gap: {line:?}, {of_gpu:?}");
        }
        assert!(found.is_empty(), "never raised: {found:?}");
        (lines.len() - missing, missing)
    }
}

fn place(gpu: GpuId) -> usize {
    usize::try_from(gpu.index).unwrap()
}

/// Each time that the agent was dead, from a kill to the next start, is a gap of each GPU; and what was recorded
/// of a GPU before is not in it.
pub(super) fn blind_time_is_told(recorded: &[(Place, Item)], dead: &[(u64, u64)], gpus: usize) {
    let mut last = vec![0; gpus];
    let mut blind = vec![Vec::new(); gpus];
    for (_, item) in recorded {
        match item {
            Item::Event(event) => {
                let last: &mut u64 = &mut last[place(event.gpu)];
                *last = (*last).max(event.time.boot_ns);
            }
            Item::Gap(gap) if gap.cause == GapCause::Reopened => {
                assert!(
                    last[place(gap.gpu)] <= gap.from_boot_ns,
                    "what was recorded was seen: {gap:?}"
                );
                blind[place(gap.gpu)].push((gap.from_boot_ns, gap.to_boot_ns));
            }
            Item::Gap(_) => {}
        }
    }
    for told in &blind {
        assert_eq!(told.len(), dead.len(), "one of each GPU: {told:?}, {dead:?}");
        for ((from, to), (killed, started)) in told.iter().zip(dead) {
            assert!(from <= killed && started <= to, "{from}..{to} for {killed}..{started}");
        }
    }
}
