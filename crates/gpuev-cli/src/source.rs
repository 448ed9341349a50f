//! What `--source` means: this machine, a simulated one, or a recording.

mod sim;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuev::{KfdVersion, Machine, OpenWith, Scope};
use gpuev_sim::{Capture, Client, Kernel, Player, Scenario, SimMachine};

use crate::args::{SourceArgs, no_such};
use crate::exit::Failure;

pub(crate) use sim::{SimOptions, SimSpec};

/// A million events of the driver, and more.
const LARGEST_CAPTURE: u64 = 128 << 20;

/// A machine to work on, and what happens on it if nothing does by itself.
pub(crate) struct Source {
    pub(crate) machine: Machine,
    feed: Option<Feed>,
}

/// What a simulated machine goes through.
enum Feed {
    Scenario(SimMachine, Scenario),
    Capture(SimMachine, Arc<[u8]>),
}

/// What goes on while it lives.
pub(crate) enum Feeding {
    /// Nothing that this program does.
    Nothing,
    /// A scenario in a thread of its own; dropping it stops it.
    Scenario(Player),
    /// A recording in a thread of its own.
    Capture(std::thread::JoinHandle<()>),
}

impl Source {
    /// Opens what `--source` names.
    pub(crate) fn open(args: &SourceArgs) -> Result<Self, Failure> {
        let text = &args.source;
        let explain = |why: String| Failure::Usage(format!("--source {text}: {why}"));
        match text.split_once([':', ',']).map_or((text.as_str(), ""), |(kind, rest)| (kind, rest)) {
            ("host", "") => Ok(Self { machine: Machine::host(), feed: None }),
            ("sim", rest) => {
                let named = if text.starts_with("sim,") { format!(",{rest}") } else { rest.into() };
                let spec = SimSpec::parse(&named).map_err(explain)?;
                Self::simulated(&spec)
            }
            ("file", _) if Self::history(args).is_some() => Err(explain(
                "a history of what happened; gpuev watch and gpuev replay show it".to_owned(),
            )),
            ("file", rest) if !rest.is_empty() => Self::recorded(rest, explain),
            ("file", _) => Err(explain("which file? Write file:PATH".to_owned())),
            (kind, _) => Err(explain(no_such("source", kind, &["host", "sim", "file"]))),
        }
    }

    /// Whether it is not this machine.
    pub(crate) fn is_simulated(&self) -> bool {
        self.feed.is_some()
    }

    fn simulated(spec: &SimSpec) -> Result<Self, Failure> {
        let sim = spec.build()?;
        Ok(Self { machine: machine_of(&sim), feed: Some(Feed::Scenario(sim, spec.scenario)) })
    }

    /// The history that `--source file:PATH` names, where it is one; or a folder, where histories may be.
    pub(crate) fn history(args: &SourceArgs) -> Option<PathBuf> {
        let path = PathBuf::from(args.source.strip_prefix("file:")?);
        if path.is_dir() {
            return Some(path);
        }
        let mut head = [0; 16];
        std::fs::File::open(&path).ok()?.read_exact(&mut head).ok()?;
        (head == *b"SQLite format 3\0").then_some(path)
    }

    /// A driver's bytes, played through the FIFO of a simulated GPU: `PATH[,kernel=K]`.
    fn recorded(text: &str, explain: impl Fn(String) -> Failure) -> Result<Self, Failure> {
        let (path, kernel) = match text.rsplit_once(",kernel=") {
            Some((path, kernel)) => (path, sim::kernel(kernel).map_err(&explain)?),
            None => (text, Kernel::default()),
        };
        let bytes = read_capture(Path::new(path)).map_err(|error| explain(error.to_string()))?;
        let sim = SimMachine::builder().kernel(kernel).build().map_err(no_sim)?;
        Ok(Self { machine: machine_of(&sim), feed: Some(Feed::Capture(sim, bytes.into())) })
    }

    /// Lets happen what the source holds. Called once everybody listens.
    pub(crate) fn begin(self) -> Result<Feeding, Failure> {
        match self.feed {
            None => Ok(Feeding::Nothing),
            Some(Feed::Scenario(sim, scenario)) => {
                sim.play(scenario).map(Feeding::Scenario).map_err(no_sim)
            }
            Some(Feed::Capture(sim, bytes)) => {
                let play = move || {
                    // A reader that is gone takes nothing more, and misses nothing.
                    let _no_reader = sim.play_capture(0, Capture::new(&bytes));
                };
                std::thread::Builder::new()
                    .name("gpuev-playback".to_owned())
                    .spawn(play)
                    .map(Feeding::Capture)
                    .map_err(no_sim)
            }
        }
    }
}

impl Feeding {
    /// Waits until nothing more comes of itself; for ever where that is not known.
    pub(crate) fn finish(self) {
        match self {
            Self::Nothing => loop {
                std::thread::park();
            },
            Self::Scenario(player) => drop(player.join()),
            Self::Capture(thread) => drop(thread.join()),
        }
    }
}

/// A driver's bytes. They may come from a pipe, and are bounded: a device has no end.
fn read_capture(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LARGEST_CAPTURE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_CAPTURE {
        let what =
            format!("larger than {} MiB: it is no capture of an event file", LARGEST_CAPTURE >> 20);
        return Err(std::io::Error::other(what));
    }
    Ok(bytes)
}

/// A simulated machine as the library sees it. The events are root's: those of all processes.
fn machine_of(sim: &SimMachine) -> Machine {
    let (major, minor) = sim.kfd_version();
    let opener = sim.clone();
    let open = move |gpu: &gpuev::Gpu| opener.open_events(gpu.id.kfd_id, &Client::root());
    let scope = Scope::everything("a simulated machine hides nothing");
    let source = OpenWith::new(KfdVersion { major, minor }, scope, open);
    Machine::at(sim.root()).with_event_source(source)
}

fn no_sim(error: std::io::Error) -> Failure {
    Failure::Gpu(gpuev::Error::io("simulate a machine", error))
}
