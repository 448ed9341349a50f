//! How the program ends, and what it says when it fails.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::process::ExitCode;

use gpuev::ErrorKind;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything went well; a reader that closed its pipe counts as that.
    Success,
    /// Something failed.
    Failure,
    /// The arguments make no sense.
    Usage,
    /// There is no GPU to watch.
    NoGpu,
    /// As the program ended that was run.
    Program(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::NoGpu => 3,
            Exit::Program(code) => code,
        })
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library's.
    Gpu(gpuev::Error),
    /// What was asked makes no sense; the text says what would.
    Usage(String),
    /// Writing the answer failed.
    Output(io::Error),
    /// A program could not be run.
    Program(String),
}

/// What a command ends with.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// The exit code that tells it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Gpu(error) if error.kind() == ErrorKind::NoGpu => Exit::NoGpu,
            Self::Gpu(_) | Self::Program(_) => Exit::Failure,
            Self::Usage(_) => Exit::Usage,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Output(_) => Exit::Failure,
        }
    }

    /// Says it on standard error. A closed pipe is no failure and says nothing.
    pub(crate) fn report(&self) {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            failure => say(&failure.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(error) => error.fmt(f),
            Self::Usage(text) | Self::Program(text) => f.write_str(text),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

/// Says that a program could not be started, and gives the exit code by which shells, env and nohup tell it: 127 where there
/// is none, 126 where it cannot be executed.
pub(crate) fn not_started(name: &OsStr, error: &io::Error) -> Exit {
    say(&format!("start {}: {error}; check its name and $PATH", name.to_string_lossy()));
    Exit::Program(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
}

/// A line on standard error, which may be closed: then nobody wants to know.
pub(crate) fn say(text: &str) {
    use io::Write;
    let _closed = writeln!(io::stderr(), "gpuev: {text}");
}

impl From<gpuev::Error> for Failure {
    fn from(error: gpuev::Error) -> Self {
        Self::Gpu(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
