//! What `amd-smi event` prints, and Python programs that print what `amdsmi`'s event reader gives.
//!
//! ```text
//! GPU: 0                                     {'processor_handle': c_void_p(94262),
//!     EVENT: VMFAULT                          'event': 'VMFAULT', 'message': '1092:python3'}
//!     MESSAGE: PID: 4242  task name: python3
//! ```
//!
//! The same as JSON (`--json`) and CSV (`--csv`). The library's older versions hand on what the driver wrote up
//! to the first blank, later ones put it into words; of migrations, page faults, evictions and unmaps neither gives
//! back the driver's numbers (addresses are cut to 32 bits, fields are uninitialised), so these are not imported.

use gpuev::{EventType, decode};

use super::time::{Calendar, at_front};

/// The fields of the event that is being read.
#[derive(Debug, Default)]
pub(super) struct AmdSmi {
    gpu: Option<Gpu>,
    event: Option<EventType>,
    unix_ns: Option<i64>,
    /// Handles of GPUs, in the order in which they appeared.
    handles: Vec<String>,
    /// Rows of `gpu,event,message` follow.
    table: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gpu(u32);

/// What a line is to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing that `amd-smi event` prints.
    Other,
    /// A part of an event, or a heading.
    Taken,
    /// An event: the index of its GPU, the driver's line, when it was.
    Event { gpu: u32, raw: String, unix_ns: Option<i64> },
    /// An event that cannot be had from what is printed.
    Broken(String),
}

/// No machine has more GPUs.
const MOST_HANDLES: usize = 4096;

impl AmdSmi {
    pub(super) fn line(&mut self, text: &[u8], calendar: &Calendar) -> Step {
        let Ok(text) = std::str::from_utf8(text) else { return Step::Other };
        let text = text.trim();
        if is_heading(text) {
            return Step::Taken;
        }
        if text.eq_ignore_ascii_case("gpu,event,message") {
            self.table = true;
            return Step::Taken;
        }
        if self.table
            && let Some(step) = self.row(text)
        {
            return step;
        }
        let pairs = text.trim_start_matches(['{', '[', ' ']);
        if text.starts_with('{') && pairs.contains("'event'") || pairs.contains("\"event\": \"") {
            return self.pairs(pairs, calendar);
        }
        self.field(text.trim_end_matches(','), calendar)
    }

    /// A row of CSV: `0,VMFAULT,1092:python3`.
    fn row(&mut self, text: &str) -> Option<Step> {
        let mut cells = text.splitn(3, ',');
        let gpu = cells.next()?.parse().ok()?;
        let event = EventType::from_name(cells.next()?)?;
        let message = cells.next()?.trim_matches('"');
        self.gpu = Some(Gpu(gpu));
        self.event = Some(event);
        Some(self.message(message))
    }

    /// `'processor_handle': c_void_p(94262), 'event': 'VMFAULT', 'message': '1092:python3'}`.
    fn pairs(&mut self, text: &str, calendar: &Calendar) -> Step {
        let mut message = None;
        let mut rest = text;
        while let Some((key, value, after)) = pair(rest) {
            match key {
                "message" => message = Some(value.clone()),
                key => drop(self.set(key, &value, calendar)),
            }
            rest = after;
        }
        match message {
            Some(message) => self.message(&message),
            None => Step::Taken,
        }
    }

    /// `EVENT: VMFAULT`, `"event": "VMFAULT"`.
    fn field(&mut self, text: &str, calendar: &Calendar) -> Step {
        let Some((key, value)) = text.split_once(':') else { return self.bracket(text) };
        let value = value.trim().trim_matches('"');
        match key.trim_matches('"').to_ascii_lowercase().as_str() {
            "message" if self.event.is_some() => self.message(value),
            key if self.set(key, value, calendar) => Step::Taken,
            _ => Step::Other,
        }
    }

    /// Brackets and braces of JSON that is printed over several lines, once one of its fields was there.
    fn bracket(&mut self, text: &str) -> Step {
        let only = !text.is_empty() && text.chars().all(|c| "{}[]".contains(c));
        if only { Step::Taken } else { Step::Other }
    }

    fn set(&mut self, key: &str, value: &str, calendar: &Calendar) -> bool {
        match key {
            "gpu" => {
                let Ok(index) = value.parse() else { return false };
                self.gpu = Some(Gpu(index));
            }
            "processor_handle" => self.gpu = self.of_handle(value),
            "event" => {
                let Some(event) = EventType::from_name(value) else { return false };
                self.event = Some(event);
            }
            "timestamp" => {
                self.unix_ns = at_front(value.as_bytes(), calendar).and_then(|at| at.unix_ns);
            }
            "values" => return value.is_empty() || value == "{",
            _ => return false,
        }
        true
    }

    fn of_handle(&mut self, handle: &str) -> Option<Gpu> {
        let place = self.handles.iter().position(|known| known == handle);
        let place = place.or_else(|| {
            let free = self.handles.len() < MOST_HANDLES;
            free.then(|| self.handles.push(handle.to_owned()))?;
            Some(self.handles.len() - 1)
        });
        u32::try_from(place?).ok().map(Gpu)
    }

    /// The message ends an event.
    fn message(&mut self, message: &str) -> Step {
        let Some(event) = self.event.take() else {
            return Step::Broken("its event has no name, or one that is not known".to_owned());
        };
        let unix_ns = self.unix_ns.take();
        let gpu = self.gpu.map_or(0, |gpu| gpu.0);
        match line_of(event, message.trim()) {
            Some(raw) => Step::Event { gpu, raw, unix_ns },
            None => Step::Broken(format!(
                "amd-smi does not print what the driver says of {}: {message:?}",
                event.name()
            )),
        }
    }
}

fn is_heading(text: &str) -> bool {
    text == "EVENT LISTENING:"
        || text.starts_with("Press q and hit ENTER")
        || text.starts_with("Escape Sequence Detected")
}

/// The first `'key': value` of a dict's text, the value without its quotes, and what follows.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', ',', '{']);
    let quote = text.chars().next().filter(|quote| "'\"".contains(*quote))?;
    let (key, rest) = text[1..].split_once(quote)?;
    let rest = rest.strip_prefix(':')?.trim_start();
    let Some(quote) = rest.chars().next().filter(|quote| "'\"".contains(*quote)) else {
        let end = rest.find(['}', ',']).unwrap_or(rest.len());
        return Some((key, rest[..end].trim().to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in rest[1..].char_indices() {
        if escaped || (c != '\\' && c != quote) {
            value.push(c);
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else {
            return Some((key, value, &rest[at + 2..]));
        }
    }
    None
}

/// The driver's line of an event, from the message that the library makes of it.
fn line_of(event: EventType, message: &str) -> Option<String> {
    let as_it_was = format!("{:x} {message}", event.id());
    if decode(as_it_was.as_bytes()).event_type() == Some(event) {
        return Some(as_it_was);
    }
    let of = |keys: &[&str]| keys.iter().find_map(|key| value(message, key));
    let line = match event {
        EventType::VmFault => format!("1 {:x}:{}", pid(message)?, of(&TASK)?),
        EventType::ProcessStart => format!("c {:x} {}", pid(message)?, of(&TASK)?),
        EventType::ProcessEnd => format!("d {:x} {}", pid(message)?, of(&TASK)?),
        EventType::ThermalThrottle => {
            let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
            let count = of(&["counter"])?;
            let count = match count.strip_prefix("0x") {
                Some(_) => hex(count)?,
                None => count.parse().ok()?,
            };
            format!("2 {:x}:{count:x}", hex(of(&["bitmask"])?)?)
        }
        EventType::GpuPreReset | EventType::GpuPostReset => {
            let number: u32 = of(&["reset sequence number"])?.parse().ok()?;
            match of(&["reset cause"]) {
                Some(cause) => format!("{:x} {number:x} {cause}", event.id()),
                None => format!("{:x} {number:x}", event.id()),
            }
        }
        _ => return None,
    };
    (decode(line.as_bytes()).event_type() == Some(event)).then_some(line)
}

const TASK: [&str; 3] = ["task name", "task", "name"];

fn pid(message: &str) -> Option<u32> {
    value(message, "PID")?.parse().ok()
}

/// The value of `key` in `key: value  key: value`, which two blanks set apart.
fn value<'m>(message: &'m str, key: &str) -> Option<&'m str> {
    message
        .split("  ")
        .find_map(|pair| Some(pair.trim().strip_prefix(key)?.strip_prefix(':')?.trim()))
}
