//! Lines of the driver, bare or as a logger passed them on: anything, a time, maybe the PCI address of the
//! GPU, the driver's line.
//!
//! ```text
//! 7 1810035809094 -4242 @7fff00000(1b11) W
//! 2026-11-22T11:45:01.5Z 0000:03:00.0 3 1 job hang on ring:gfx_0.0.0
//! kfd-123 [002] 0.000017: kfd_smi_event: 2026-11-22 11:45:01 +0000 3 1 RAS error
//! ```
//!
//! The first line of a boot that has both a time of the driver and a wall time tells how the two go together.

use gpuev::time::Anchor;
use gpuev::{Bdf, Clock, EventData, GpuId, decode};

use super::{Broken, Meaning, State};
use crate::moment::logged_time;

pub(super) fn read(line: &[u8], state: &mut State) -> Result<Meaning, Broken> {
    if line.is_empty() {
        return Ok(Meaning::Nothing);
    }
    let logged = if is_known(line) { None } else { logged_time(line) };
    let Some((unix_ns, rest)) = logged else {
        let gpu = first_gpu(state)?;
        return item(gpu, state.now_boot_ns, line, state);
    };
    let rest = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii_start();
    let (gpu, raw) = match address(rest) {
        Some((bdf, raw)) => {
            (state.gpus.by_bdf(bdf).ok_or("it names one GPU more than can be")?, raw)
        }
        None => (first_gpu(state)?, rest),
    };
    match decode(raw).stamp() {
        Some(stamp) => state.take_anchor(Anchor { boot_ns: stamp.boot_ns, unix_ns }),
        // Whatever was assumed, the machine was up by then.
        None if !state.anchored && unix_ns < state.anchor.unix_ns_of(0) => {
            state.anchor = Anchor { boot_ns: 0, unix_ns };
        }
        None => {}
    }
    item(gpu, boot_ns_at(state.anchor, unix_ns), raw, state)
}

/// A line that no kernel writes is an error; one that begins with the number of an event is an event, if an
/// unknown one.
fn item(gpu: GpuId, boot_ns: u64, raw: &[u8], state: &mut State) -> Result<Meaning, Broken> {
    match EventData::of(&decode(raw)) {
        EventData::Unknown { id: None } => Err("it holds no line of the driver".to_owned()),
        _ => Ok(Meaning::Item(state.item(gpu, (boot_ns, Clock::Receipt), raw))),
    }
}

fn first_gpu(state: &mut State) -> Result<GpuId, Broken> {
    state.gpus.by_index(0).ok_or_else(|| "there is no GPU".to_owned())
}

fn is_known(line: &[u8]) -> bool {
    let record = decode(line);
    record.event_type().is_some() || record.stamp().is_some()
}

/// A PCI address at the front, and what follows it.
fn address(text: &[u8]) -> Option<(Bdf, &[u8])> {
    let end = text.iter().position(|&byte| byte == b' ')?;
    let (word, rest) = text.split_at(end);
    let word = std::str::from_utf8(word.strip_suffix(b":").unwrap_or(word)).ok()?;
    Some((word.parse().ok()?, rest.trim_ascii_start()))
}

fn boot_ns_at(anchor: Anchor, unix_ns: i64) -> u64 {
    let boot_ns = i128::from(unix_ns) - i128::from(anchor.unix_ns) + i128::from(anchor.boot_ns);
    u64::try_from(boot_ns.max(0)).unwrap_or(u64::MAX)
}
