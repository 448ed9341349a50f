//! A bounded queue of events between the thread that drains the driver and one subscriber.
//!
//! Items lie in blocks of bytes, about 85 bytes an event, not as [`Event`](crate::Event)s of some 300: a burst of
//! half a million events fits the default limit of 64 MiB. Nothing is allocated for an event, only now and
//! then for a block, and the subscriber takes a whole block at a time. What does not fit is counted and
//! becomes a [`Gap`] in its place.
//!
//! Entry: kind and flags (1 byte each), GPU (2), length of line (2) and name (1), then `seq`,
//! `received_boot_ns` and `unix_ns` (8 each), the process of a thread where a flag says so (4), the line, the name. A gap: kind, cause, GPU, then
//! count (`u64::MAX` for unknown), `from`, `to`, `unix_ns`.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::drain::{WakeUp, raise};
use crate::event::{Clock, EventFacts, EventTime, Gap, GapCause};
use crate::fork::Descriptor;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::time::Anchor;
use crate::view::{EventView, ItemView};
use crate::{Comm, GpuId};

const BLOCK_SIZE: usize = 64 * 1024;
const EVENT_HEADER: usize = 31;
const PID_SIZE: usize = 4;
const GAP_SIZE: usize = 36;

const EVENT: u8 = 0;
const GAP: u8 = 1;

const FLAG_DRIVER_CLOCK: u8 = 1;
const FLAG_DOUBTFUL: u8 = 2;
const FLAG_PID: u8 = 4;

/// The queue. Pushing never waits for the subscriber.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    blocks: VecDeque<Vec<u8>>,
    /// Bytes in `blocks`.
    held: usize,
    /// Emptied block, kept to be used again.
    spare: Option<Vec<u8>>,
    gpus: Vec<GpuId>,
    /// Gaps that are not yet in a block, one for each GPU and cause: what was dropped here, and gaps that came while
    /// there was no room.
    pending: Vec<Gap>,
    closed: bool,
    sleepers: usize,
    waker: Option<Waker>,
    signal: Option<Signal>,
    /// Wakes the subscriber where it waits, which is not here.
    elsewhere: Option<WakeUp>,
}

/// Bytes taken from a queue and read at leisure.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    block: Vec<u8>,
    read: usize,
    gpus: Vec<GpuId>,
    gaps: VecDeque<Gap>,
}

/// An eventfd that is readable while the queue holds something.
type Signal = std::sync::Arc<Descriptor>;

/// What a wait ended with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Ready,
    TimedOut,
    Closed,
}

impl Queue {
    /// A queue that holds at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), limit }
    }

    /// A poisoned lock is taken as it is: no step leaves the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds an event, or counts it as dropped.
    pub(crate) fn push_event(&self, facts: &EventFacts<'_>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let name = facts.comm.bytes().unwrap_or_default();
        let size = EVENT_HEADER + facts.pid.map_or(0, |_| PID_SIZE) + facts.raw.len() + name.len();
        if !state.has_room(size, self.limit) || facts.raw.len() > usize::from(u16::MAX) {
            state.count_dropped(facts.gpu, facts.time.received_boot_ns, facts.time);
            return;
        }
        state.put_pending();
        let gpu = state.gpu_number(facts.gpu);
        write_event(state.room(size), gpu, facts, name);
        state.held += size;
    }

    /// Adds a gap. Where there is no room it widens the one of its GPU and cause that waits for room.
    pub(crate) fn push_gap(&self, gap: &Gap) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.has_room(GAP_SIZE, self.limit) {
            state.put_pending();
            state.put_gap(gap);
        } else {
            state.widen_pending(gap);
        }
    }

    /// Lets the subscriber know. Called once after a batch. The lock is let go first: the thread that this wakes may run
    /// at once, and would find it taken. Gives the waker of a task, to be woken once the caller holds no lock either.
    #[must_use]
    pub(crate) fn wake(&self) -> Option<Waker> {
        let mut state = self.lock();
        if state.is_empty() && !state.closed {
            return None;
        }
        let asleep = state.sleepers > 0;
        let waker = state.waker.take();
        if let Some(signal) = &state.signal {
            raise(signal);
        }
        let elsewhere = state.elsewhere.take();
        drop(state);
        if let Some(elsewhere) = elsewhere {
            elsewhere.wake();
        }
        if asleep {
            self.arrived.notify_all();
        }
        waker
    }

    /// Nothing more will come. What is held can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        if let Some(waker) = self.wake() {
            waker.wake();
        }
    }

    /// Nobody will take anything more: frees what is held.
    pub(crate) fn abandon(&self) {
        let nothing = State { closed: true, ..State::default() };
        // Dropped without the lock: a waker may drop anything.
        drop(std::mem::replace(&mut *self.lock(), nothing));
    }

    /// Takes what is there into `taken`, which must be used up. False where nothing is there.
    pub(crate) fn take(&self, taken: &mut Taken) -> bool {
        let mut state = self.lock();
        taken.gpus.extend_from_slice(&state.gpus[taken.gpus.len()..]);
        if let Some(block) = state.blocks.pop_front() {
            state.held -= block.len();
            let mut used = std::mem::replace(&mut taken.block, block);
            used.clear();
            state.spare = Some(used);
            taken.read = 0;
            return true;
        }
        taken.gaps.extend(state.pending.drain(..));
        let signal = state.signal.as_ref().filter(|_| taken.gaps.is_empty() && !state.closed);
        if let Some(signal) = signal {
            lower(signal);
        }
        !taken.gaps.is_empty()
    }

    /// Waits until something is there, at most until `deadline`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Waited {
        let mut state = self.lock();
        loop {
            if !state.is_empty() {
                return Waited::Ready;
            }
            if state.closed {
                return Waited::Closed;
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Waited::TimedOut;
            }
            state.sleepers += 1;
            state = self.sleep(state, left);
            state.sleepers -= 1;
        }
    }

    /// Wakes the subscriber by `wake_up` once something arrives, until [`wake_here`](Self::wake_here); tells where
    /// something is there already, or never will be.
    pub(crate) fn wake_elsewhere(&self, wake_up: &WakeUp) -> Option<Waited> {
        let mut state = self.lock();
        if !state.is_empty() {
            return Some(Waited::Ready);
        }
        if state.closed {
            return Some(Waited::Closed);
        }
        state.elsewhere = Some(wake_up.clone());
        None
    }

    /// The subscriber will look by itself.
    pub(crate) fn wake_here(&self) {
        self.lock().elsewhere = None;
    }

    fn sleep<'a>(
        &self,
        state: MutexGuard<'a, State>,
        left: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        use std::sync::PoisonError;
        match left {
            Some(left) => {
                self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Registers `waker` for the next arrival; true where something is there already, or never will be.
    #[cfg(feature = "tokio")]
    pub(crate) fn register(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        if !state.is_empty() || state.closed {
            return true;
        }
        let before = state.waker.replace(waker.clone());
        drop(state);
        // Dropped without the lock: a waker may drop anything.
        drop(before);
        false
    }

    /// Whether nothing more will come and nothing is held.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.lock();
        state.closed && state.is_empty()
    }

    /// An eventfd that is readable while something is here.
    pub(crate) fn signal(&self) -> std::io::Result<Signal> {
        use rustix::event::EventfdFlags;
        let mut state = self.lock();
        if let Some(signal) = &state.signal {
            return Ok(Signal::clone(signal));
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let signal = Signal::new(Descriptor::open(|| rustix::event::eventfd(0, flags))?);
        if !state.is_empty() || state.closed {
            raise(&signal);
        }
        state.signal = Some(Signal::clone(&signal));
        Ok(signal)
    }
}

/// Reading an eventfd fails only where it is at zero already.
fn lower(signal: &Signal) {
    let _already_lowered = rustix::io::read(signal, &mut [0_u8; 8]);
}

impl State {
    fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.pending.is_empty()
    }

    /// The block to append `size` bytes to.
    fn room(&mut self, size: usize) -> &mut Vec<u8> {
        let fits = self.blocks.back().is_some_and(|block| block.len() + size <= BLOCK_SIZE);
        if !fits {
            // In one piece: growing to it would copy as much again.
            let spare = self.spare.take().filter(|block| block.capacity() > 0);
            self.blocks.push_back(spare.unwrap_or_else(|| Vec::with_capacity(BLOCK_SIZE)));
        }
        self.blocks.back_mut().expect("a block should have been added")
    }

    fn gpu_number(&mut self, gpu: GpuId) -> u16 {
        let known = self.gpus.iter().position(|known| *known == gpu);
        let number = known.unwrap_or_else(|| {
            self.gpus.push(gpu);
            self.gpus.len() - 1
        });
        u16::try_from(number).unwrap_or(u16::MAX)
    }

    fn count_dropped(&mut self, gpu: GpuId, boot_ns: u64, time: EventTime) {
        let anchor = Anchor { boot_ns: time.boot_ns, unix_ns: time.unix_ns };
        let unix_ns = anchor.unix_ns_of(boot_ns);
        self.widen_pending(&Gap {
            gpu,
            cause: GapCause::SubscriberSlow,
            count: Some(1),
            from_boot_ns: time.boot_ns.min(boot_ns),
            to_boot_ns: boot_ns.max(time.boot_ns),
            unix_ns,
        });
    }

    /// Makes `gap` a part of the pending one of its GPU and cause.
    fn widen_pending(&mut self, gap: &Gap) {
        let is_same = |pending: &&mut Gap| (pending.gpu, pending.cause) == (gap.gpu, gap.cause);
        let Some(pending) = self.pending.iter_mut().find(is_same) else {
            return self.pending.push(gap.clone());
        };
        pending.count = pending.count.zip(gap.count).map(|(one, other)| one.saturating_add(other));
        pending.from_boot_ns = pending.from_boot_ns.min(gap.from_boot_ns);
        if gap.to_boot_ns >= pending.to_boot_ns {
            (pending.to_boot_ns, pending.unix_ns) = (gap.to_boot_ns, gap.unix_ns);
        }
    }

    /// Whether `size` bytes have room behind the gaps that are pending.
    fn has_room(&self, size: usize, limit: usize) -> bool {
        self.held + self.pending.len() * GAP_SIZE + size <= limit
    }

    /// Puts the pending gaps into their place: before what comes now.
    fn put_pending(&mut self) {
        for gap in std::mem::take(&mut self.pending) {
            self.put_gap(&gap);
        }
    }

    fn put_gap(&mut self, gap: &Gap) {
        let gpu = self.gpu_number(gap.gpu);
        write_gap(self.room(GAP_SIZE), gpu, gap);
        self.held += GAP_SIZE;
    }
}

fn write_event(block: &mut Vec<u8>, gpu: u16, facts: &EventFacts<'_>, name: &[u8]) {
    let driver_clock = if facts.time.clock == Clock::Driver { FLAG_DRIVER_CLOCK } else { 0 };
    let doubtful = if facts.doubtful { FLAG_DOUBTFUL } else { 0 };
    let has_pid = if facts.pid.is_some() { FLAG_PID } else { 0 };
    let line_length = u16::try_from(facts.raw.len()).unwrap_or(u16::MAX);
    let name_length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let mut header = [0; EVENT_HEADER];
    header[0] = EVENT;
    header[1] = driver_clock | doubtful | has_pid;
    header[2..4].copy_from_slice(&gpu.to_ne_bytes());
    header[4..6].copy_from_slice(&line_length.to_ne_bytes());
    header[6] = name_length;
    header[7..15].copy_from_slice(&facts.seq.to_ne_bytes());
    header[15..23].copy_from_slice(&facts.time.received_boot_ns.to_ne_bytes());
    header[23..31].copy_from_slice(&facts.time.unix_ns.to_ne_bytes());
    block.extend_from_slice(&header);
    if let Some(pid) = facts.pid {
        block.extend_from_slice(&pid.to_ne_bytes());
    }
    block.extend_from_slice(facts.raw);
    block.extend_from_slice(name);
}

fn write_gap(block: &mut Vec<u8>, gpu: u16, gap: &Gap) {
    let cause = GapCause::ALL.iter().position(|cause| *cause == gap.cause);
    let cause = cause.and_then(|cause| u8::try_from(cause).ok()).unwrap_or(u8::MAX);
    block.extend_from_slice(&[GAP, cause]);
    block.extend_from_slice(&gpu.to_ne_bytes());
    block.extend_from_slice(&gap.count.unwrap_or(u64::MAX).to_ne_bytes());
    block.extend_from_slice(&gap.from_boot_ns.to_ne_bytes());
    block.extend_from_slice(&gap.to_boot_ns.to_ne_bytes());
    block.extend_from_slice(&gap.unix_ns.to_ne_bytes());
}

impl Taken {
    /// Whether all is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.read >= self.block.len() && self.gaps.is_empty()
    }

    /// The next item, or `None` where all are read.
    pub(crate) fn next(&mut self) -> Option<ItemView<'_>> {
        if self.read >= self.block.len() {
            return self.gaps.pop_front().map(ItemView::Gap);
        }
        let mut entry = Entry { bytes: &self.block[self.read..] };
        let (kind, flags) = (entry.byte(), entry.byte());
        let gpu = self.gpus[usize::from(u16::from_ne_bytes(entry.array()))];
        let item = match kind {
            EVENT => ItemView::Event(read_event(&mut entry, gpu, flags)),
            _ => ItemView::Gap(read_gap(&mut entry, gpu, flags)),
        };
        self.read = self.block.len() - entry.bytes.len();
        Some(item)
    }
}

fn read_event<'a>(entry: &mut Entry<'a>, gpu: GpuId, flags: u8) -> EventView<'a> {
    let line_length = u16::from_ne_bytes(entry.array());
    let name_length = entry.byte();
    let seq = entry.number();
    let received_boot_ns = entry.number();
    let unix_ns = i64::from_ne_bytes(entry.array());
    let pid = (flags & FLAG_PID != 0).then(|| u32::from_ne_bytes(entry.array()));
    let raw = entry.slice(usize::from(line_length));
    let name = entry.slice(usize::from(name_length));
    let driver_clock = flags & FLAG_DRIVER_CLOCK != 0;
    let record = gpuev_kfd::decode(raw);
    let stamp = record.stamp().filter(|_| driver_clock);
    let time = EventTime {
        boot_ns: stamp.map_or(received_boot_ns, |at| at.boot_ns),
        clock: if driver_clock { Clock::Driver } else { Clock::Receipt },
        received_boot_ns,
        unix_ns,
    };
    let doubtful = flags & FLAG_DOUBTFUL != 0;
    let facts = EventFacts { gpu, seq, time, doubtful, pid, comm: Comm::new(name), raw };
    EventView { facts, record }
}

fn read_gap(entry: &mut Entry<'_>, gpu: GpuId, cause: u8) -> Gap {
    let count = entry.number();
    Gap {
        gpu,
        cause: *GapCause::ALL.get(usize::from(cause)).unwrap_or(&GapCause::from_name("unknown")),
        count: (count != u64::MAX).then_some(count),
        from_boot_ns: entry.number(),
        to_boot_ns: entry.number(),
        unix_ns: i64::from_ne_bytes(entry.array()),
    }
}

/// The rest of a block; entries were written by this module, so what they announce is there.
struct Entry<'a> {
    bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    fn slice(&mut self, length: usize) -> &'a [u8] {
        let (front, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        front
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (front, rest) = self.bytes.split_first_chunk().expect("an entry should be whole");
        self.bytes = rest;
        *front
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    fn number(&mut self) -> u64 {
        u64::from_ne_bytes(self.array())
    }
}

#[cfg(all(test, gpuev_shuttle))]
mod interleavings {
    //! Every promise of the queue over many interleavings of its two ends:
    //! `RUSTFLAGS="--cfg gpuev_shuttle" cargo test -p gpuev interleavings`.

    use shuttle::sync::Arc;
    use shuttle::thread;

    use super::*;
    use crate::{Bdf, Item};

    const LINE: &[u8] = b"7 1 -4242 @7fff00000(64) W";

    fn facts(seq: u64) -> EventFacts<'static> {
        let bdf = Bdf { domain: 0, bus: 3, device: 0, function: 0 };
        let gpu = GpuId { index: 0, bdf, unique_id: None, partition: 0, kfd_id: 100 };
        let time =
            EventTime { boot_ns: 1, clock: Clock::Driver, received_boot_ns: seq + 1, unix_ns: 0 };
        EventFacts { gpu, seq, time, doubtful: false, pid: None, comm: Comm::NONE, raw: LINE }
    }

    fn drain(queue: &Queue) -> Vec<Item> {
        let mut taken = Taken::default();
        let mut items = Vec::new();
        while queue.wait(None) == Waited::Ready {
            while queue.take(&mut taken) {
                items.extend(std::iter::from_fn(|| taken.next().map(Item::from)));
            }
        }
        items
    }

    /// Each event arrives once, in order, or is counted by the gap that stands in its place; the end is seen
    /// and no wake-up is lost (shuttle reports a deadlock).
    fn nothing_is_lost_silently(limit: usize) {
        const EVENTS: u64 = 6;
        let queue = Arc::new(Queue::new(limit));
        let producer = thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                for seq in 0..EVENTS {
                    queue.push_event(&facts(seq));
                    let _no_task = queue.wake();
                }
                queue.close();
            }
        });
        let mut expected = 0;
        for item in drain(&queue) {
            match item {
                Item::Event(event) => {
                    assert_eq!(event.seq, expected);
                    expected += 1;
                }
                Item::Gap(gap) => expected += gap.count.unwrap_or_default(),
            }
        }
        assert_eq!(expected, EVENTS);
        producer.join().unwrap();
    }

    #[test]
    fn a_roomy_queue_delivers_everything() {
        shuttle::check_random(|| nothing_is_lost_silently(1 << 20), 5_000);
    }

    #[test]
    fn a_tight_queue_counts_what_it_drops() {
        shuttle::check_random(|| nothing_is_lost_silently(EVENT_HEADER + LINE.len()), 5_000);
        shuttle::check_pct(|| nothing_is_lost_silently(2 * (EVENT_HEADER + LINE.len())), 5_000, 3);
    }

    #[test]
    fn several_producers_and_an_abandoning_subscriber_do_not_hang() {
        shuttle::check_random(
            || {
                let queue = Arc::new(Queue::new(200));
                let producers: Vec<_> = (0..2)
                    .map(|_| {
                        let queue = Arc::clone(&queue);
                        thread::spawn(move || {
                            for seq in 0..3 {
                                queue.push_event(&facts(seq));
                                let _no_task = queue.wake();
                            }
                        })
                    })
                    .collect();
                queue.wait(None);
                queue.abandon();
                producers.into_iter().for_each(|producer| producer.join().unwrap());
                assert!(queue.is_finished());
            },
            5_000,
        );
    }
}
