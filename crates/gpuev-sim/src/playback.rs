//! Playing a recorded stream of bytes through the FIFO.

use std::io;
use std::time::Duration;

use crate::machine::SimMachine;

/// How long a message waits for room before it is tried again.
const WAIT: Duration = Duration::from_micros(100);
/// The longest message that a driver sends in one piece; see `KFD_SMI_EVENT_MSG_SIZE`.
const LONGEST_MESSAGE: usize = 103;

/// A recorded stream and how it is to be played.
#[derive(Clone, Copy, Debug)]
pub struct Capture<'b> {
    bytes: &'b [u8],
    overload: bool,
    patience: Duration,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Playback {
    /// Messages that were put through.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that were not, since nobody made room for them.
    pub left: u64,
}

impl<'b> Capture<'b> {
    /// A stream as a driver wrote it, to be played message by message as fast as the slowest
    /// reader of the GPU makes room, so that nothing is lost.
    #[must_use]
    pub const fn new(bytes: &'b [u8]) -> Self {
        Capture { bytes, overload: false, patience: Duration::from_secs(10) }
    }

    /// Plays everything at once: what there is no room for is dropped, by the driver's rules.
    #[must_use]
    pub const fn overload(mut self) -> Self {
        self.overload = true;
        self
    }

    /// How long a reader may make no room before the playing is given up; 10 s unless said.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl SimMachine {
    /// Puts a recorded stream through the FIFOs of a GPU, byte by byte as it is. Masks hold, and
    /// every client may see every process.
    ///
    /// # Errors
    /// `TimedOut` when a reader makes no room for longer than the capture's patience; the
    /// message says how much was played.
    pub fn play_capture(&self, gpu_index: usize, capture: Capture<'_>) -> io::Result<Playback> {
        let mut played = Playback::default();
        for message in messages(capture.bytes) {
            // Noise passes with any mask that lets memory faults pass.
            let id = event_id(message).unwrap_or(1);
            if capture.overload {
                self.emit_raw(gpu_index, id, None, message);
            } else if !self.emit_patiently(gpu_index, id, message, capture.patience) {
                played.left = messages(capture.bytes).count() as u64 - played.messages;
                let what = format!("the reader of GPU {gpu_index} takes nothing: {played:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            played.messages += 1;
            played.bytes += message.len() as u64;
        }
        Ok(played)
    }

    fn emit_patiently(&self, gpu: usize, id: u32, message: &[u8], patience: Duration) -> bool {
        let start = std::time::Instant::now();
        while !self.emit_raw_if_room(gpu, id, None, message) {
            if start.elapsed() > patience {
                return false;
            }
            std::thread::sleep(WAIT);
        }
        true
    }
}

/// Cuts a stream into what the driver wrote at a time: after each newline, unless what follows
/// cannot be an event and so is the rest of a name that holds a newline; and what has no newline
/// at the longest message.
fn messages(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let longest = &rest[..rest.len().min(LONGEST_MESSAGE)];
        let ends =
            longest.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let end = { ends }
            .find(|end| rest[*end..].is_empty() || event_id(&rest[*end..]).is_some())
            .unwrap_or(longest.len());
        let (message, after) = rest.split_at(end);
        rest = after;
        (!message.is_empty()).then_some(message)
    })
}

/// The number at the start of an event: in hex, then a blank and a digit.
fn event_id(message: &[u8]) -> Option<u32> {
    let blank = message.iter().take(3).position(|byte| *byte == b' ')?;
    let id = u32::from_str_radix(std::str::from_utf8(&message[..blank]).ok()?, 16).ok()?;
    let next = message.get(blank + 1)?;
    let stamped = matches!(id, 5..=11 | 14);
    let digit = if stamped { next.is_ascii_digit() } else { next.is_ascii_hexdigit() };
    (digit && (1..=64).contains(&id)).then_some(id)
}
