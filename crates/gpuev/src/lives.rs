//! Which life of a pid an event is of.
//!
//! A pid comes again: after 4 million other processes, or at once where it is the number inside a container, which
//! every container has. So a process is a boot, a pid and a life; [`Lives`] counts the lives of each pid by what
//! the stream says, the same live and in replay:
//!
//! * A `PROCESS_START` begins a life. The driver tells of a start on each GPU that the process may use, one directly
//!   after the other; those within [`JOIN_NS`] of the first are one start.
//! * After a `PROCESS_END` the life is over on that GPU. Lines swap by milliseconds, so what is read within
//!   [`LATE_NS`] of the end is still of it; what comes later is of another process that started unseen.
//! * What comes without any start is of one life for all GPUs: the process was there before somebody looked.
//! * **Two at once.** A start where the same pid has started and not ended on this GPU, and no line of an end
//!   can have been lost, says that two processes have this number. Which one an event is of nobody knows: it is of
//!   a life of its own, [`Life::is_shared`], until both have ended.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use gpuev_kfd::EventType;

use crate::{Gap, GpuId};

/// Nanoseconds from the first line of a start to the last: the driver writes them in one system call.
const JOIN_NS: u64 = 100_000_000;

/// Nanoseconds that a line may be read after that of its process's end.
const LATE_NS: u64 = 1_000_000_000;

/// Pids that are followed. With one more all are forgotten, and every pid begins a new life.
const FOLLOWED: usize = 65_536;

/// One of the lives of a pid in a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Life {
    /// Counts the lives of the pid from 0.
    pub number: u32,
    /// Not one process but two or more at once, which the stream does not tell apart.
    pub is_shared: bool,
}

/// What of a GPU outlives a change of its index.
type Key = (crate::Bdf, u32);

fn key(gpu: GpuId) -> Key {
    (gpu.bdf, gpu.partition)
}

/// Counts the lives of pids in a stream.
#[derive(Debug, Default)]
pub struct Lives {
    boot: u32,
    /// By boot and pid.
    pids: HashMap<(u32, u32), Pid>,
    /// The number of the first life of a pid that is not known.
    first: u32,
    /// How many gaps each GPU had.
    gaps: HashMap<Key, u32>,
    /// How often nobody looked at any GPU.
    unseen: u32,
    /// What was answered last: neighbours are of one process, as a rule.
    last: Option<(u32, GpuId, Life)>,
}

/// What is known of a pid.
#[derive(Debug, Default)]
struct Pid {
    /// The number of its next life.
    next: u32,
    /// The life that started last, and when.
    started: Option<(Life, u64)>,
    /// The one of two or more that started last and are not told apart.
    shared: Option<Life>,
    /// The life that is there without a start, and when it ended.
    unstarted: Option<(Life, Option<u64>)>,
    on: Vec<(Key, OnGpu)>,
}

/// A pid on one GPU.
#[derive(Debug, Clone, Copy)]
struct OnGpu {
    life: Life,
    /// Processes of it that have started, or were there, and not ended.
    open: u32,
    ended_ns: Option<u64>,
    /// The gaps of the GPU when it began.
    gaps: u32,
}

impl Lives {
    /// What follows is of this boot, and nobody looked for a while: processes may have ended unseen.
    pub fn begin(&mut self, boot: u32) {
        (self.boot, self.last) = (boot, None);
        self.unseen = self.unseen.wrapping_add(1);
    }

    /// The life that an event of `pid` on `gpu` is of. It was received at `now_ns` of `CLOCK_BOOTTIME`.
    pub fn of(&mut self, gpu: GpuId, pid: u32, event_type: Option<EventType>, now_ns: u64) -> Life {
        let is_turn = matches!(event_type, Some(EventType::ProcessStart | EventType::ProcessEnd));
        if let Some((last_pid, last_gpu, life)) = self.last
            && (last_pid, last_gpu) == (pid, gpu)
            && !is_turn
        {
            return life;
        }
        let (life, is_settled) = self.look(gpu, pid, event_type, now_ns);
        self.last = is_settled.then_some((pid, gpu, life));
        life
    }

    /// The life that `pid` on `gpu` is in, as far as it was seen.
    #[must_use]
    pub fn current(&self, gpu: GpuId, pid: u32) -> Life {
        let known = self.pids.get(&(self.boot, pid));
        let on = known.and_then(|known| known.on.iter().find(|(one, _)| *one == key(gpu)));
        on.map(|(_, on)| on.life).unwrap_or_default()
    }

    /// A process may have ended in `gap`, unseen.
    pub fn gap(&mut self, gap: &Gap) {
        let gaps = self.gaps.entry(key(gap.gpu)).or_default();
        *gaps = gaps.wrapping_add(1);
    }

    fn look(
        &mut self,
        gpu: GpuId,
        pid: u32,
        event_type: Option<EventType>,
        now_ns: u64,
    ) -> (Life, bool) {
        let pid = (self.boot, pid);
        if self.pids.len() >= FOLLOWED && !self.pids.contains_key(&pid) {
            self.first = self.pids.values().map(|pid| pid.next).max().unwrap_or(self.first);
            self.pids.clear();
        }
        let gpu = key(gpu);
        let gaps = self.gaps.get(&gpu).copied().unwrap_or(0).wrapping_add(self.unseen);
        let known = match self.pids.entry(pid) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Pid { next: self.first, ..Pid::default() }),
        };
        match event_type {
            Some(EventType::ProcessStart) => (known.start(gpu, now_ns, gaps), false),
            Some(EventType::ProcessEnd) => (known.end(gpu, now_ns, gaps), false),
            // After an end the time decides.
            _ => {
                let life = known.other(gpu, now_ns, gaps);
                (life, known.on(gpu).is_none_or(|on| on.ended_ns.is_none()))
            }
        }
    }
}

impl Pid {
    fn new_life(&mut self) -> Life {
        let number = self.next;
        self.next = number.saturating_add(1);
        Life { number, is_shared: false }
    }

    fn on(&mut self, gpu: Key) -> Option<&mut OnGpu> {
        self.on.iter_mut().find(|(one, _)| *one == gpu).map(|(_, on)| on)
    }

    fn put(&mut self, gpu: Key, on: OnGpu) {
        match self.on(gpu) {
            Some(there) => *there = on,
            None => self.on.push((gpu, on)),
        }
    }

    fn start(&mut self, gpu: Key, now_ns: u64, gaps: u32) -> Life {
        let before = self.on(gpu).copied();
        let joins = |(life, since_ns): &(Life, u64)| {
            now_ns.abs_diff(*since_ns) <= JOIN_NS && before.is_none_or(|on| on.life != *life)
        };
        let life = match self.started.filter(joins) {
            Some((life, _)) => life,
            None => {
                let life = self.new_life();
                (self.started, self.shared) = (Some((life, now_ns)), None);
                life
            }
        };
        let unstarted = self.unstarted.map(|(life, _)| life);
        // What was there before somebody looked and starts now had ended, unseen.
        let is_there = |on: &OnGpu| on.open > 0 && on.gaps == gaps && Some(on.life) != unstarted;
        let on = match before.filter(is_there) {
            Some(others) => {
                let shared = match self.shared {
                    Some(shared) => shared,
                    None => Life { is_shared: true, ..self.new_life() },
                };
                self.shared = Some(shared);
                let open = others.open.saturating_add(1);
                OnGpu { life: shared, open, ended_ns: None, gaps }
            }
            None => OnGpu { life, open: 1, ended_ns: None, gaps },
        };
        self.put(gpu, on);
        life
    }

    fn end(&mut self, gpu: Key, now_ns: u64, gaps: u32) -> Life {
        let life = self.other(gpu, now_ns, gaps);
        if let Some(on) = self.on(gpu) {
            on.open = on.open.saturating_sub(1);
            if on.open == 0 {
                on.ended_ns = on.ended_ns.or(Some(now_ns));
            }
        }
        if self.started.is_some_and(|(started, _)| started == life) {
            // What starts now, on whatever GPU, is another.
            self.started = None;
        }
        if let Some((unstarted, ended_ns)) = &mut self.unstarted
            && *unstarted == life
        {
            *ended_ns = ended_ns.or(Some(now_ns));
        }
        life
    }

    fn other(&mut self, gpu: Key, now_ns: u64, gaps: u32) -> Life {
        let is_over = |ended_ns: Option<u64>| {
            ended_ns.is_some_and(|end| now_ns > end.saturating_add(LATE_NS))
        };
        let over = match self.on(gpu) {
            Some(on) if !is_over(on.ended_ns) => return on.life,
            Some(on) => Some(on.life),
            None => None,
        };
        let there = self.unstarted.filter(|(life, end)| !is_over(*end) && over != Some(*life));
        let life = match there {
            Some((life, _)) => life,
            None => {
                let life = self.new_life();
                self.unstarted = Some((life, None));
                life
            }
        };
        self.put(gpu, OnGpu { life, open: 1, ended_ns: None, gaps });
        life
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use EventType::{PageFaultStart as Fault, ProcessEnd as End, ProcessStart as Start};

    const SECOND: u64 = 1_000_000_000;

    fn gpu(index: u32) -> GpuId {
        let bdf = format!("0000:{index:02x}:00.0").parse().unwrap();
        GpuId { index, bdf, unique_id: None, partition: 0, kfd_id: index + 1 }
    }

    /// The numbers of the lives of what happens to pid 7: milliseconds, GPU, what.
    fn told(events: &[(u64, u32, EventType)]) -> Vec<(u32, bool)> {
        let mut lives = Lives::default();
        let of = |(at_ms, on, what): &(u64, u32, EventType)| {
            let life = lives.of(gpu(*on), 7, Some(*what), at_ms * 1_000_000);
            (life.number, life.is_shared)
        };
        events.iter().map(of).collect()
    }

    fn numbers(events: &[(u64, u32, EventType)]) -> Vec<u32> {
        let told = told(events);
        assert!(told.iter().all(|(_, shared)| !shared), "{told:?}");
        told.into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn a_start_on_all_gpus_is_one_life_and_the_next_another() {
        let once = [(0, 0, Start), (1, 1, Start), (5, 1, Fault), (9, 0, End), (10, 1, End)];
        let again = once.map(|(at, gpu, what)| (at + 60_000, gpu, what));
        assert_eq!(numbers(&[once, again].concat()), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        // A container that comes again at once has the same number.
        let at_once = once.map(|(at, gpu, what)| (at + 20, gpu, what));
        assert_eq!(numbers(&[once, at_once].concat()), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn who_was_there_before_is_one_on_all_gpus_and_not_the_next() {
        let events = [
            (0, 0, Fault),
            (1, 1, Fault),
            (2_000, 0, End),
            (2_001, 2, End),
            (2_010, 1, Fault),
            (9_000, 1, End),
            (60_000, 0, Fault),
            (60_001, 2, Fault),
            (61_000, 0, Start),
        ];
        assert_eq!(numbers(&events), [0, 0, 0, 0, 0, 0, 1, 1, 2]);
    }

    #[test]
    fn one_that_lives_for_a_moment_is_not_the_next_on_another_gpu() {
        let events = [(0, 0, Start), (10, 0, End), (50, 1, Start), (51, 1, Fault), (60, 1, End)];
        assert_eq!(numbers(&events), [0, 0, 1, 1, 1]);
    }

    #[test]
    fn a_line_behind_the_end_is_still_of_it_and_later_ones_are_not() {
        let events =
            [(0, 0, Start), (10, 0, End), (15, 0, Fault), (1_009, 0, Fault), (1_011, 0, Fault)];
        assert_eq!(numbers(&events), [0, 0, 0, 0, 1]);
    }

    #[test]
    fn containers_on_gpus_of_their_own_are_told_apart() {
        let events = [
            (0, 0, Start),
            (5_000, 1, Start),
            (6_000, 0, Fault),
            (6_001, 1, Fault),
            (7_000, 1, End),
            (8_000, 0, Fault),
        ];
        assert_eq!(numbers(&events), [0, 1, 0, 1, 1, 0]);
    }

    #[test]
    fn containers_on_one_gpu_are_not_taken_for_one_another() {
        let events = [
            (0, 0, Start),
            (1, 0, Fault),
            (5_000, 0, Start),
            (5_001, 0, Fault),
            (7_000, 0, End),
            (7_500, 0, Fault),
            (8_000, 0, End),
            (60_000, 0, Start),
            (60_001, 0, Fault),
        ];
        let shared = (2, true);
        let (first, second, third) = ((0, false), (1, false), (3, false));
        let expected = [first, first, second, shared, shared, shared, shared, third, third];
        assert_eq!(told(&events), expected);
    }

    #[test]
    fn an_end_that_may_be_lost_makes_no_two_of_one() {
        let mut lives = Lives::default();
        assert_eq!(lives.of(gpu(0), 7, Some(Start), 0).number, 0);
        lives.gap(&Gap {
            gpu: gpu(0),
            cause: crate::GapCause::DriverFifoFull,
            count: None,
            from_boot_ns: 1,
            to_boot_ns: SECOND,
            unix_ns: 0,
        });
        assert_eq!(lives.of(gpu(0), 7, Some(Start), 2 * SECOND).number, 1);
        assert_eq!(
            lives.of(gpu(0), 7, Some(Fault), 2 * SECOND),
            Life { number: 1, is_shared: false }
        );
    }

    #[test]
    fn memory_is_bounded_and_no_life_comes_twice() {
        let mut lives = Lives::default();
        lives.of(gpu(0), 7, Some(Start), 0);
        assert_eq!(lives.of(gpu(0), 7, Some(Start), SECOND).number, 1);
        for pid in 100..200_000 {
            lives.of(gpu(0), pid, Some(Fault), 2 * SECOND);
            assert!(lives.pids.len() <= FOLLOWED);
        }
        assert!(lives.of(gpu(0), 7, Some(Fault), 3 * SECOND).number > 2);
    }
}
