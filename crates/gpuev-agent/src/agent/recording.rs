//! What is kept on disk, and that it goes on after a failure.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gpuev::process::Processes;
use gpuev::{Filter, Gap, Item, Machine, Monitor, Result};
use gpuev_store::{Notebook, Progress, Recorder, Retention, Session, Writer};

use crate::blind::Seen;
use crate::config::{Config, HistorySettings};
use crate::signal::{Noted, Signal};

/// How long a disk that failed is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The history that is being written.
#[derive(Debug)]
pub(super) struct Recording {
    machine: Machine,
    file: PathBuf,
    settings: HistorySettings,
    filter: Filter,
    recorder: Option<Recorder>,
    notebook: Option<Notebook>,
    noted: Noted,
    retry_at: Option<Instant>,
    /// Why nothing is recorded now.
    failure: Option<String>,
    /// A reader keeps the log from getting smaller.
    log_held: bool,
}

impl Recording {
    /// Begins a session. `seen` is what those before saw: a gap of each GPU is the first that is
    /// recorded, and given back.
    pub(super) fn start(
        machine: &Machine,
        monitor: &Monitor,
        config: &Config,
        seen: Option<&Seen>,
    ) -> Result<(Self, Vec<Gap>)> {
        let wanted: Vec<_> = config.events.wanted().collect();
        let mut filter = Filter::new();
        if wanted.len() < gpuev::EventType::ALL.len() {
            filter = filter.types(wanted, true);
        }
        let mut recording = Self {
            machine: machine.clone(),
            file: config.history_file(),
            settings: config.history.clone(),
            filter,
            recorder: None,
            notebook: None,
            noted: Noted::default(),
            retry_at: None,
            failure: None,
            log_held: false,
        };
        let gaps = recording.begin(monitor, seen)?;
        Ok((recording, gaps))
    }

    fn begin(&mut self, monitor: &Monitor, seen: Option<&Seen>) -> Result<Vec<Gap>> {
        let gpus = monitor.gpus();
        let session = Session::of(&self.machine)
            .with_gpus(&gpus)
            .with_scope(&monitor.scope())
            .with_filter(self.filter.clone());
        let retention = Retention {
            max_age: Some(self.settings.max_age.0),
            max_bytes: Some(self.settings.max_size.0),
        };
        let mut writer = Writer::open(&self.file, &session)?.with_retention(retention);
        let queue = usize::try_from(self.settings.queue.0).unwrap_or(usize::MAX);
        let items = monitor.subscribe_with_limit(self.filter.clone(), queue);
        let gaps = |seen: &Seen| gpus.iter().map(|gpu| seen.gap(gpu)).collect();
        let gaps: Vec<Gap> = seen.map(gaps).unwrap_or_default();
        for gap in &gaps {
            writer.append(&Item::Gap(gap.clone()))?;
        }
        writer.commit()?;
        let processes = Processes::of(&self.machine);
        let (recorder, notebook) = Recorder::start_with_notebook(writer, items, processes)?;
        (self.recorder, self.notebook) = (Some(recorder), Some(notebook));
        Ok(gaps)
    }

    /// Keeps what `signal` knows beside its event. False where that is lost, as the disk is too slow.
    pub(super) fn note(&mut self, signal: &Signal) -> bool {
        let Some(notebook) = &self.notebook else { return true };
        self.noted.note_of(signal).is_none_or(|note| notebook.add(note))
    }

    /// Finds out whether writing failed, and begins anew after a while. `safe_until_ns` is up to when all is
    /// on disk.
    pub(super) fn tick(&mut self, monitor: Option<&Monitor>, safe_until_ns: u64) {
        if self.recorder.as_ref().is_some_and(Recorder::is_finished) {
            self.notebook = None;
            let ended = self.recorder.take().map(Recorder::finish);
            if let Some(Err(error)) = ended {
                super::say(&format!("recording ended: {error}; trying again every 10 s"));
                self.failure = Some(error.to_string());
            }
            self.retry_at = Instant::now().checked_add(RETRY_AFTER);
        }
        self.tell_held_log();
        let Some(monitor) = monitor else { return };
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            match self.begin(monitor, Some(&Seen::all_until_ns(safe_until_ns))) {
                Ok(_gaps) => {
                    super::say("recording goes on");
                    (self.retry_at, self.failure) = (None, None);
                }
                Err(error) => {
                    self.failure = Some(error.to_string());
                    self.retry_at = Instant::now().checked_add(RETRY_AFTER);
                }
            }
        }
    }

    /// Says it when a reader keeps the log from getting smaller, once each time.
    fn tell_held_log(&mut self) {
        let is_held = self.progress().log_held;
        if is_held && !self.log_held {
            let file = self.file.display();
            super::say(&format!(
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

    /// Waits until all is written. The monitor has ended.
    pub(super) fn finish(mut self) -> Result<()> {
        self.notebook = None;
        self.recorder.map_or(Ok(()), |recorder| recorder.finish().map(drop))
    }
}
