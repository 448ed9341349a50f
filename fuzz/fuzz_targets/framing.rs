//! A stream splits into the same messages wherever it is cut, and no byte is lost.

#![no_main]

use gpuev_kfd::framing::{LONGEST_LINE, line, message_length};
use libfuzzer_sys::fuzz_target;

/// Up to here every single cut is tried; longer streams are cut at random.
const CUT_EVERYWHERE: usize = 256;

fuzz_target!(|data: &[u8]| {
    let Some((&seed, stream)) = data.split_last() else { return };
    let whole = split(stream, [stream.len()].into_iter());
    assert_eq!(whole.concat(), stream, "bytes were lost or made up");
    for message in &whole {
        assert!(!message.is_empty() && message.len() <= LONGEST_LINE);
        assert!(message.len() - line(message).len() <= 1);
    }

    if stream.len() <= CUT_EVERYWHERE {
        for cut in 0..stream.len() {
            assert_eq!(split(stream, [cut, stream.len()].into_iter()), whole, "cut at {cut}");
        }
    }
    assert_eq!(split(stream, Cuts::new(seed, stream.len())), whole, "cuts of {seed}");
});

/// What a reader makes of the stream that arrives up to each of `ends`. Only then does it know that the
/// driver holds no more.
fn split(stream: &[u8], ends: impl Iterator<Item = usize>) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut take = |end: usize, drained: bool| {
        while let Some(length) = message_length(&stream[start..end], drained) {
            assert!(length > 0 && start + length <= end, "{length} of {}", end - start);
            found.push(&stream[start..start + length]);
            start += length;
        }
    };
    for end in ends {
        take(end, false);
    }
    take(stream.len(), true);
    found.push(&stream[start..]);
    found.retain(|message| !message.is_empty());
    found
}

/// Ends of pieces, from one byte to some hundreds long.
struct Cuts {
    state: u64,
    longest: u64,
    at: usize,
    end: usize,
}

impl Cuts {
    fn new(seed: u8, end: usize) -> Self {
        let state = u64::from(seed) << 32 | end as u64 | 1 << 63;
        Self { state, longest: 1 << (seed % 10), at: 0, end }
    }
}

impl Iterator for Cuts {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.at == self.end {
            return None;
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let length = 1 + (self.state >> 20) % self.longest;
        self.at = self.end.min(self.at + length as usize);
        Some(self.at)
    }
}
