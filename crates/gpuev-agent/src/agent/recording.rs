//! What is kept on disk, and that it goes on after a failure. The disk may be full, damaged, or hang: it delays nobody.

mod opening;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use gpuev::process::Processes;
use gpuev::{ErrorKind, Filter, Gap, Item, Machine, Monitor, Result, Subscription};
use gpuev_store::{Notebook, Progress, Recorder, Retention, Session, Writer};

use super::say;
use crate::blind::Seen;
use crate::config::{Config, HistorySettings};
use crate::detached;
use crate::signal::{Noted, Signal};

use opening::{Opened, Opening};

/// How long a disk that failed is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long the start of the agent, and its end, wait for the history.
const PATIENCE: Duration = Duration::from_secs(2);
/// A disk that has written nothing for so long, while something waits, does not answer.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// The history that is being written.
#[derive(Debug)]
pub(super) struct Recording {
    machine: Machine,
    file: PathBuf,
    /// The file is in the agent's own folder: one that cannot be used is put aside.
    is_own: bool,
    settings: HistorySettings,
    filter: Filter,
    opening: Option<Pending>,
    recorder: Option<Recorder>,
    notebook: Option<Notebook>,
    noted: Noted,
    /// What runs before this one saw, until a gap in the history says it.
    seen_before: Option<Seen>,
    /// A session has begun in this run.
    has_begun: bool,
    /// The file turned out to be damaged while it was written.
    is_damaged: bool,
    retry_at: Option<Instant>,
    /// Why nothing is recorded now.
    failure: Option<String>,
    /// When the latest item was received that is to be recorded.
    expected_ns: u64,
    /// What the disk has not taken yet: up to when it was received, and since when it waits.
    waiting: Option<(u64, Instant)>,
    /// A reader keeps the log from getting smaller.
    log_held: bool,
}

/// A history that is being opened, and what happens meanwhile.
#[derive(Debug)]
struct Pending {
    opened: Receiver<Result<Opened>>,
    items: Subscription,
    since: Instant,
}

impl Recording {
    /// Begins a session, in which `gaps` come first. Waits for the disk for two seconds at most.
    pub(super) fn start(
        machine: &Machine,
        monitor: &Monitor,
        config: &Config,
        seen: Option<&Seen>,
    ) -> (Self, Vec<Gap>) {
        let wanted: Vec<_> = config.events.wanted().collect();
        let mut filter = Filter::new();
        if wanted.len() < gpuev::EventType::ALL.len() {
            filter = filter.types(wanted, true);
        }
        let file = config.history_file();
        let mut recording = Self {
            machine: machine.clone(),
            is_own: file.parent() == Some(config.agent.state_dir.as_path()),
            file,
            settings: config.history.clone(),
            filter,
            opening: None,
            recorder: None,
            notebook: None,
            noted: Noted::default(),
            seen_before: seen.cloned(),
            has_begun: false,
            is_damaged: false,
            retry_at: None,
            failure: None,
            expected_ns: 0,
            waiting: None,
            log_held: false,
        };
        let gaps = recording.open(monitor, seen);
        recording.wait_for_opening(PATIENCE);
        (recording, gaps)
    }

    /// Has the history opened, in a thread. The gaps since `seen` are the first that is recorded in it.
    fn open(&mut self, monitor: &Monitor, seen: Option<&Seen>) -> Vec<Gap> {
        self.retry_at = None;
        let queue = usize::try_from(self.settings.queue.0).unwrap_or(usize::MAX);
        let items = monitor.subscribe_with_limit(self.filter.clone(), queue);
        let gpus = monitor.gpus();
        let gaps = |seen: &Seen| gpus.iter().map(|gpu| seen.gap(gpu)).collect();
        let gaps: Vec<Gap> = seen.map(gaps).unwrap_or_default();
        let opening = Opening {
            file: self.file.clone(),
            is_own: self.is_own,
            is_damaged: self.is_damaged,
            session: Session::of(&self.machine)
                .with_gpus(&gpus)
                .with_scope(&monitor.scope())
                .with_filter(self.filter.clone()),
            retention: Retention {
                max_age: Some(self.settings.max_age.0),
                max_bytes: Some(self.settings.max_size.0),
            },
            gaps: gaps.clone(),
        };
        match detached::start("gpuev-history", move || opening.run()) {
            Ok(opened) => {
                self.opening = Some(Pending { opened, items, since: Instant::now() });
            }
            Err(error) => self.failed(format!("start a thread: {error}")),
        }
        gaps
    }

    /// Looks for so long whether the history has been opened.
    fn wait_for_opening(&mut self, patience: Duration) {
        let Some(Pending { opened, since, .. }) = &self.opening else { return };
        let result = if patience.is_zero() {
            opened.try_recv()
        } else {
            opened.recv_timeout(patience).map_err(|_| TryRecvError::Empty)
        };
        match result {
            Ok(result) => {
                let Some(Pending { items, .. }) = self.opening.take() else { return };
                let begun = result.and_then(|opened| self.begin(opened, items));
                if let Err(error) = begun {
                    self.failed(error.to_string());
                }
            }
            Err(TryRecvError::Empty) if since.elapsed() >= PATIENCE => {
                self.says_failure("the disk does not answer".to_owned());
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                self.opening = None;
                self.failed("the thread that opens it panicked".to_owned());
            }
        }
    }

    fn begin(&mut self, opened: Opened, items: Subscription) -> Result<()> {
        if let Some(told) = opened.put_aside {
            say(&told);
        }
        let writer: Writer = opened.writer;
        let processes = Processes::of(&self.machine);
        let (recorder, notebook) = Recorder::start_with_notebook(writer, items, processes)?;
        (self.recorder, self.notebook) = (Some(recorder), Some(notebook));
        (self.has_begun, self.is_damaged, self.waiting) = (true, false, None);
        self.works_again();
        Ok(())
    }

    /// Nothing is recorded; it is tried again in a while.
    fn failed(&mut self, why: String) {
        self.retry_at = Instant::now().checked_add(RETRY_AFTER);
        self.says_failure(why);
    }

    fn says_failure(&mut self, why: String) {
        if self.failure.as_ref() != Some(&why) {
            let file = self.file.display();
            say(&format!("nothing is recorded in {file}: {why}; trying again every 10 s"));
        }
        self.failure = Some(why);
    }

    fn works_again(&mut self) {
        if self.failure.take().is_some() {
            say("recording goes on");
        }
    }

    /// Keeps what `signal` knows beside its event. False where that is lost, as the disk is too slow.
    pub(super) fn note(&mut self, signal: &Signal) -> bool {
        let Some(notebook) = &self.notebook else { return true };
        self.noted.note_of(signal).is_none_or(|note| notebook.add(note))
    }

    /// This happened: it should be on disk soon.
    pub(super) fn expect(&mut self, item: &Item) {
        match item {
            Item::Event(event) if self.filter.passes(&event.facts(), &event.record()) => {
                self.expected_ns = self.expected_ns.max(event.time.received_boot_ns);
            }
            Item::Event(_) => {}
            Item::Gap(gap) => self.expected_ns = self.expected_ns.max(gap.to_boot_ns),
        }
    }

    /// Finds out whether writing failed, and begins anew after a while. `safe_until_ns` is up to when all is
    /// on disk.
    pub(super) fn tick(&mut self, monitor: Option<&Monitor>, safe_until_ns: u64) {
        if self.recorder.as_ref().is_some_and(Recorder::is_finished) {
            self.notebook = None;
            match self.recorder.take().map(Recorder::finish) {
                Some(Err(error)) => {
                    self.is_damaged = error.kind() == ErrorKind::InvalidInput;
                    self.failed(error.to_string());
                }
                _ => self.retry_at = Instant::now().checked_add(RETRY_AFTER),
            }
        }
        self.look_whether_it_hangs(Instant::now());
        self.tell_held_log();
        self.wait_for_opening(Duration::ZERO);
        let Some(monitor) = monitor else { return };
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            let seen = if self.has_begun {
                Some(Seen::all_until_ns(safe_until_ns))
            } else {
                self.seen_before.clone()
            };
            self.open(monitor, seen.as_ref());
        }
    }

    /// A disk that hangs ends nothing: the queue fills, and what it drops is a gap. But somebody should know.
    fn look_whether_it_hangs(&mut self, now: Instant) {
        let Some(recorder) = &self.recorder else { return };
        let safe_ns = recorder.progress().safe_boot_ns;
        match self.waiting {
            Some((until_ns, _)) if safe_ns >= until_ns => {
                self.waiting = None;
                self.works_again();
            }
            Some((_, since)) if now.saturating_duration_since(since) >= HANGS_AFTER => {
                self.says_failure("the disk does not answer".to_owned());
            }
            Some(_) => {}
            None if self.expected_ns > safe_ns => self.waiting = Some((self.expected_ns, now)),
            None => {}
        }
    }

    /// Says it when a reader keeps the log from getting smaller, once each time.
    fn tell_held_log(&mut self) {
        let is_held = self.progress().log_held;
        if is_held && !self.log_held {
            let file = self.file.display();
            say(&format!(
                "a reader of {file} keeps a transaction open, so {file}-wal grows: end that reader"
            ));
        }
        self.log_held = is_held;
    }

    pub(super) fn progress(&self) -> Progress {
        self.recorder.as_ref().map(Recorder::progress).unwrap_or_default()
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Waits until all is written, on a disk that answers. The monitor has ended.
    pub(super) fn finish(mut self) -> Result<()> {
        self.notebook = None;
        let hangs = self.failure.is_some();
        let Some(recorder) = self.recorder else { return Ok(()) };
        if !hangs {
            return recorder.finish().map(drop);
        }
        let finished = detached::start("gpuev-history", move || recorder.finish().map(drop));
        let finished = finished.map_err(|error| gpuev::Error::io("start a thread", error))?;
        finished
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| Err(gpuev::Error::new(ErrorKind::Io, "the disk does not answer")))
    }
}
