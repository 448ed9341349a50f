//! Where answers go: standard output, whose reader may be slow or gone, and files that are whole or not there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gpuev::Error;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::exit::Failure;

/// An output of which nothing was taken for so long, when the command is to end, is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

static STANDARD: Standard =
    Standard { writing: AtomicBool::new(false), written: AtomicU64::new(0) };

/// Standard output.
pub(crate) fn standard() -> &'static Standard {
    &STANDARD
}

/// Standard output, as others see how writing goes.
#[derive(Debug)]
pub(crate) struct Standard {
    writing: AtomicBool,
    written: AtomicU64,
}

impl Standard {
    /// Writes all, at once. Whoever opened the file may have made it non-blocking: then this waits for room.
    ///
    /// # Errors
    /// `BrokenPipe` where the reader is gone; any other of `write`.
    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let out = io::stdout();
        self.writing.store(true, Ordering::Relaxed);
        while !bytes.is_empty() {
            match rustix::io::write(&out, bytes) {
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.written.fetch_add(1, Ordering::Relaxed);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => drop(wait(&out, PollFlags::OUT)),
                Err(error) => return Err(error.into()),
            }
        }
        self.writing.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until nobody reads it any more; for ever where that cannot be.
    pub(crate) fn closed(&self) {
        let out = io::stdout();
        // An end is told without having been asked for.
        while !wait(&out, PollFlags::empty()).intersects(PollFlags::ERR | PollFlags::HUP) {}
    }

    /// Waits until nothing that is being written is taken any more.
    pub(crate) fn stuck(&self) {
        loop {
            let before = self.written.load(Ordering::Relaxed);
            std::thread::sleep(PATIENCE);
            let moves = self.written.load(Ordering::Relaxed) != before;
            if self.writing.load(Ordering::Relaxed) && !moves {
                return;
            }
        }
    }
}

/// What became of the wait; nothing where it was interrupted.
fn wait(out: &io::Stdout, wanted: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(out, wanted)];
    let _interrupted = rustix::event::poll(&mut fds, None);
    fds[0].revents()
}

/// A file on its way: it is written beside its place, which it takes when it is whole. Dropped before, it is
/// removed; killed before, what is left is called `FILE.part-PID`.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    part: PathBuf,
}

impl NewFile {
    /// A file for `path`, where nothing may be unless `force` says so.
    pub(crate) fn beside(path: &Path, force: bool) -> Result<Self, Failure> {
        if path.is_dir() {
            return Err(Failure::Usage(format!("{} is a folder: name a file", path.display())));
        }
        if !force && fs::symlink_metadata(path).is_ok() {
            let text = format!("{} is there already: --force replaces it", path.display());
            return Err(Failure::Usage(text));
        }
        let mut part = OsString::from(path);
        part.push(format!(".part-{}", std::process::id()));
        Ok(Self { path: path.to_owned(), part: part.into() })
    }

    /// Where it is written.
    pub(crate) fn part(&self) -> &Path {
        &self.part
    }

    /// Makes it, to be written.
    pub(crate) fn create(&self) -> Result<File, Failure> {
        File::create_new(&self.part).map_err(|error| self.failed(error))
    }

    /// It is whole: its bytes are on disk before its name is.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let synced = File::open(&self.part).and_then(|file| file.sync_all());
        let moved = synced.and_then(|()| fs::rename(&self.part, &self.path));
        moved.map_err(|error| self.failed(error))
    }

    /// Writing it failed.
    pub(crate) fn failed(&self, error: io::Error) -> Failure {
        let error = Error::io(format!("write {}", self.path.display()), error);
        Failure::Gpu(error.with_hint("check the folder, its rights and the space that is left"))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let _already_gone = fs::remove_file(&self.part);
    }
}
