//! Lines of bounded length.

use std::io::{self, BufRead};

/// A line that is longer is broken. Ours have some hundred bytes; a driver's line that lost its newline has
/// at most 4096, and escaped as JSON six times that.
pub(super) const LONGEST: usize = 64 * 1024;

/// Reads lines, and knows their numbers.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    held: Vec<u8>,
    number: u64,
}

/// What came.
pub(super) enum Line<'a> {
    /// A line without its newline.
    Text(&'a [u8]),
    /// A line of more than [`LONGEST`] bytes, which is left out.
    TooLong,
    /// There is no more.
    End,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, held: Vec::new(), number: 0 }
    }

    /// How many lines there were so far.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn next(&mut self) -> io::Result<Line<'_>> {
        self.held.clear();
        self.number += 1;
        let mut any = false;
        let mut too_long = false;
        loop {
            let piece = match self.input.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if piece.is_empty() {
                break;
            }
            any = true;
            let newline = piece.iter().position(|&byte| byte == b'\n');
            let length = newline.unwrap_or(piece.len());
            too_long |= self.held.len() + length > LONGEST;
            if !too_long {
                self.held.extend_from_slice(&piece[..length]);
            }
            self.input.consume(length + usize::from(newline.is_some()));
            if newline.is_some() {
                break;
            }
        }
        Ok(match (any, too_long) {
            (false, _) => Line::End,
            (_, true) => Line::TooLong,
            _ => Line::Text(&self.held),
        })
    }
}
