//! Our own JSON, one object a line (`docs/event-schema.md`).
//!
//! Only facts are read: sessions, and of events GPU, sequence number, times, process, line. What follows from the line (type, data,
//! message) is read from it again, so that a text cannot contradict itself.

use std::borrow::Cow;

use gpuev::message::unescape;
use gpuev::time::Anchor;
use gpuev::{
    Bdf, Clock, Comm, Event, EventFacts, EventTime, Gap, GapCause, GpuId, Item, UniqueId, decode,
    json,
};
use serde::Deserialize;

use super::{Broken, ImportFormat, Meaning, Read, State, View};
use crate::filter_text::FilterText;
use crate::moment::rfc3339_ns;
use crate::session::Session;
use crate::uid::Uid;

/// No recorder counts further; more would leave no room for the next session.
const MOST_ITEMS: i64 = 1 << 48;

#[derive(Deserialize)]
struct Head<'a> {
    v: u64,
    #[serde(borrow)]
    record: Cow<'a, str>,
}

#[derive(Deserialize)]
struct GpuText<'a> {
    index: u32,
    #[serde(borrow)]
    bdf: Cow<'a, str>,
    unique_id: Option<Cow<'a, str>>,
    partition: u32,
}

#[derive(Deserialize)]
struct EventText<'a> {
    #[serde(borrow)]
    gpu: GpuText<'a>,
    seq: u64,
    time: Cow<'a, str>,
    received_boot_ns: u64,
    pid: Option<u32>,
    process: Option<Cow<'a, str>>,
    tid: Option<u32>,
    raw: Cow<'a, str>,
    #[serde(default)]
    doubtful: bool,
    item: Option<i64>,
}

#[derive(Deserialize)]
struct GapText<'a> {
    #[serde(borrow)]
    gpu: GpuText<'a>,
    cause: Cow<'a, str>,
    count: Option<u64>,
    from_boot_ns: u64,
    to_boot_ns: u64,
    time: Cow<'a, str>,
    item: Option<i64>,
}

#[derive(Deserialize)]
struct SessionText<'a> {
    /// Absent before version 4 of histories.
    uid: Option<String>,
    host: Option<String>,
    boot_id: Option<String>,
    kernel: Option<String>,
    recorder: String,
    scope: Option<String>,
    filter: Option<FilterText>,
    #[serde(borrow)]
    started: AnchorText<'a>,
    alive: Option<AnchorText<'a>>,
    ended: Option<AnchorText<'a>>,
    gpus: Vec<NamedGpuText<'a>>,
}

#[derive(Deserialize)]
struct AnchorText<'a> {
    time: Cow<'a, str>,
    boot_ns: u64,
}

#[derive(Deserialize)]
struct NamedGpuText<'a> {
    #[serde(borrow)]
    gpu: GpuText<'a>,
    kfd_id: u32,
    name: Option<String>,
    since_boot_ns: Option<u64>,
}

/// A line of ours begins with its version; any other object is somebody else's, unless it was said that the text is
/// ours.
pub(super) fn in_view(view: &View<'_>, state: &mut State) -> Option<Read> {
    let text = view.text.trim_ascii();
    let said = state.said(ImportFormat::Ndjson) && !text.is_empty();
    let key = b"\"record\"";
    let ours = text.starts_with(b"{\"v\":")
        || text.starts_with(b"{") && text.windows(key.len()).any(|window| window == key);
    (said || ours).then(|| read(text, state))
}

fn read(line: &[u8], state: &mut State) -> Read {
    let head: Head<'_> = parse(line)?;
    if head.v != u64::from(json::VERSION) {
        return Err(format!(
            "its version is {}, not {}: a newer gpuev may read it",
            head.v,
            json::VERSION
        ));
    }
    match &*head.record {
        "event" => {
            let text = parse(line)?;
            event(&text, state).map(|event| numbered(Item::Event(event), text.item))
        }
        "gap" => {
            let text = parse(line)?;
            gap(&text, state).map(|gap| numbered(Item::Gap(gap), text.item))
        }
        "session" => {
            let session = session(parse(line)?)?;
            state.record(session.gpus.iter().map(|(gpu, _)| *gpu));
            Ok(Meaning::Session(Box::new(session)))
        }
        _ => Ok(Meaning::Nothing),
    }
}

/// Numbers count from 1.
fn numbered(item: Item, number: Option<i64>) -> Meaning {
    match number.filter(|number| (1..=MOST_ITEMS).contains(number)) {
        Some(number) => Meaning::Numbered(item, number),
        None => Meaning::Item(item),
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, Broken> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

fn event(text: &EventText<'_>, state: &State) -> Result<Event, Broken> {
    let raw = unescape(&text.raw);
    let record = decode(&raw);
    let stamp = record.stamp();
    let received_boot_ns = text.received_boot_ns;
    let time = EventTime {
        boot_ns: stamp.map_or(received_boot_ns, |stamp| stamp.boot_ns),
        clock: if stamp.is_some() { Clock::Driver } else { Clock::Receipt },
        received_boot_ns,
        unix_ns: time(&text.time)?,
    };
    // Before events had a `tid`, that stood in the place of the process.
    let (pid, process) = match (record.task(), text.tid) {
        (None, _) => (None, text.process.as_ref()),
        (Some(_), Some(_)) => (text.pid, text.process.as_ref()),
        (Some(_), None) => (None, None),
    };
    let comm = process.map_or(Comm::NONE, |name| Comm::new(&unescape(name)));
    let gpu = recorded_gpu(&text.gpu, state)?;
    let EventText { seq, doubtful, .. } = *text;
    Ok(Event::from_facts(EventFacts { gpu, seq, time, doubtful, pid, comm, raw: &raw }))
}

fn gap(text: &GapText<'_>, state: &State) -> Result<Gap, Broken> {
    Ok(Gap {
        gpu: recorded_gpu(&text.gpu, state)?,
        cause: GapCause::from_name(&text.cause),
        count: text.count,
        from_boot_ns: text.from_boot_ns,
        to_boot_ns: text.to_boot_ns,
        unix_ns: time(&text.time)?,
    })
}

fn session(text: SessionText<'_>) -> Result<Session, Broken> {
    let (mut gpus, mut came_later) = (Vec::new(), Vec::new());
    for named in text.gpus {
        let gpu = GpuId { kfd_id: named.kfd_id, ..gpu(&named.gpu)? };
        came_later.extend(named.since_boot_ns.map(|since| (gpu, since)));
        gpus.push((gpu, named.name));
    }
    let started = anchor(&text.started)?;
    let uid = text.uid.map(|uid| uid.parse::<Uid>().map_err(|error| error.to_string()));
    Ok(Session {
        uid: uid.transpose()?.unwrap_or_else(Uid::random),
        host: text.host,
        boot_id: text.boot_id,
        kernel: text.kernel,
        recorder: text.recorder,
        scope: text.scope,
        filter: text.filter.map(|filter| filter.filter()).unwrap_or_default(),
        started,
        alive: text.alive.as_ref().map(anchor).transpose()?,
        ended: text.ended.as_ref().map(anchor).transpose()?,
        gpus,
        came_later,
    })
}

fn anchor(text: &AnchorText<'_>) -> Result<Anchor, Broken> {
    Ok(Anchor { boot_ns: text.boot_ns, unix_ns: time(&text.time)? })
}

fn time(text: &str) -> Result<i64, Broken> {
    let no_time = || format!("{text:?} is no time; it should be 2026-11-22T11:45:01.123456789Z");
    rfc3339_ns(text).ok_or_else(no_time)
}

/// The GPU, with KFD's number of it where the session told that.
fn recorded_gpu(text: &GpuText<'_>, state: &State) -> Result<GpuId, Broken> {
    let gpu = gpu(text)?;
    let same = |known: &&GpuId| GpuId { kfd_id: gpu.kfd_id, ..**known } == gpu;
    Ok(state.recorded().iter().find(same).copied().unwrap_or(gpu))
}

/// The GPU. KFD's number is not in the text: 0.
fn gpu(text: &GpuText<'_>) -> Result<GpuId, Broken> {
    let bdf: Bdf = text.bdf.parse().map_err(|error: gpuev::Error| error.to_string())?;
    let unique_id = match &text.unique_id {
        Some(digits) => match u64::from_str_radix(digits, 16) {
            Ok(id) if digits.len() == 16 => Some(UniqueId(id)),
            _ => return Err(format!("{digits:?} is no unique id: 16 hex digits")),
        },
        None => None,
    };
    Ok(GpuId { index: text.index, bdf, unique_id, partition: text.partition, kfd_id: 0 })
}
