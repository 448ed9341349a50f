//! What happens on the machine while the program runs, and the truth about it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gpuev::json::Object;
use gpuev::message::Escaped;
use gpuev_sim::{Raised, Scenario, SimMachine};

use crate::exit::Failure;

/// How often is looked whether the program listens.
const LOOK: Duration = Duration::from_millis(1);

/// A scenario that waits for the program or is played to it.
pub(super) struct Story {
    machine: SimMachine,
    truth: Option<Truth>,
    /// Ends it when it is dropped.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Story {
    /// Has the scenario played as soon as the program has `listeners` event files with a mask.
    pub(super) fn begin(
        machine: &SimMachine,
        scenario: Scenario,
        listeners: usize,
        truth: Option<&Path>,
    ) -> Result<Self, Failure> {
        let truth = truth.map(Truth::create).transpose()?;
        let (stop, stopped) = mpsc::channel();
        let (stage, told) = (machine.clone(), truth.clone());
        let thread = thread::Builder::new()
            .name("gpuev-story".to_owned())
            .spawn(move || play(&stage, scenario, listeners, told, &stopped))?;
        Ok(Self { machine: machine.clone(), truth, stop, thread })
    }

    /// The program has ended: so does the story. Writes what became of the events.
    pub(super) fn end(self) -> Result<(), Failure> {
        drop(self.stop);
        if let Ok(played) = self.thread.join() {
            played.map_err(|error| Failure::Gpu(gpuev::Error::io("play the scenario", error)))?;
        }
        self.truth.map_or(Ok(()), |truth| truth.end(&self.machine))
    }
}

fn play(
    machine: &SimMachine,
    scenario: Scenario,
    listeners: usize,
    truth: Option<Truth>,
    stopped: &mpsc::Receiver<()>,
) -> io::Result<()> {
    let listening = || machine.event_files().iter().filter(|file| file.mask != 0).count();
    while listening() < listeners {
        if stopped.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Disconnected) {
            return Ok(());
        }
    }
    let player = match truth {
        Some(truth) => machine.play_telling(scenario, move |raised| truth.tell(raised))?,
        None => machine.play(scenario)?,
    };
    // Nothing is sent: this is the end of the sender.
    let _ended = stopped.recv();
    drop(player);
    Ok(())
}

/// The file that tells what was raised, which is what the program's own account is held against.
#[derive(Clone)]
struct Truth {
    path: PathBuf,
    file: Arc<Mutex<Writing>>,
}

struct Writing {
    file: File,
    line: String,
    failed: Option<io::Error>,
}

impl Writing {
    fn record(&mut self, record: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.line.clear();
        let mut object = Object::begin(&mut self.line, record);
        fill(&mut object);
        object.end();
        self.line.push('\n');
        if self.failed.is_none() {
            self.failed = self.file.write_all(self.line.as_bytes()).err();
        }
    }
}

impl Truth {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| cannot_write(path, error))?;
        let writing = Writing { file, line: String::new(), failed: None };
        Ok(Self { path: path.to_owned(), file: Arc::new(Mutex::new(writing)) })
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, raised: Raised<'_>) {
        self.lock().record("raised", |json| {
            json.number("gpu", raised.gpu);
            json.number("id", raised.event.id());
            json.number("boot_ns", raised.boot_ns);
            json.text("raw", Escaped(raised.message.strip_suffix(b"\n").unwrap_or(raised.message)));
        });
    }

    fn end(&self, machine: &SimMachine) -> Result<(), Failure> {
        let mut writing = self.lock();
        let gpus = machine.gpus();
        for file in machine.event_files() {
            writing.record("event_file", |json| {
                let gpu = gpus.iter().find(|gpu| gpu.kfd_gpu_id == file.kfd_gpu_id);
                json.optional("gpu", gpu.map(|gpu| gpu.index));
                json.number("mask", file.mask);
                json.number("accepted", file.accepted_lines);
                json.number("dropped", file.dropped_lines);
                json.raw("closed", if file.closed { "true" } else { "false" });
            });
        }
        writing.failed.take().map_or(Ok(()), |error| Err(cannot_write(&self.path, error)))
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    Failure::Gpu(gpuev::Error::io(format!("write {}", path.display()), error))
}
