//! Task names that look like events.
//!
//! The driver writes names as they are, newlines included (`1 1234:a\n3 1 HWS hang`), and any user may
//! choose the name of a process, up to 15 bytes. So a short line behind a line that ends in a name may be the
//! rest of that name. `/proc/PID/comm` tells where the process still lives; the driver's counters tell where
//! they would have to run backwards; what stays open is marked on the event.

use gpuev_kfd::codec::Task;
use gpuev_kfd::{EventMask, EventType, Fields, Record};

use crate::Comm;

/// `TASK_COMM_LEN - 1`: the most bytes of a name.
const LONGEST_NAME: usize = 15;

/// What is known against forgeries of one GPU's events.
#[derive(Debug, Default)]
pub(super) struct Forgery {
    /// How many more bytes could belong to the name before.
    doubtful_bytes: usize,
    /// The last reset that began.
    reset: Option<u32>,
    /// The driver's count of throttle interrupts.
    throttled: Option<u64>,
}

/// What follows a line with a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The name ends with its line; what follows is looked at by itself.
    Genuine,
    /// So many bytes more belong to the name, the last newline included.
    NameGoesOn(usize),
}

impl Forgery {
    /// Whether `following`, the bytes behind a line that ended in the name of `task`, may belong to that name:
    /// then it matters what the process is called.
    pub(super) fn may_go_on(task: Task<'_>, following: &[u8]) -> bool {
        let room = room_behind(task);
        following.iter().take(room).any(|&byte| byte == b'\n')
    }

    /// Judges the bytes behind a line that ended in the name of `task`, which the driver may have queued under these
    /// masks; `borne` is what the process is called, as far as known.
    pub(super) fn judge(
        &mut self,
        task: Task<'_>,
        (following, possible): (&[u8], EventMask),
        borne: Option<Comm>,
    ) -> Verdict {
        self.doubtful_bytes = 0;
        let room = room_behind(task);
        let lines = continuations(following, room);
        if lines.is_empty() {
            return Verdict::Genuine;
        }
        if let Some(settled) = borne.and_then(|borne| settled_by(borne, task, &lines)) {
            return settled;
        }
        let surely: usize = lines
            .iter()
            .take_while(|line| self.is_impossible(line, possible))
            .map(|line| line.len() + 1)
            .sum();
        self.doubtful_bytes = room - surely;
        if surely > 0 { Verdict::NameGoesOn(surely) } else { Verdict::Genuine }
    }

    /// Whether a message of `length` bytes (newline included) may be the rest of the name before it.
    pub(super) fn doubts(&mut self, length: usize) -> bool {
        let doubtful = length <= self.doubtful_bytes;
        self.doubtful_bytes = if doubtful { self.doubtful_bytes - length } else { 0 };
        doubtful
    }

    /// Remembers the driver's counters.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        match record.fields {
            Fields::GpuPreReset(reset) => self.reset = Some(reset.sequence),
            Fields::ThermalThrottle { count, .. } => self.throttled = Some(count),
            _ => {}
        }
    }

    /// Whether the driver cannot have written this line now.
    fn is_impossible(&self, line: &[u8], possible: EventMask) -> bool {
        let record = gpuev_kfd::decode(line);
        if !may_be_queued(possible, &record) {
            return true;
        }
        match record.fields {
            Fields::Unknown { id, .. } => id.is_none_or(|id| EventType::from_id(id).is_some()),
            Fields::GpuPreReset(reset) => self.reset.is_some_and(|last| reset.sequence <= last),
            Fields::GpuPostReset(reset) => self.reset.is_some_and(|last| reset.sequence < last),
            Fields::ThermalThrottle { count, .. } => {
                self.throttled.is_some_and(|last| count < last)
            }
            _ => false,
        }
    }
}

/// Whether the driver may have queued the event under these masks: an event outside of all of them is none. A line
/// without a number has no bit, and what may count dropped events needs none.
pub(super) fn may_be_queued(possible: EventMask, record: &Record<'_>) -> bool {
    match record.fields {
        Fields::Unknown { id: None | Some(0 | 64..), .. } => true,
        Fields::Unknown { id: Some(id), .. } => {
            possible.contains_id(id) || record.drop_count().is_some()
        }
        _ => record.event_type().is_none_or(|event_type| possible.contains(event_type)),
    }
}

/// How many bytes the name of `task` could have more.
fn room_behind(task: Task<'_>) -> usize {
    LONGEST_NAME.saturating_sub(task.name.len())
}

/// The whole lines at the front of `following` that a name with `room` bytes to spare could hold, newlines
/// between them included.
fn continuations(following: &[u8], room: usize) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = following;
    let mut left = room;
    while let Some(end) = rest.iter().take(left).position(|&byte| byte == b'\n') {
        lines.push(&rest[..end]);
        left -= end + 1;
        rest = &rest[end + 1..];
    }
    lines
}

/// What `/proc` says of the name: the whole of it is the one that the process bears now.
fn settled_by(borne: Comm, task: Task<'_>, lines: &[&[u8]]) -> Option<Verdict> {
    let borne = borne.bytes().unwrap_or_default();
    if borne == task.name {
        return Some(Verdict::Genuine);
    }
    let mut rest = borne.strip_prefix(task.name)?;
    let mut length = 0;
    for line in lines {
        rest = rest.strip_prefix(b"\n")?.strip_prefix(*line)?;
        length += line.len() + 1;
        if rest.is_empty() {
            return Some(Verdict::NameGoesOn(length));
        }
    }
    None
}
