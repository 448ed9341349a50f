//! The driver's rules for event files, in one place (`kfd_smi_events.c`).
//!
//! A [`Port`] is one GPU as the driver sees it: the list of event files that listen to it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::io::Errno;

use crate::client::{self, Client};
use crate::clock::boot_ns;
use crate::event::{DriverEvent, Pid};
use crate::kernel::Kernel;
use crate::line::Line;
use crate::transport::Transport;

/// What became of the lines of one event file: the truth that a reader's report is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventFileStats {
    /// Number of the file on this machine, in order of opening, from 0.
    pub number: u64,
    /// Id of the GPU (`gpu_id` of KFD).
    pub kfd_gpu_id: u32,
    /// Who opened it.
    pub client: Client,
    /// The newest mask seen.
    pub mask: u64,
    /// Whether the client closed it, or the GPU is gone.
    pub closed: bool,
    /// Lines that were put into the FIFO.
    pub accepted_lines: u64,
    /// Their bytes.
    pub accepted_bytes: u64,
    /// Lines that mask and filter let through and the FIFO had no room for.
    pub dropped_lines: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// `DROPPED_EVENT` lines put in by AMD's own driver; counted in `accepted_lines` too.
    pub drop_reports: u64,
}

/// What a GPU raised while an event file of it was open, and what became of it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileLine {
    /// Number of the event.
    pub id: u32,
    /// The driver's time; for bytes without one the time at which they were put through.
    pub boot_ns: u64,
    /// The mask in force.
    pub mask: u64,
    /// What became of it.
    pub fate: Fate,
}

/// What becomes of a line at an event file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It was put into the FIFO.
    Accepted,
    /// The FIFO had no room for it.
    Dropped,
    /// The mask, or the rule whose events a client sees, kept it away.
    Filtered,
}

/// One GPU's event files.
pub(crate) struct Port {
    kernel: Kernel,
    gpu_id: u32,
    /// Whether the fate of each line is kept.
    keeps_lines: bool,
    files: Mutex<Files>,
}

/// How often a transport that lags is asked whether it got on.
const PUMP: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Files {
    open: Vec<EventFile>,
    closed: Vec<EventFileStats>,
    /// Of files that are closed: number, and what became of each line.
    closed_lines: Vec<(u64, Vec<FileLine>)>,
    pumped: bool,
}

impl Port {
    pub(crate) fn new(kernel: Kernel, gpu_id: u32, keeps_lines: bool) -> Self {
        Port { kernel, gpu_id, keeps_lines, files: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attach(&self, number: u64, client: Client, transport: Box<dyn Transport>) {
        let mut file = EventFile::new(self.kernel, self.gpu_id, number, client, transport);
        file.lines = self.keeps_lines.then(Vec::new);
        // Where a close makes itself not felt it is noticed here at the latest.
        self.retire_closed();
        self.lock().open.push(file);
    }

    /// Lets go of files that clients have closed.
    pub(crate) fn retire_closed(&self) {
        let mut files = self.lock();
        files.open.iter_mut().for_each(EventFile::take_control);
        files.retire();
    }

    /// The GPU is gone: its files end.
    pub(crate) fn close(&self) {
        let mut files = self.lock();
        files.open.iter_mut().for_each(|file| file.stats.closed = true);
        files.retire();
    }

    /// What became of each line at the file with this number, if that is one of this GPU's.
    pub(crate) fn lines(&self, number: u64) -> Option<Vec<FileLine>> {
        let files = self.lock();
        let open = files.open.iter().find(|file| file.stats.number == number);
        let closed = files.closed_lines.iter().find(|(one, _)| *one == number);
        open.and_then(|file| file.lines.clone()).or(closed.map(|(_, lines)| lines.clone()))
    }

    pub(crate) fn stats(&self) -> Vec<EventFileStats> {
        let mut files = self.lock();
        files.catch_up();
        files.closed.iter().copied().chain(files.open.iter().map(|file| file.stats)).collect()
    }

    /// Has the next read of each open file fail.
    pub(crate) fn fail_next_read(&self, errno: Errno) -> io::Result<()> {
        let mut files = self.lock();
        files.open.iter_mut().try_for_each(|file| file.transport.fail_next_read(errno))
    }

    /// Most bytes that any open file holds unread.
    pub(crate) fn held(&self) -> usize {
        let mut files = self.lock();
        files.catch_up();
        files.open.iter_mut().map(EventFile::look).max().unwrap_or(0)
    }

    /// Raises events with their stamps, one after the other; they become readable together.
    pub(crate) fn emit<'e>(
        self: &Arc<Self>,
        events: impl IntoIterator<Item = (u64, &'e DriverEvent)>,
    ) {
        let mut files = self.lock();
        files.open.iter_mut().for_each(EventFile::take_control);
        let mut line = Line::new();
        for (ns, event) in events {
            line.write(self.kernel, self.gpu_id, ns, event);
            if !line.as_bytes().is_empty() {
                files.offer(event.id(), event.pid(), ns, line.as_bytes());
            }
        }
        self.flush(files);
    }

    /// Puts bytes through the rules as one message, as they are.
    pub(crate) fn emit_raw(self: &Arc<Self>, id: u32, pid: Option<Pid>, bytes: &[u8]) {
        let mut files = self.lock();
        files.open.iter_mut().for_each(EventFile::take_control);
        files.offer(id, pid, boot_ns(), bytes);
        self.flush(files);
    }

    /// As [`Port::emit_raw`], but only if every file that would take the bytes has room for them.
    pub(crate) fn emit_raw_if_room(
        self: &Arc<Self>,
        id: u32,
        pid: Option<Pid>,
        bytes: &[u8],
    ) -> bool {
        let mut files = self.lock();
        files.open.iter_mut().for_each(EventFile::take_control);
        files.retire();
        let fits = |file: &mut EventFile| !file.wants(id, pid) || file.has_room(bytes.len());
        if !files.open.iter_mut().all(fits) {
            return false;
        }
        files.offer(id, pid, boot_ns(), bytes);
        self.flush(files);
        true
    }

    fn flush(self: &Arc<Self>, mut files: MutexGuard<'_, Files>) {
        files.flush();
        if files.pumped || !files.lags() {
            return;
        }
        let port = Arc::downgrade(self);
        let pump = std::thread::Builder::new().name("gpuev-sim-pump".to_owned());
        // Without a thread the next event does it.
        files.pumped = pump.spawn(move || pump_until_done(&port)).is_ok();
    }
}

/// Helps transports on that had no room in the operating system, as long as there are any.
fn pump_until_done(port: &Weak<Port>) {
    loop {
        std::thread::sleep(PUMP);
        let Some(port) = port.upgrade() else { return };
        let mut files = port.lock();
        files.open.iter_mut().for_each(EventFile::take_control);
        files.retire();
        files.pumped = files.lags();
        if !files.pumped {
            return;
        }
    }
}

impl Files {
    /// Learns all that clients have done by now.
    fn catch_up(&mut self) {
        for file in &mut self.open {
            file.transport.catch_up();
            file.take_control();
        }
        self.retire();
    }

    fn offer(&mut self, id: u32, pid: Option<Pid>, boot_ns: u64, line: &[u8]) {
        for file in &mut self.open {
            let fate = if file.wants(id, pid) { file.offer(line) } else { Fate::Filtered };
            let mask = file.stats.mask;
            if let Some(lines) = &mut file.lines {
                lines.push(FileLine { id, boot_ns, mask, fate });
            }
        }
    }

    fn flush(&mut self) {
        for file in &mut self.open {
            file.flush();
        }
        self.retire();
    }

    fn lags(&self) -> bool {
        self.open.iter().any(|file| file.transport.lags())
    }

    fn retire(&mut self) {
        for file in self.open.extract_if(.., |file| file.stats.closed) {
            let number = file.stats.number;
            self.closed_lines.extend(file.lines.map(|lines| (number, lines)));
            self.closed.push(file.stats);
        }
    }
}

/// One open event file (`struct kfd_smi_client`).
struct EventFile {
    kernel: Kernel,
    transport: Box<dyn Transport>,
    stats: EventFileStats,
    /// Bytes unread at the last look and all pushed since: never less than what is unread.
    held_at_most: usize,
    /// Lines accepted and not yet pushed.
    staged: Vec<u8>,
    /// Whether the client's end was looked at and nothing was pushed since.
    looked: bool,
    unreported: Unreported,
    /// What became of each line, if it is kept.
    lines: Option<Vec<FileLine>>,
}

/// Drops that AMD's own driver has yet to tell.
#[derive(Default)]
struct Unreported {
    lines: u64,
    /// Bytes held at the first of them: less means that the client has read since.
    held: usize,
}

impl EventFile {
    fn new(
        kernel: Kernel,
        kfd_gpu_id: u32,
        number: u64,
        client: Client,
        transport: Box<dyn Transport>,
    ) -> Self {
        let stats = EventFileStats {
            number,
            kfd_gpu_id,
            client,
            mask: 0,
            closed: false,
            accepted_lines: 0,
            accepted_bytes: 0,
            dropped_lines: 0,
            dropped_bytes: 0,
            drop_reports: 0,
        };
        EventFile {
            kernel,
            transport,
            stats,
            held_at_most: 0,
            staged: Vec::with_capacity(kernel.fifo_bytes()),
            looked: false,
            unreported: Unreported::default(),
            lines: None,
        }
    }

    /// What the client did meanwhile; it may have read, too.
    fn take_control(&mut self) {
        self.looked = false;
        let control = self.transport.control();
        if let Some(mask) = control.mask {
            self.stats.mask = mask;
        }
        self.stats.closed |= control.closed;
        self.stats.drop_reports += control.drop_reports;
        self.stats.accepted_lines += control.drop_reports;
        self.stats.accepted_bytes += control.drop_report_bytes;
    }

    fn wants(&self, id: u32, pid: Option<Pid>) -> bool {
        !self.stats.closed
            && client::passes(self.kernel, &self.stats.client, self.stats.mask, id, pid)
    }

    /// What the client has not read yet. Pushes first what is accepted: a line may be dropped
    /// only while those before it can be read, else a reader could not infer the drop from a
    /// full FIFO.
    fn look(&mut self) -> usize {
        self.flush();
        match self.transport.held(self.held_at_most) {
            Ok(held) => self.held_at_most = held,
            Err(error) if gone(&error) => self.stats.closed = true,
            // Nobody can tell: what was known stays true as an upper bound.
            Err(_) => {}
        }
        self.looked = true;
        self.held_at_most
    }

    fn fits(&self, len: usize) -> bool {
        self.held_at_most + self.staged.len() + len <= self.kernel.fifo_bytes()
    }

    fn has_room(&mut self, len: usize) -> bool {
        if self.fits(len) {
            return true;
        }
        if self.looked && self.staged.is_empty() {
            return false;
        }
        self.look();
        self.fits(len)
    }

    fn offer(&mut self, line: &[u8]) -> Fate {
        if self.kernel.reports_drops()
            && let Some(fate) = self.offer_to_reader(line)
        {
            return fate;
        }
        if self.has_told_of_drops() && self.has_room(line.len()) {
            return self.accept(line);
        }
        self.stats.dropped_lines += 1;
        self.stats.dropped_bytes += line.len() as u64;
        if self.kernel.reports_drops() {
            if self.unreported.lines == 0 {
                self.unreported.held = self.held_at_most + self.staged.len();
            }
            self.unreported.lines += 1;
        }
        Fate::Dropped
    }

    /// AMD's own driver, where reads are seen: those put lines in themselves, so the transport
    /// alone knows what is held. `None` where they are not.
    fn offer_to_reader(&mut self, line: &[u8]) -> Option<Fate> {
        // While lines are staged no drop is untold, so that what is held can only become less.
        let held = self.transport.held(self.held_at_most).unwrap_or(self.held_at_most);
        if held + self.staged.len() + line.len() > self.kernel.fifo_bytes() {
            self.flush();
        }
        Some(match self.transport.drop_if_full(self.staged.len() + line.len())? {
            true => {
                self.stats.dropped_lines += 1;
                self.stats.dropped_bytes += line.len() as u64;
                Fate::Dropped
            }
            false => self.accept(line),
        })
    }

    fn accept(&mut self, line: &[u8]) -> Fate {
        self.staged.extend_from_slice(line);
        self.stats.accepted_lines += 1;
        self.stats.accepted_bytes += line.len() as u64;
        Fate::Accepted
    }

    /// AMD's own driver, once it dropped: everything is dropped until the client has read, then
    /// a line with the number of drops comes first. Whether new lines are taken.
    fn has_told_of_drops(&mut self) -> bool {
        if self.unreported.lines == 0 {
            return true;
        }
        if self.looked || self.look() >= self.unreported.held {
            return false;
        }
        let mut line = Line::new();
        line.write_dropped(boot_ns(), self.stats.client.pid.host, self.unreported.lines);
        if !self.has_room(line.as_bytes().len()) {
            return false;
        }
        self.accept(line.as_bytes());
        self.stats.drop_reports += 1;
        self.unreported.lines = 0;
        true
    }

    fn flush(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        match self.transport.push(&self.staged) {
            Ok(()) => {
                self.held_at_most += self.staged.len();
                self.looked = false;
            }
            Err(_) => self.stats.closed = true,
        }
        self.staged.clear();
    }
}

/// Whether the client's end no longer exists.
fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
