//! An event or a gap as one line for people: time, GPU, type, message.

use std::fmt;

use anstyle::{AnsiColor, Style};
use gpuev::{Event, Gap, GpuId, Item, Severity};
use jiff::tz::TimeZone;

/// How lines are written.
pub(crate) struct LineStyle {
    colour: bool,
    zone: TimeZone,
}

impl LineStyle {
    /// In local time, with colours where `colour` says so.
    pub(crate) fn new(colour: bool) -> Self {
        Self { colour, zone: TimeZone::system() }
    }

    /// Appends `item` as a line, its newline included.
    pub(crate) fn write(&self, out: &mut String, item: &Item) {
        use fmt::Write;
        let line = Line { style: self, item };
        let _infallible = writeln!(out, "{line}");
    }

    fn paint(&self, style: Style) -> Style {
        if self.colour { style } else { Style::new() }
    }

    fn clock(&self, unix_ns: i64) -> impl fmt::Display {
        let moment = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
        let time = moment.to_zoned(self.zone.clone()).time();
        let micros = time.subsec_nanosecond() / 1000;
        format!("{:02}:{:02}:{:02}.{micros:06}", time.hour(), time.minute(), time.second())
    }
}

struct Line<'a> {
    style: &'a LineStyle,
    item: &'a Item,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.item {
            Item::Event(event) => self.event(f, event),
            Item::Gap(gap) => self.gap(f, gap),
        }
    }
}

impl Line<'_> {
    fn event(&self, f: &mut fmt::Formatter<'_>, event: &Event) -> fmt::Result {
        let style = self.style.paint(match event.severity() {
            Severity::Info => AnsiColor::Cyan.on_default(),
            Severity::Warning => AnsiColor::Yellow.on_default(),
            Severity::Critical => AnsiColor::Red.on_default().bold(),
        });
        self.head(f, event.time.unix_ns, event.gpu)?;
        let name = event.type_name();
        write!(f, "{style}{name:16}{style:#}  {}", event.message())
    }

    fn gap(&self, f: &mut fmt::Formatter<'_>, gap: &Gap) -> fmt::Result {
        let style = self.style.paint(AnsiColor::Magenta.on_default().bold());
        self.head(f, gap.unix_ns, gap.gpu)?;
        write!(f, "{style}{:16}{style:#}  {gap}", "GAP")
    }

    fn head(&self, f: &mut fmt::Formatter<'_>, unix_ns: i64, gpu: GpuId) -> fmt::Result {
        let dim = self.style.paint(Style::new().dimmed());
        let clock = self.style.clock(unix_ns);
        write!(f, "{dim}{clock}{dim:#}  GPU {:<2} {}", gpu.index, gpu.bdf)?;
        if gpu.partition > 0 {
            write!(f, "/{:<2}", gpu.partition)?;
        } else {
            f.write_str("   ")?;
        }
        f.write_str(" ")
    }
}
