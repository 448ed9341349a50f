//! `journalctl -o export`: fields of a line each, entries set apart by empty lines (systemd's Journal Export
//! Formats).
//!
//! ```text
//! __REALTIME_TIMESTAMP=1795347901123456
//! _HOSTNAME=node17
//! MESSAGE=7 1810035809094 -4242 @7fff00000(1b11) W
//! ```

use super::envelope::View;
use super::lines::LONGEST;

/// The fields of the entry that is being read, if any is.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entry: Option<Fields>,
    /// What has come of a message that stands behind its size, for it is not text.
    binary: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Fields {
    message: Option<Vec<u8>>,
    microseconds: Option<i64>,
    host: Option<String>,
    program: Option<String>,
    boot_id: Option<String>,
}

/// What a line is to the journal.
pub(super) enum Step {
    /// Not of a journal.
    Other,
    /// A field; the entry goes on.
    Taken,
    /// An entry with a message is over.
    Entry(Box<View<'static>>),
}

impl Journal {
    /// Takes a line; the end of the text is an empty one.
    pub(super) fn line(&mut self, line: &[u8]) -> Step {
        let begins = line.starts_with(b"__CURSOR=") || line.starts_with(b"__REALTIME_TIMESTAMP=");
        if self.entry.is_none() && !begins {
            return Step::Other;
        }
        if let Some(held) = self.binary.take() {
            return self.more(held, line);
        }
        if line.is_empty() {
            return self.end();
        }
        let fields = self.entry.get_or_insert_default();
        let Some(equals) = line.iter().position(|&byte| byte == b'=') else {
            self.binary = (line == b"MESSAGE").then(Vec::new);
            return Step::Taken;
        };
        fields.set(&line[..equals], &line[equals + 1..]);
        Step::Taken
    }

    /// Adds `line` to a message that its size, eight bytes, stands before. Either may hold a newline.
    fn more(&mut self, mut held: Vec<u8>, line: &[u8]) -> Step {
        held.extend_from_slice(line);
        let size = held.first_chunk().map(|size| u64::from_le_bytes(*size));
        match size.map(|size| usize::try_from(size).unwrap_or(usize::MAX)) {
            Some(size) if held.len() >= size.saturating_add(8) => {
                let fields = self.entry.get_or_insert_default();
                fields.message = (held.len() == size + 8).then(|| held.split_off(8));
            }
            // Longer than any line of a driver: what follows is read as fields, and passed over.
            _ if held.len() > LONGEST => {}
            _ => {
                held.push(b'\n');
                self.binary = Some(held);
            }
        }
        Step::Taken
    }

    fn end(&mut self) -> Step {
        let Some(Fields { message: Some(message), microseconds, host, program, boot_id }) =
            self.entry.take()
        else {
            return Step::Taken;
        };
        let unix_ns = microseconds.and_then(|at| at.checked_mul(1000));
        let text = message.into();
        let view = View { text, unix_ns, host, program, boot_id, ..View::default() };
        Step::Entry(Box::new(view.named("a journal (journalctl -o export)")))
    }
}

impl Fields {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        let text = || std::str::from_utf8(value).ok().map(str::to_owned);
        match key {
            b"MESSAGE" => self.message = Some(value.to_vec()),
            b"__REALTIME_TIMESTAMP" if self.microseconds.is_none() => {
                self.microseconds = text().and_then(|text| text.parse().ok());
            }
            b"_SOURCE_REALTIME_TIMESTAMP" => {
                self.microseconds = text().and_then(|text| text.parse().ok());
            }
            b"_HOSTNAME" => self.host = text(),
            b"SYSLOG_IDENTIFIER" => self.program = text(),
            b"_COMM" if self.program.is_none() => self.program = text(),
            b"_BOOT_ID" => self.boot_id = text(),
            _ => {}
        }
    }
}
