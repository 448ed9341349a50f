//! What the ROCm runtime writes to the file that `HSA_SVM_PROFILE` names (rocr-runtime,
//! `core/runtime/svm_profiler.cpp`): `ROCr HMM event: NS NAME DETAIL`.
//!
//! The driver's line is made again from that, as far as the runtime passes it on. It drops the process, the
//! error of a migration, where a range wants to be and whether a restore was put off; and it counts sizes
//! modulo 4 GiB, so that a larger range is too small here.

use super::{Meaning, Read, State, View};

/// All lines begin so.
const ANY_LINE: &[u8] = b"ROCr HMM event";
const PREFIX: &str = "ROCr HMM event: ";
/// The runtime could not read: no event.
const FAILURE: &str = "ROCr HMM event error: ";

/// In the place of a cause that the runtime does not know either.
const UNKNOWN_TRIGGER: i32 = -1;

/// What the runtime writes where it has no name for an event.
const NO_NAME: &str = "UNKNOWN";

pub(super) fn in_view(view: &View<'_>, state: &mut State) -> Option<Read> {
    view.text.starts_with(ANY_LINE).then(|| read(&view.text, state))
}

fn read(line: &[u8], state: &mut State) -> Read {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?.trim_end();
    if text.is_empty() || text.starts_with(FAILURE) {
        return Ok(Meaning::Nothing);
    }
    let event = text.strip_prefix(PREFIX).ok_or_else(|| format!("it does not begin {PREFIX:?}"))?;
    let parts = event.split_once(' ').and_then(|(ns, rest)| {
        let (name, detail) = rest.split_once(' ').unwrap_or((rest, ""));
        Some((ns.parse::<u64>().ok()?, name, detail))
    });
    let (boot_ns, name, detail) = parts.ok_or("it has no time and name")?;
    let unreadable = || format!("{name} has the detail {detail:?}, which cannot be read");
    let words: Vec<&str> = detail.split_ascii_whitespace().take(6).collect();
    let stamp = format!("{boot_ns} -{}", state.pid.unwrap_or(0));
    let made = match name {
        "MIGRATE_START" | "MIGRATE_END" => migration(name, &stamp, &words, state),
        "PAGE_FAULT_START" | "PAGE_FAULT_END" => page_fault(name, &stamp, &words, state),
        "QUEUE_EVICTION" => eviction(&stamp, &words, state),
        "QUEUE_RESTORE" => restore(&stamp, &words, state),
        "UNMAP_FROM_GPU" => unmap(&stamp, &words, state),
        NO_NAME => Some((0, text.to_owned())),
        _ => return Err(format!("{name} is an event that is not known")),
    };
    let (index, raw) = made.ok_or_else(unreadable)?;
    let gpu = state.gpus.by_index(index).ok_or_else(unreadable)?;
    // The runtime has asked for events that it knows: what came unasked may count dropped ones.
    state.stamped(gpu, boot_ns, raw.as_bytes(), name == NO_NAME);
    Ok(Meaning::Held)
}

/// The index of the GPU that tells it, and the driver's line.
type Made = Option<(u32, String)>;

fn migration(name: &str, stamp: &str, words: &[&str], state: &mut State) -> Made {
    let [trigger, way, first, last] = words else { return None };
    let trigger =
        number_of(trigger, &["PREFETCH", "PAGEFAULT_GPU", "PAGEFAULT_CPU", "TTM_EVICTION"]);
    let (from, to) = way.split_once("->")?;
    let (from, to) = (agent(from)?, agent(to)?);
    let (page, pages) = range(first, last)?;
    let (from_id, to_id) = (kfd_id(from, state)?, kfd_id(to, state)?);
    let range = format!("@{page:x}({pages:x}) {from_id:x}->{to_id:x}");
    let raw = if name == "MIGRATE_START" {
        format!("5 {stamp} {range} ffffffff:ffffffff {trigger}")
    } else {
        format!("6 {stamp} {range} {trigger}")
    };
    // The driver writes it to the GPU whose memory it is.
    Some((to.or(from)?, raw))
}

fn page_fault(name: &str, stamp: &str, words: &[&str], state: &mut State) -> Made {
    let [what, gpu, address] = words else { return None };
    let index = agent(gpu)??;
    let page = page_of(address.parse().ok()?)?;
    let place = format!("@{page:x}({:x})", kfd_id(Some(index), state)?);
    let raw = match (name, *what) {
        ("PAGE_FAULT_START", "Write") => format!("7 {stamp} {place} W"),
        ("PAGE_FAULT_START", "Read") => format!("7 {stamp} {place} R"),
        ("PAGE_FAULT_END", "Migration") => format!("8 {stamp} {place} M"),
        ("PAGE_FAULT_END", "Map") => format!("8 {stamp} {place} U"),
        _ => return None,
    };
    Some((index, raw))
}

fn eviction(stamp: &str, words: &[&str], state: &mut State) -> Made {
    const TRIGGERS: [&str; 6] =
        ["SVM", "USERPTR", "TTM", "SUSPEND", "CRIU_CHECKPOINT", "CRIU_RESTORE"];
    let [trigger, gpu] = words else { return None };
    let index = agent(gpu)??;
    let node = kfd_id(Some(index), state)?;
    Some((index, format!("9 {stamp} {node:x} {}", number_of(trigger, &TRIGGERS))))
}

fn restore(stamp: &str, words: &[&str], state: &mut State) -> Made {
    let [gpu] = words else { return None };
    let index = agent(gpu)??;
    Some((index, format!("a {stamp} {:x}", kfd_id(Some(index), state)?)))
}

fn unmap(stamp: &str, words: &[&str], state: &mut State) -> Made {
    let [trigger, gpu, first, last] = words else { return None };
    let index = agent(gpu)??;
    let trigger = number_of(trigger, &["MMU_NOTIFY", "MMU_NOTIFY_MIGRATE", "UNMAP_FROM_CPU"]);
    let (page, pages) = range(first, last)?;
    let node = kfd_id(Some(index), state)?;
    Some((index, format!("b {stamp} @{page:x}({pages:x}) {node:x} {trigger}")))
}

/// `CPU`, or the index in `GPU0(0x55d0c8)`; the outer `None` where it is neither.
fn agent(text: &str) -> Option<Option<u32>> {
    if text == "CPU" {
        return Some(None);
    }
    let (index, handle) = text.strip_prefix("GPU")?.split_once('(')?;
    handle.ends_with(')').then(|| index.parse().ok().map(Some))?
}

/// KFD's number of the GPU with this index; 0 is system memory.
fn kfd_id(index: Option<u32>, state: &mut State) -> Option<u32> {
    match index {
        None => Some(0),
        Some(index) => Some(state.gpus.by_index(index)?.kfd_id),
    }
}

/// `[0x7f0000000000, 0x7f00001fffff]` in pages: the first and how many.
fn range(first: &str, last: &str) -> Option<(u64, u64)> {
    let first = pointer(first.strip_prefix('[')?.strip_suffix(',')?)?;
    let last = pointer(last.strip_suffix(']')?)?;
    let size = last.wrapping_sub(first).wrapping_add(1);
    Some((page_of(first)?, page_of(size)?))
}

/// As `%p` prints it.
fn pointer(text: &str) -> Option<u64> {
    match text {
        "(nil)" => Some(0),
        text => u64::from_str_radix(text.strip_prefix("0x")?, 16).ok(),
    }
}

fn page_of(address: u64) -> Option<u64> {
    address.is_multiple_of(4096).then_some(address / 4096)
}

fn number_of(name: &str, names: &[&str]) -> i32 {
    let place = names.iter().position(|known| *known == name);
    place.and_then(|place| i32::try_from(place).ok()).unwrap_or(UNKNOWN_TRIGGER)
}
