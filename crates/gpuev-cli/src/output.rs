//! Files that are whole or not there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use gpuev::Error;

use crate::exit::Failure;

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
