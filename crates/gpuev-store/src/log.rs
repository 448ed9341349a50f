//! A plain file of events: one JSON object that is whole at every moment, or one record a line.
//!
//! The object is `{"v":1,"record":"log","log_created":…,"gpu_count":…,"gpus":[…],"events":[…],
//! "total_events":…,"total_gaps":…,"duration_seconds":…}`, with `filter` before the events where some are left out. A portion of events and the new end cannot be
//! put into a file in one step: the kernel cuts a `write` between two pages when the process is killed. So
//! there are two copies that take turns: what is new goes to the hidden one, which then takes the other's
//! name (`renameat2`, `RENAME_EXCHANGE`). Whoever opens the name, also after the writer was killed, finds the
//! object with or without the portion. File systems that cannot exchange names (NFS) get one copy.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gpuev::time::{Anchor, Rfc3339};
use gpuev::{Error, ErrorKind, Filter, Gpu, Item, Result, json};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::filter_text::FilterText;

/// Writes events to a file: by its extension `.ndjson` or `.jsonl` one record a line, else one JSON object.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    shown: Copy,
    /// `None` where one copy has to do.
    hidden: Option<Hidden>,
    is_object: bool,
    events: u64,
    gaps: u64,
    started: Instant,
}

/// A file that lacks nothing but the end.
#[derive(Debug)]
struct Copy {
    file: File,
    /// Where the end begins, and the next record goes.
    end: u64,
}

/// The copy that is behind by `missing`.
#[derive(Debug)]
struct Hidden {
    copy: Copy,
    path: PathBuf,
    missing: String,
}

impl Copy {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|error| {
            Error::io(format!("create {}", path.display()), error)
                .with_path(path)
                .with_hint("check that the folder is there and may be written")
        })?;
        Ok(Self { file, end: 0 })
    }

    /// Adds `text`, and `tail` as the end.
    fn write(&mut self, text: &str, tail: &str) -> std::io::Result<()> {
        self.file.write_all_at(format!("{text}{tail}").as_bytes(), self.end)?;
        self.end += text.len() as u64;
        Ok(())
    }
}

impl EventLog {
    /// Makes the file at `path`, or empties it. `gpus` are noted in its head.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn create<'a>(path: &Path, gpus: impl IntoIterator<Item = &'a Gpu>) -> Result<Self> {
        Self::create_filtered(path, gpus, &Filter::new())
    }

    /// As [`create`](Self::create), of what passes `filter`: its head says so. A file of records, which has no head,
    /// begins with a record `log` where something is left out.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_filtered<'a>(
        path: &Path,
        gpus: impl IntoIterator<Item = &'a Gpu>,
        filter: &Filter,
    ) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_object = !matches!(extension, Some("ndjson" | "jsonl"));
        let mut log = Self {
            path: path.to_owned(),
            shown: Copy::create(path)?,
            hidden: None,
            is_object,
            events: 0,
            gaps: 0,
            started: Instant::now(),
        };
        if is_object {
            if !log.shown.file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                let what = format!("{} is no file that could be kept whole", path.display());
                return Err(Error::new(ErrorKind::InvalidInput, what)
                    .with_hint("name a file, or one that ends with .ndjson"));
            }
            let head = head(gpus, filter) + ",\"events\":[";
            log.shown.write(&head, &log.tail()).map_err(|error| log.failed(error))?;
            let path = hidden_path(path);
            log.hidden = Some(Hidden { copy: Copy::create(&path)?, path, missing: head });
        } else if *filter != Filter::new() {
            let line = head(gpus, filter) + "}\n";
            log.shown.write(&line, "").map_err(|error| log.failed(error))?;
        }
        Ok(log)
    }

    /// Adds `items`.
    ///
    /// # Errors
    /// Where the disk is full or fails. An object is as it was before; lines may end with a part of one.
    pub fn append<'a>(&mut self, items: impl IntoIterator<Item = &'a Item>) -> Result<()> {
        let mut text = String::new();
        for item in items {
            if self.is_object {
                text.push_str(if self.events + self.gaps == 0 { "\n" } else { ",\n" });
            }
            json::write_item(&mut text, item);
            if !self.is_object {
                text.push('\n');
            }
            match item {
                Item::Event(_) => self.events += 1,
                Item::Gap(_) => self.gaps += 1,
            }
        }
        if text.is_empty() { Ok(()) } else { self.write(text) }
    }

    fn write(&mut self, text: String) -> Result<()> {
        let tail = if self.is_object { self.tail() } else { String::new() };
        let Some(hidden) = &mut self.hidden else {
            return self.shown.write(&text, &tail).map_err(|error| self.failed(error));
        };
        hidden.missing.push_str(&text);
        if let Err(error) = hidden.copy.write(&hidden.missing, &tail) {
            return Err(self.failed(error));
        }
        let exchanged = renameat_with(CWD, &hidden.path, CWD, &self.path, RenameFlags::EXCHANGE);
        if exchanged.is_ok() {
            std::mem::swap(&mut self.shown, &mut hidden.copy);
            hidden.missing = text;
            return Ok(());
        }
        self.drop_hidden();
        self.shown.write(&text, &tail).map_err(|error| self.failed(error))
    }

    /// What stands behind the events.
    fn tail(&self) -> String {
        let Self { events, gaps, .. } = self;
        let seconds = self.started.elapsed().as_secs_f64();
        format!(
            "\n],\"total_events\":{events},\"total_gaps\":{gaps},\"duration_seconds\":{seconds:.3}}}\n"
        )
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io(format!("write to {}", self.path.display()), error)
            .with_hint("free space or log elsewhere; what was logged before is there")
    }

    fn drop_hidden(&mut self) {
        if let Some(hidden) = self.hidden.take() {
            let _left_behind_is_harmless = std::fs::remove_file(hidden.path);
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.drop_hidden();
    }
}

/// What stands before the events, an object without its end.
fn head<'a>(gpus: impl IntoIterator<Item = &'a Gpu>, filter: &Filter) -> String {
    let mut listed = String::from("[");
    let mut ids = Vec::new();
    for gpu in gpus {
        listed.push_str(if ids.is_empty() { "" } else { "," });
        json::write_gpu(&mut listed, gpu.id);
        ids.push(gpu.id);
    }
    listed.push(']');
    let mut head = String::new();
    let mut object = json::Object::begin(&mut head, "log");
    object.text("log_created", Rfc3339(Anchor::now().unix_ns));
    object.number("gpu_count", ids.len());
    object.raw("gpus", &listed);
    if let Some(filter) = FilterText::of(filter, ids) {
        object.raw("filter", &filter.to_json());
    }
    head
}

/// `.gpu_events.json.next` beside `gpu_events.json`.
fn hidden_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".next");
    path.with_file_name(name)
}
