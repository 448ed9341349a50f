//! The text of a machine: what is known of it, then its files as a tree.
//!
//! ```text
//! about Ryzen laptop, Radeon 780M
//! source https://…
//! gpu 35218 0000:64:00.0 0/1 renderD128 card1 -
//! ---
//! sys/devices/pci0000:00/0000:64:00.0/
//!   device = 0x15bf
//!   driver -> ../../../bus/pci/drivers/amdgpu
//!   gpu_busy_percent error EINVAL
//!   gpu_metrics hex 78000201…
//!   pp_dpm_sclk:
//!     |0: 800Mhz *
//!     |1: 2700Mhz
//!   unique_id ""
//! ```
//!
//! Two blanks for each folder; `NAME = TEXT` is a file of one line, `NAME:` one of several, and what
//! holds other bytes than print stands in quotes.

use std::io;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Folder,
    File(Vec<u8>),
    /// A link with this text.
    Link(String),
    /// Reading it fails.
    Fails(Failure),
}

/// How reading a file fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Invalid,
    NotPermitted,
}

/// A file, link or folder of a machine, in the order of the text: a folder before what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) what: What,
}

/// A GPU as KFD lists it on such a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    pub(crate) kfd_id: u32,
    pub(crate) bdf: String,
    pub(crate) partition: u32,
    pub(crate) partitions: u32,
    pub(crate) render_minor: u32,
    pub(crate) card: Option<u32>,
    pub(crate) unique_id: u64,
}

/// Splits the head from the tree.
fn parts(text: &str) -> (&str, &str) {
    text.split_once("\n---\n").unwrap_or((text, ""))
}

/// The values of the head's lines with this key.
pub(crate) fn head<'t>(text: &'t str, key: &'t str) -> impl Iterator<Item = &'t str> {
    parts(text).0.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// The GPUs that the head names.
///
/// # Errors
/// A line is not as above.
pub(crate) fn gpus(text: &str) -> io::Result<Vec<Gpu>> {
    head(text, "gpu").map(|line| gpu(line).ok_or_else(|| odd("gpu", line))).collect()
}

fn gpu(line: &str) -> Option<Gpu> {
    let mut words = line.split(' ');
    let mut next = || words.next();
    let (kfd_id, bdf) = (next()?.parse().ok()?, next()?.to_owned());
    let (partition, partitions) = next()?.split_once('/')?;
    let render_minor = next()?.strip_prefix("renderD")?.parse().ok()?;
    let card = next()?.strip_prefix("card").map(str::parse).transpose().ok()?;
    let unique_id = match next()? {
        "-" => 0,
        digits => u64::from_str_radix(digits, 16).ok()?,
    };
    let (partition, partitions) = (partition.parse().ok()?, partitions.parse().ok()?);
    Some(Gpu { kfd_id, bdf, partition, partitions, render_minor, card, unique_id })
}

/// The tree.
///
/// # Errors
/// A line is not as above.
pub(crate) fn entries(text: &str) -> io::Result<Vec<Entry>> {
    let mut reader = Reader::default();
    for line in parts(text).1.lines() {
        reader.take(line).ok_or_else(|| odd("tree", line))?;
    }
    Ok(reader.entries)
}

fn odd(what: &str, line: &str) -> io::Error {
    let what = format!("a recorded machine has an odd line in its {what}: {line:?}");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[derive(Default)]
struct Reader {
    /// The folders around the next line.
    folders: Vec<String>,
    entries: Vec<Entry>,
    /// The file whose lines follow, by its depth.
    open: Option<usize>,
}

impl Reader {
    fn take(&mut self, line: &str) -> Option<()> {
        let text = line.trim_start_matches(' ');
        let depth = (line.len() - text.len()) / 2;
        if self.open.is_some_and(|open| depth == open + 1) {
            return self.content(text);
        }
        self.open = None;
        if depth > self.folders.len() {
            return None;
        }
        self.folders.truncate(depth);
        if let Some(name) = text.strip_suffix('/') {
            self.folders.push(name.to_owned());
            let path = self.folders.join("/");
            self.entries.push(Entry { path, what: What::Folder });
            return Some(());
        }
        let (name, what) = match text.strip_suffix(':') {
            Some(name) if !name.contains(' ') => {
                self.open = Some(depth);
                (name, What::File(Vec::new()))
            }
            _ => file(text)?,
        };
        let path = { self.folders.iter().map(String::as_str) }.chain([name]).collect::<Vec<_>>();
        self.entries.push(Entry { path: path.join("/"), what });
        Some(())
    }

    fn content(&mut self, text: &str) -> Option<()> {
        let What::File(bytes) = &mut self.entries.last_mut()?.what else { return None };
        match text.strip_prefix('|') {
            Some(line) => bytes.extend_from_slice(line.as_bytes()),
            None => bytes.extend_from_slice(&unquoted(text)?),
        }
        bytes.push(b'\n');
        Some(())
    }
}

/// A file or link in one line.
fn file(text: &str) -> Option<(&str, What)> {
    let (name, rest) = text.split_once(' ')?;
    let what = if let Some(line) = rest.strip_prefix("= ") {
        What::File([line.as_bytes(), b"\n"].concat())
    } else if let Some(target) = rest.strip_prefix("-> ") {
        What::Link(target.to_owned())
    } else if let Some(digits) = rest.strip_prefix("hex ") {
        What::File(bytes_of(digits)?)
    } else if let Some(errno) = rest.strip_prefix("error ") {
        What::Fails(match errno {
            "EINVAL" => Failure::Invalid,
            "EPERM" => Failure::NotPermitted,
            _ => return None,
        })
    } else {
        What::File(unquoted(rest)?)
    };
    Some((name, what))
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let whole = digits.len().is_multiple_of(2);
    let pairs = whole.then_some(pairs)?;
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn unquoted(text: &str) -> Option<Vec<u8>> {
    let inside = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                other => other,
            },
            other => other,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "about a laptop: small\nsource https://a\nsource https://b\n\
        gpu 35218 0000:64:00.0 1/2 renderD129 card1 7afdea0199db5330\n\
        gpu 7 0000:65:00.0 0/1 renderD130 - -\n---\n\
        sys/devices/\n  device = 0x15bf\n  driver -> ../amdgpu\n  busy error EINVAL\n  \
        table hex 7800ff\n  levels:\n    |0: 800Mhz *\n    |\n    \"\\t1: \\\"x\\\\\"\n  id \"\"\n  \
        deep/er/\n    name \"a\\n\\nb\\0\"\n    empty/\n  last = a = b\nusr/\n  x = 1\n";

    #[test]
    fn a_machine_is_read_as_it_is_written() {
        assert_eq!(head(TEXT, "about").collect::<Vec<_>>(), ["a laptop: small"]);
        assert_eq!(head(TEXT, "source").count(), 2);
        let gpus = gpus(TEXT).unwrap();
        assert_eq!((gpus[0].kfd_id, gpus[0].partition, gpus[0].card), (35218, 1, Some(1)));
        assert_eq!((gpus[1].unique_id, gpus[1].card), (0, None));
        let entries = entries(TEXT).unwrap();
        let told: Vec<_> = entries.iter().map(|one| (one.path.as_str(), &one.what)).collect();
        let file = |text: &str| What::File(text.as_bytes().to_vec());
        let all = [
            ("sys/devices", &What::Folder),
            ("sys/devices/device", &file("0x15bf\n")),
            ("sys/devices/driver", &What::Link("../amdgpu".to_owned())),
            ("sys/devices/busy", &What::Fails(Failure::Invalid)),
            ("sys/devices/table", &What::File(vec![0x78, 0, 0xff])),
            ("sys/devices/levels", &file("0: 800Mhz *\n\n\t1: \"x\\\n")),
            ("sys/devices/id", &file("")),
            ("sys/devices/deep/er", &What::Folder),
            ("sys/devices/deep/er/name", &file("a\n\nb\0")),
            ("sys/devices/deep/er/empty", &What::Folder),
            ("sys/devices/last", &file("a = b\n")),
            ("usr", &What::Folder),
            ("usr/x", &file("1\n")),
        ];
        assert_eq!(told, all);
    }

    #[test]
    fn odd_lines_are_told() {
        for line in ["sys/\n      deep = 1", "file", "file \"open", "file hex 7", "x error EIO"] {
            let text = format!("about a\n---\n{line}\n");
            assert!(entries(&text).is_err(), "{line}");
        }
        assert!(gpus("gpu 1 0000:01:00.0 0 renderD128 - -\n---\n").is_err());
    }
}
