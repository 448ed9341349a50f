//! Spans that have begun and not ended, in bounded memory.
//!
//! Slots in one vector are chained twice: by key, newest on top, and by kind, in order of arrival. Once
//! the vector has grown to what is open at most, nothing is allocated.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, OccupiedEntry};

use super::key::{Key, Seeds};
use super::{Span, SpanKind};

/// No slot.
const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct OpenSpans {
    slots: Vec<Slot>,
    free: Vec<u32>,
    stacks: HashMap<Key, Stack, Seeds>,
    queues: [Queue; SpanKind::ALL.len()],
}

/// An open span, and its place in both chains.
#[derive(Debug)]
struct Slot {
    key: Key,
    span: Span,
    opened_ns: u64,
    below: u32,
    above: u32,
    older: u32,
    newer: u32,
}

/// Open spans of one key.
#[derive(Debug, Clone, Copy)]
struct Stack {
    bottom: u32,
    top: u32,
    depth: u32,
}

/// Open spans of one kind.
#[derive(Debug, Clone, Copy)]
struct Queue {
    oldest: u32,
    newest: u32,
    length: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE, length: 0 }
    }
}

/// Names an open span until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    fn some(index: u32) -> Option<Self> {
        (index != NONE).then_some(Self(index))
    }
}

impl OpenSpans {
    /// How many of `kind` are open.
    pub(super) fn count(&self, kind: SpanKind) -> usize {
        self.queues[kind as usize].length
    }

    /// The newest of `key`.
    pub(super) fn newest(&self, key: &Key) -> Option<Place> {
        Place::some(self.stacks.get(key)?.top)
    }

    /// The oldest of `key`.
    pub(super) fn bottom(&self, key: &Key) -> Option<Place> {
        Place::some(self.stacks.get(key)?.bottom)
    }

    /// The oldest of `kind`.
    pub(super) fn oldest(&self, kind: SpanKind) -> Option<Place> {
        Place::some(self.queues[kind as usize].oldest)
    }

    /// The next newer of the same kind.
    pub(super) fn newer(&self, place: Place) -> Option<Place> {
        Place::some(self.slot(place).newer)
    }

    pub(super) fn span(&self, place: Place) -> &Span {
        &self.slot(place).span
    }

    pub(super) fn span_mut(&mut self, place: Place) -> &mut Span {
        &mut self.slots[place.0 as usize].span
    }

    /// When it was opened.
    pub(super) fn opened_ns(&self, place: Place) -> u64 {
        self.slot(place).opened_ns
    }

    fn slot(&self, place: Place) -> &Slot {
        &self.slots[place.0 as usize]
    }

    /// Opens `span`. Returns how many of `key` are open now.
    pub(super) fn insert(&mut self, key: Key, span: &Span, opened_ns: u64) -> u32 {
        let queue = &mut self.queues[span.kind() as usize];
        let index = self.free.last().copied().unwrap_or_else(|| {
            u32::try_from(self.slots.len()).expect("limits should keep the count below 2^32")
        });
        let fresh = Stack { bottom: index, top: NONE, depth: 0 };
        let stack = self.stacks.entry(key).or_insert(fresh);
        let (below, older) = (stack.top, queue.newest);
        let slot = Slot { key, span: *span, opened_ns, below, above: NONE, older, newer: NONE };
        stack.top = index;
        stack.depth += 1;
        queue.newest = index;
        queue.length += 1;
        match older {
            NONE => queue.oldest = index,
            older => self.slots[older as usize].newer = index,
        }
        if below != NONE {
            self.slots[below as usize].above = index;
        }
        match self.free.pop() {
            Some(free) => self.slots[free as usize] = slot,
            None => self.slots.push(slot),
        }
        stack.depth
    }

    /// Takes it out.
    pub(super) fn remove(&mut self, place: Place) -> Span {
        // Every open span is in its stack.
        if let Entry::Occupied(stack) = self.stacks.entry(self.slot(place).key) {
            leave_stack(stack, &mut self.slots, place);
        }
        self.release(place)
    }

    /// Takes out the newest of `key` that `fits`.
    pub(super) fn take(&mut self, key: &Key, fits: impl Fn(&Span) -> bool) -> Option<Span> {
        let Entry::Occupied(stack) = self.stacks.entry(*key) else { return None };
        let mut place = Place::some(stack.get().top)?;
        while !fits(&self.slots[place.0 as usize].span) {
            place = Place::some(self.slots[place.0 as usize].below)?;
        }
        leave_stack(stack, &mut self.slots, place);
        Some(self.release(place))
    }

    /// Frees the slot of what has left its stack.
    fn release(&mut self, place: Place) -> Span {
        self.leave_queue(place);
        self.free.push(place.0);
        self.slot(place).span
    }

    fn leave_queue(&mut self, place: Place) {
        let Slot { span, older, newer, .. } = self.slot(place);
        let (kind, older, newer) = (span.kind(), *older, *newer);
        let queue = &mut self.queues[kind as usize];
        queue.length -= 1;
        match older {
            NONE => queue.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
        let queue = &mut self.queues[kind as usize];
        match newer {
            NONE => queue.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
    }
}

fn leave_stack(mut entry: OccupiedEntry<'_, Key, Stack>, slots: &mut [Slot], place: Place) {
    let Slot { below, above, .. } = slots[place.0 as usize];
    let stack = entry.get_mut();
    stack.depth -= 1;
    if stack.depth == 0 {
        entry.remove();
        return;
    }
    match above {
        NONE => stack.top = below,
        above => slots[above as usize].below = below,
    }
    match below {
        NONE => stack.bottom = above,
        below => slots[below as usize].above = above,
    }
}
