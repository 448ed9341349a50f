//! Whose each message is, and where it ends: what `/proc` has to say about events.

use std::sync::Arc;

use gpuev_kfd::codec::Task;
use gpuev_kfd::{EventType, Record};

use super::forgery::{Forgery, Verdict, may_be_queued};
use super::read_buffer::Front;
use crate::process::{NameCache, NameLookup, ThreadOwner, Threads};
use crate::seam::{self, Moment};
use crate::{Comm, Machine};

/// A number in an event whose process must be looked up. That takes long in the eyes of a FIFO: whoever reads decides
/// when.
#[derive(Debug, Clone)]
pub(crate) struct PendingLookup {
    number: Number,
    received_boot_ns: u64,
    names: Arc<NameLookup>,
}

/// Whose number a line has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Process(u32),
    Thread(u32),
}

/// What the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The process's name, where it is certain.
    Process(Option<Comm>),
    /// The thread's process.
    Thread(ThreadOwner),
}

impl PendingLookup {
    /// Asks the system.
    pub(crate) fn look_up(&self) -> Answer {
        let _nothing_to_fail = seam::pass(Moment::BeforeLookup);
        match self.number {
            Number::Process(pid) => Answer::Process(self.names.look_up(pid, self.received_boot_ns)),
            Number::Thread(tid) => Answer::Thread(self.names.look_up_thread(tid)),
        }
    }

    /// The answer of a system that knows nothing.
    pub(crate) fn unknown(&self) -> Answer {
        match self.number {
            Number::Process(_) => Answer::Process(None),
            Number::Thread(_) => Answer::Thread(ThreadOwner::default()),
        }
    }

    /// Whether the other is the same lookup.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.number, self.received_boot_ns) == (other.number, other.received_boot_ns)
    }
}

/// The processes of one GPU's events.
#[derive(Debug)]
pub(super) struct Owners {
    names: NameCache,
    threads: Threads,
    /// What the system said last of a thread.
    answer: Option<(u32, ThreadOwner)>,
    forgery: Forgery,
}

/// How the next message is to be taken.
pub(super) struct Settled {
    /// Bytes of what follows that belong to it.
    pub(super) more: usize,
    pub(super) doubtful: bool,
    /// Its process, where the line names a thread.
    pub(super) pid: Option<u32>,
    /// Its process's name.
    pub(super) comm: Comm,
    /// To be looked up beside.
    pub(super) renewal: Option<PendingLookup>,
}

impl Owners {
    pub(super) fn new(machine: &Machine) -> Self {
        Self {
            names: NameCache::new(machine),
            threads: Threads::default(),
            answer: None,
            forgery: Forgery::default(),
        }
    }

    /// Finds out whose the message in front is, which decodes to `record` as far as newlines tell, and whether what
    /// follows a task name belongs to it. Changes nothing where that has to be asked.
    pub(super) fn settle(
        &mut self,
        record: &Record<'_>,
        front: &Front<'_>,
    ) -> Result<Settled, PendingLookup> {
        if let Some(task) = record.task() {
            return self.settle_task(task, record, front);
        }
        let (comm, renewal) = self.owner(record, front.received.boot_ns)?;
        let doubtful = self.doubts(record, front);
        Ok(Settled { more: 0, doubtful, pid: None, comm, renewal })
    }

    fn settle_task(
        &mut self,
        task: Task<'_>,
        record: &Record<'_>,
        front: &Front<'_>,
    ) -> Result<Settled, PendingLookup> {
        let event_type = record.event_type();
        let (following, now_ns) = (front.following(), front.received.boot_ns);
        let (owner, borne) = self.thread(task, event_type, following, now_ns)?;
        let doubtful = self.doubts(record, front);
        if event_type == Some(EventType::ProcessEnd) {
            self.threads.forget(task.pid, owner.pid);
        }
        self.names.forget(task.pid);
        if let Some(pid) = owner.pid {
            self.names.forget(pid);
        }
        let more = match self.forgery.judge(task, (following, front.possible), borne) {
            Verdict::Genuine => 0,
            Verdict::NameGoesOn(more) => more,
        };
        Ok(Settled { more, doubtful, pid: owner.pid, comm: owner.process, renewal: None })
    }

    /// Whether a task name may have forged the message in front.
    fn doubts(&mut self, record: &Record<'_>, front: &Front<'_>) -> bool {
        self.forgery.doubts(front.message().len()) | !may_be_queued(front.possible, record)
    }

    /// Whose thread `task` is, and what it is called now, as far as that was asked.
    fn thread(
        &mut self,
        task: Task<'_>,
        event_type: Option<EventType>,
        following: &[u8],
        now_ns: u64,
    ) -> Result<(ThreadOwner, Option<Comm>), PendingLookup> {
        if let Some((_, found)) = self.answer.take().filter(|(tid, _)| *tid == task.pid) {
            if event_type == Some(EventType::ProcessStart) {
                self.threads.forget(task.pid, found.pid);
            }
            return Ok((self.threads.learn(task.pid, found, now_ns), found.thread));
        }
        let begins = event_type == Some(EventType::ProcessStart);
        match self.threads.known(task.pid, now_ns) {
            Some(owner) if !begins && !Forgery::may_go_on(task, following) => Ok((owner, None)),
            _ => Err(self.pending(Number::Thread(task.pid), now_ns)),
        }
    }

    /// The name that a message does not have itself, and what to ask beside.
    fn owner(
        &mut self,
        record: &Record<'_>,
        received_boot_ns: u64,
    ) -> Result<(Comm, Option<PendingLookup>), PendingLookup> {
        let Some(stamp) = record.stamp() else {
            return Ok((Comm::NONE, None));
        };
        let pending = |owners: &Self| owners.pending(Number::Process(stamp.pid), received_boot_ns);
        let Some(known) = self.names.known(stamp.pid, received_boot_ns) else {
            return Err(pending(self));
        };
        Ok((known.name, known.due.then(|| pending(self))))
    }

    fn pending(&self, number: Number, received_boot_ns: u64) -> PendingLookup {
        PendingLookup { number, received_boot_ns, names: self.names.lookup() }
    }

    /// Remembers the counters in a message that was taken.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        self.forgery.note(record);
    }

    /// Takes in what was waited for.
    pub(super) fn answer(&mut self, pending: &PendingLookup, answer: Answer) {
        match (pending.number, answer) {
            (Number::Process(pid), Answer::Process(comm)) => {
                self.names.learn(pid, comm.unwrap_or(Comm::NONE), pending.received_boot_ns);
            }
            (Number::Thread(tid), Answer::Thread(owner)) => self.answer = Some((tid, owner)),
            _ => {}
        }
    }

    /// Takes in what was looked up beside.
    pub(super) fn renew(&mut self, pending: &PendingLookup, answer: Answer) {
        if let (Number::Process(pid), Answer::Process(comm)) = (pending.number, answer) {
            self.names.renew(pid, comm.unwrap_or(Comm::NONE), pending.received_boot_ns);
        }
    }
}
