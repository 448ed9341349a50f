//! The systemd journal, in its own protocol: structured fields, and a `MESSAGE_ID` for each kind of record.
//!
//! A record is one datagram of `FIELD=value` lines, or of `FIELD`, a length and bytes where the value has
//! newlines (systemd, "Native Journal Protocol"). One that is larger than the socket takes goes as a sealed
//! file in memory whose descriptor is sent instead.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use gpuev::Severity;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::message::{Kind, Message};
use super::outbox::OutboxSettings;
use super::settings::{Context, SinkSettings};
use super::{Failure, Filter, Order, Sink};

/// `MESSAGE_ID` by record, and by type or state. They never change: people filter by them.
const MESSAGE_IDS: [(&str, &str, &str); 24] = [
    ("event", "VMFAULT", "6064cbf7854e4110b26df3aae96ea016"),
    ("event", "THERMAL_THROTTLE", "cbc826b23a6d432fbb421a8819e6b981"),
    ("event", "GPU_PRE_RESET", "1611e7cfbe7543ec91c1f4a289823fee"),
    ("event", "GPU_POST_RESET", "e7b21b743cd8490e8a42d6db1c41109f"),
    ("event", "MIGRATE_START", "813adee334ff4e67bb8ba81d2948bdad"),
    ("event", "MIGRATE_END", "af65e85c6ac94f1d8bfe4ad027fa212e"),
    ("event", "PAGE_FAULT_START", "3125f84a7ab141daaa5625ba23c20bf5"),
    ("event", "PAGE_FAULT_END", "67cada9177ae41a38a084e55f1a9cffa"),
    ("event", "QUEUE_EVICTION", "593e936013ac41e1904dd9395d621ddb"),
    ("event", "QUEUE_RESTORE", "f0da2657cdb84a95b604d4c3cc2e5119"),
    ("event", "UNMAP_FROM_GPU", "fe9e91e7998748d5bb82674d06ff2ef3"),
    ("event", "PROCESS_START", "143304be4d78463fb0030093b747b0c5"),
    ("event", "PROCESS_END", "9ed9c4fed91d4e4cb7215cbf1088eb14"),
    ("event", "UNKNOWN", "b86bdf636313465882a1533eac5b74c8"),
    ("gap", "", "df94bb8a921e48a5b144b0918aa4e598"),
    ("span", "", "f88d3792e8154f94ae4ff80633b76a21"),
    ("health", "", "e72e941b60174b469ce8e2e3b1d22a17"),
    ("ras", "", "aa2adedb9c4d415899eb26f39ed47f04"),
    ("aggregate", "", "0601dac5b35a4da796339e4445fcafa0"),
    ("gpu", "", "87b851cbf8804ab7b013cb9bc2bfd1d6"),
    ("lost", "", "ed0045c7521f45eba86aaef2f0d68bc9"),
    ("alert", "pending", "077129e62b304974826b35d3c79cf0c8"),
    ("alert", "firing", "4ad052cf676c422885897c015b87dfa5"),
    ("alert", "resolved", "5d428d16276f44cdba19a8579632759c"),
];

/// `[sinks.journald.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournaldSettings {
    /// The journal's socket.
    pub socket: PathBuf,
    /// What is written. Unset: alerts, and what is at least a warning.
    pub send: Filter,
    /// How messages wait. Nothing is kept on disk unless `queue.spool` says so.
    pub queue: OutboxSettings,
}

impl Default for JournaldSettings {
    fn default() -> Self {
        Self {
            socket: "/run/systemd/journal/socket".into(),
            send: Filter::default(),
            queue: OutboxSettings::default(),
        }
    }
}

impl SinkSettings for JournaldSettings {
    const KIND: &'static str = "journald";
    const PROMISES: bool = false;

    fn defaults() -> Filter {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Health);
        Filter { min_severity: Some(Severity::Warning), ..Filter::of(kinds) }
    }

    fn send(&self) -> &Filter {
        &self.send
    }

    fn queue(&self) -> &OutboxSettings {
        &self.queue
    }

    fn build(&self, _context: &Context) -> Result<Box<dyn Sink>, String> {
        Ok(Box::new(Journald { path: self.socket.clone(), socket: None }))
    }
}

struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journald {
    fn send(&mut self, entry: &[u8]) -> std::io::Result<()> {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                none.insert(socket)
            }
        };
        match socket.send(entry) {
            Ok(_) => Ok(()),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                send_as_file(socket, entry)
            }
            Err(error) => Err(error),
        }
    }
}

/// The journal reads a sealed file of any size whose descriptor comes with an empty datagram.
fn send_as_file(socket: &UnixDatagram, entry: &[u8]) -> std::io::Result<()> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("gpuev-journal", flags)?);
    file.write_all(entry)?;
    fcntl_add_seals(
        &file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(socket, &[IoSlice::new(b"")], &mut control, SendFlags::empty())?;
    Ok(())
}

impl Sink for Journald {
    fn order(&self) -> Order {
        Order::Lines
    }

    fn tells_loss(&self) -> bool {
        true
    }

    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure> {
        for message in batch {
            if let Err(error) = self.send(&entry(message)) {
                // Restarted, it has another socket.
                self.socket = None;
                let path = self.path.display();
                return Err(Failure::unreachable(format!("the journal's socket {path}: {error}")));
            }
        }
        Ok(0)
    }
}

/// The record as an entry of the journal.
fn entry(message: &Message) -> Vec<u8> {
    let record: Value = serde_json::from_str(&message.json).unwrap_or_default();
    let mut out = Vec::with_capacity(message.json.len() + 512);
    let priority = match message.severity_now() {
        Severity::Critical => "2",
        Severity::Warning => "4",
        Severity::Info => "6",
    };
    let sort = record["state"].as_str().or(record["type"].as_str()).unwrap_or_default();
    field(&mut out, "MESSAGE", &message.text(&record));
    field(&mut out, "PRIORITY", priority);
    field(&mut out, "SYSLOG_IDENTIFIER", "gpuev");
    if let Some(id) = message_id(message.kind, sort) {
        field(&mut out, "MESSAGE_ID", id);
    }
    field(&mut out, "GPUEV_ID", &message.id);
    field(&mut out, "GPUEV_RECORD", message.kind.name());
    field(&mut out, "GPUEV_SEVERITY", message.severity.name());
    for (name, value) in facts(&record) {
        field(&mut out, name, &value);
    }
    field(&mut out, "GPUEV_JSON", &message.json);
    out
}

/// What people filter by.
fn facts(record: &Value) -> BTreeMap<&'static str, String> {
    let places = [
        ("GPUEV_TYPE", "/type"),
        ("GPUEV_GPU", "/gpu/bdf"),
        ("GPUEV_GPU", "/labels/gpu"),
        ("GPUEV_PID", "/pid"),
        ("GPUEV_PROCESS", "/process"),
        ("GPUEV_USER", "/job/user"),
        ("GPUEV_SLURM_JOB", "/job/slurm_job"),
        ("GPUEV_POD", "/job/pod"),
        ("GPUEV_CONTAINER", "/job/container"),
        ("GPUEV_UNIT", "/job/unit"),
        ("GPUEV_CAUSE", "/cause"),
        ("GPUEV_RULE", "/rule"),
        ("GPUEV_STATE", "/state"),
        ("GPUEV_ACTION", "/action"),
    ];
    let found = places.into_iter().filter_map(|(name, place)| {
        let text = match record.pointer(place)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        Some((name, text))
    });
    found.collect()
}

fn message_id(kind: Kind, sort: &str) -> Option<&'static str> {
    let exact = MESSAGE_IDS.iter().find(|(record, of, _)| *record == kind.name() && *of == sort);
    let any = || MESSAGE_IDS.iter().find(|(record, of, _)| *record == kind.name() && of.is_empty());
    exact.or_else(any).map(|(_, _, id)| *id)
}

/// Always with a length: a value may hold anything.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}
