//! What loggers put around a line: when, which host, which program.
//!
//! An envelope knows nothing of what it holds: [`ENVELOPES`] is one table, what a line may say
//! ([`super::PAYLOADS`]) another. Envelopes nest: a container's log holds what a program wrote with a time of its own.

use std::borrow::Cow;

use super::time::{Calendar, anywhere, at_front};

/// A line, or what stands in an envelope.
#[derive(Debug, Clone, Default)]
pub(super) struct View<'a> {
    pub(super) text: Cow<'a, [u8]>,
    /// When it was logged, in nanoseconds since 1970.
    pub(super) unix_ns: Option<i64>,
    /// The reader assumed the year or the zone of that.
    pub(super) assumed: bool,
    /// When it was logged, in nanoseconds since boot by the kernel's log, which does not count suspend.
    pub(super) kernel_ns: Option<u64>,
    /// The machine that logged it.
    pub(super) host: Option<String>,
    /// What wrote it: the tag of syslog, the identifier of the journal.
    pub(super) program: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`, without dashes.
    pub(super) boot_id: Option<String>,
    /// The envelopes that were opened, the outermost first.
    pub(super) opened: Opened,
}

/// Up to [`DEEPEST`] names of envelopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Opened([Option<&'static str>; DEEPEST]);

/// No line is in more envelopes: a container's, its service's, and syslog's or the kernel's of time and name.
pub(super) const DEEPEST: usize = 6;

impl Opened {
    pub(super) fn depth(self) -> usize {
        self.0.iter().flatten().count()
    }

    pub(super) fn outermost(self) -> Option<&'static str> {
        self.0[0]
    }

    fn with(mut self, name: &'static str) -> Self {
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = Some(name);
        }
        self
    }
}

/// An envelope: its name, and what takes it off.
struct Envelope {
    name: &'static str,
    open: for<'v> fn(&'v [u8], &Calendar) -> Option<View<'v>>,
}

/// All that are known. The first that fits is taken off; each leaves less than there was.
const ENVELOPES: [Envelope; 9] = [
    Envelope { name: "JSON of a logger", open: super::json::open },
    Envelope { name: "syslog (RFC 5424)", open: rfc_5424 },
    Envelope { name: "a message with a priority", open: priority },
    Envelope { name: "/dev/kmsg", open: kmsg },
    Envelope { name: "a kernel log (dmesg)", open: kernel },
    Envelope { name: "a log with times", open: time },
    Envelope { name: "a container's log", open: container },
    Envelope { name: "syslog", open: host_and_program },
    Envelope { name: "a log with times in its lines", open: time_within },
];

impl<'a> View<'a> {
    pub(super) fn of_line(text: &'a [u8]) -> Self {
        Self { text: Cow::Borrowed(text), ..Self::default() }
    }

    /// What is in the next envelope, if this is one.
    pub(super) fn open(&self, calendar: &Calendar) -> Option<View<'static>> {
        if self.opened.depth() == DEEPEST {
            return None;
        }
        ENVELOPES.iter().find_map(|envelope| {
            let inner = (envelope.open)(&self.text, calendar)?;
            Some(self.holding(inner, envelope.name))
        })
    }

    /// It was taken out of an envelope of this name.
    pub(super) fn named(self, name: &'static str) -> Self {
        Self { opened: self.opened.with(name), ..self }
    }

    /// What `inner` says, and of what it does not say, what stood outside of it.
    fn holding(&self, inner: View<'_>, name: &'static str) -> View<'static> {
        let timed = inner.unix_ns.is_some();
        View {
            text: Cow::Owned(inner.text.into_owned()),
            unix_ns: inner.unix_ns.or(self.unix_ns),
            assumed: if timed { inner.assumed } else { self.assumed },
            kernel_ns: inner.kernel_ns.or(self.kernel_ns),
            host: inner.host.or_else(|| self.host.clone()),
            program: inner.program.or_else(|| self.program.clone()),
            boot_id: inner.boot_id.or_else(|| self.boot_id.clone()),
            opened: self.opened.with(name),
        }
    }
}

fn text(rest: &[u8]) -> View<'_> {
    View { text: Cow::Borrowed(rest.trim_ascii_start()), ..View::default() }
}

/// `<30>1 2026-11-22T11:45:01.5Z node17 gpu-events 312 - - MESSAGE`.
fn rfc_5424<'v>(line: &'v [u8], calendar: &Calendar) -> Option<View<'v>> {
    let rest =
        priority(line, calendar).map_or(line, |inner| &line[line.len() - inner.text.len()..]);
    let found = at_front(rest.strip_prefix(b"1 ")?, calendar)?;
    let (host, rest) = word(found.rest.strip_prefix(b" ")?)?;
    let (program, rest) = word(rest)?;
    let (_process, rest) = word(rest)?;
    let (_message_id, rest) = word(rest)?;
    let rest = structured(rest)?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let rest = rest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(rest);
    let named = |word: &[u8]| (word != b"-").then(|| name(word)).flatten();
    Some(View {
        unix_ns: found.unix_ns,
        assumed: found.assumed,
        host: named(host),
        program: named(program),
        ..text(rest)
    })
}

/// What follows structured data: `-`, or `[id key="value with \] in it"]…`.
fn structured(text: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = text.strip_prefix(b"-") {
        return Some(rest);
    }
    let mut rest = text;
    while rest.first() == Some(&b'[') {
        let (mut quoted, mut escaped) = (false, false);
        let end = rest.iter().position(|&byte| {
            let ends = byte == b']' && !quoted;
            quoted ^= byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        rest = &rest[end + 1..];
    }
    (rest.len() < text.len()).then_some(rest)
}

/// `<6>MESSAGE`, as syslog and the kernel write the priority.
fn priority<'v>(line: &'v [u8], _: &Calendar) -> Option<View<'v>> {
    let rest = line.strip_prefix(b"<")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (_, rest) = (1..=3).contains(&digits).then(|| rest.split_at(digits))?;
    Some(text(rest.strip_prefix(b">")?))
}

/// `6,1234,12345678901,-;MESSAGE`: priority, number, microseconds, flags (`Documentation/ABI/testing/dev-kmsg`).
fn kmsg<'v>(line: &'v [u8], _: &Calendar) -> Option<View<'v>> {
    let end = line.iter().position(|&byte| byte == b';')?;
    let mut fields = line[..end].split(|&byte| byte == b',');
    let (_priority, _number) = (number(fields.next()?)?, number(fields.next()?)?);
    let microseconds = number(fields.next()?)?;
    fields.next()?;
    let kernel_ns = Some(microseconds.checked_mul(1000)?);
    Some(View { kernel_ns, program: Some("kernel".to_owned()), ..text(&line[end + 1..]) })
}

/// `[12345.678901] MESSAGE`, `[12345.678901][  T123] MESSAGE`, `kern  :info  : [12345.678901] MESSAGE`,
/// `[Sun Nov 22 11:45:01 2026] MESSAGE`, `[12345.678901 <    0.000014>] MESSAGE`.
fn kernel<'v>(line: &'v [u8], calendar: &Calendar) -> Option<View<'v>> {
    let line = facility(line).unwrap_or(line);
    let inner = line.strip_prefix(b"[")?;
    let end = inner.iter().position(|&byte| byte == b']')?;
    let (inner, rest) = (inner[..end].trim_ascii(), &inner[end + 1..]);
    let rest = caller(rest).unwrap_or(rest);
    let moment = inner.split(|&byte| byte == b'<').next()?.trim_ascii();
    let view = View { program: Some("kernel".to_owned()), ..text(rest) };
    if let Some(kernel_ns) = seconds(moment) {
        return Some(View { kernel_ns: Some(kernel_ns), ..view });
    }
    if moment.is_empty() && inner.len() > moment.len() {
        return Some(view);
    }
    let found = at_front(moment, calendar).filter(|found| found.rest.is_empty());
    if let Some(found) = found {
        // ts '[%F %T]' looks like it: no word of the kernel.
        return Some(View {
            unix_ns: found.unix_ns,
            assumed: found.assumed,
            program: None,
            ..text(rest)
        });
    }
    // dmesg --human: "[Nov22 11:45]" now and then, "[  +0.000012]" else.
    let month_and_day = moment.len() >= 10 && moment[3].is_ascii_digit() && moment.contains(&b':');
    month_and_day.then_some(view)
}

/// What follows `kern  :info  : `, which `dmesg -x` writes.
fn facility(line: &[u8]) -> Option<&[u8]> {
    const NAMES: [&[u8]; 4] = [b"kern", b"user", b"daemon", b"syslog"];
    let name = NAMES.iter().find(|name| line.starts_with(name))?;
    let rest = line[name.len()..].trim_ascii_start().strip_prefix(b":")?;
    let level = rest.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    Some(rest[level..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

/// What follows `[  T123]` or `[C0]`, which a kernel with `CONFIG_PRINTK_CALLER` writes.
fn caller(text: &[u8]) -> Option<&[u8]> {
    let inner = text.trim_ascii_start().strip_prefix(b"[")?.trim_ascii_start();
    let digits = inner.strip_prefix(b"T").or_else(|| inner.strip_prefix(b"C"))?;
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits[count..].strip_prefix(b"]").filter(|_| count > 0)
}

/// A time, bare or in brackets, and what follows.
fn time<'v>(line: &'v [u8], calendar: &Calendar) -> Option<View<'v>> {
    let found = at_front(line, calendar)?;
    let rest = found.rest;
    let set_apart = matches!(rest.first(), None | Some(b' ' | b'\t' | b':' | b',' | b'|'));
    if !set_apart {
        return None;
    }
    let rest = rest.strip_prefix(b":").or_else(|| rest.strip_prefix(b",")).unwrap_or(rest);
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(b"|").unwrap_or(rest);
    Some(View { unix_ns: found.unix_ns, assumed: found.assumed, ..text(rest) })
}

/// `stdout F MESSAGE` of Kubernetes (behind a time), `service-1  | MESSAGE` of Compose, `[pod/a/b] MESSAGE` of
/// `kubectl logs --prefix`.
fn container<'v>(line: &'v [u8], _: &Calendar) -> Option<View<'v>> {
    for stream in [&b"stdout "[..], b"stderr "] {
        if let Some(rest) = line.strip_prefix(stream)
            && let Some(rest) = rest.strip_prefix(b"F ").or_else(|| rest.strip_prefix(b"P "))
        {
            return Some(text(rest));
        }
    }
    if let Some(rest) = line.strip_prefix(b"[pod/") {
        let end = rest.iter().position(|&byte| byte == b']')?;
        return Some(View { program: name(&rest[..end]), ..text(&rest[end + 1..]) });
    }
    let (service, rest) = word(line)?;
    let rest = rest.trim_ascii_start().strip_prefix(b"| ")?;
    Some(View { program: name(service), ..text(rest) })
}

/// `node17 gpu-events[312]: MESSAGE`, `gpu-events[312]: MESSAGE`.
fn host_and_program<'v>(line: &'v [u8], _: &Calendar) -> Option<View<'v>> {
    if let Some((program, rest)) = tag(line) {
        return Some(View { program: Some(program), ..text(rest) });
    }
    let (host, rest) = word(line)?;
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:".contains(byte);
    let (program, rest) = tag(rest).filter(|_| host.iter().all(is_host))?;
    Some(View { host: name(host), program: Some(program), ..text(rest) })
}

/// `gpu-events[312]: `, and what follows.
fn tag(text: &[u8]) -> Option<(String, &[u8])> {
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"._-/@()".contains(byte);
    let length = text.iter().take_while(is_name).count();
    // A PCI address stands before a colon too, and says what the line is about.
    let named = text[..length].first().is_some_and(|byte| !byte.is_ascii_digit());
    let mut rest = named.then(|| &text[length..])?;
    if let Some(process) = rest.strip_prefix(b"[") {
        let end = process.iter().position(|&byte| byte == b']').filter(|end| *end <= 32)?;
        rest = &process[end + 1..];
    }
    let rest = rest.strip_prefix(b":")?;
    let message = rest.strip_prefix(b" ").or_else(|| rest.is_empty().then_some(rest))?;
    Some((name(&text[..length])?, message))
}

/// `anything 2026-11-22 11:45:01 +0000 MESSAGE`, as tracing tools write it.
fn time_within<'v>(line: &'v [u8], _: &Calendar) -> Option<View<'v>> {
    let (unix_ns, rest) = anywhere(line)?;
    let rest = rest.strip_prefix(b":").unwrap_or(rest);
    Some(View { unix_ns: Some(unix_ns), ..text(rest) })
}

/// What stands before the first blank, and what behind it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|&byte| byte == b' ').filter(|end| *end > 0)?;
    Some((&text[..end], &text[end + 1..]))
}

/// A name of a host or program, of the length that such have.
fn name(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok().filter(|text| (1..=255).contains(&text.len()))?;
    Some(text.to_owned())
}

fn number(digits: &[u8]) -> Option<u64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// `12345.678901` in nanoseconds; a comma does as well.
fn seconds(text: &[u8]) -> Option<u64> {
    let point = text.iter().position(|byte| b".,".contains(byte))?;
    let (whole, fraction) = (number(&text[..point])?, &text[point + 1..]);
    number(fraction).filter(|_| fraction.len() <= 9)?;
    let nanoseconds = (0..9).fold(0, |sum, place| {
        sum * 10 + fraction.get(place).map_or(0, |digit| u64::from(digit - b'0'))
    });
    whole.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}
