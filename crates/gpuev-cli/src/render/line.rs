//! An event or a gap as one line for people: time, GPU, type, message.

use std::fmt;

use anstyle::{AnsiColor, Style};
use gpuev::{Event, Gap, GpuId, Item, Severity};
use gpuev_store::Zone;

/// How lines are written.
pub(crate) struct LineStyle {
    colour: bool,
    zone: Zone,
}

impl LineStyle {
    /// In times of `zone`, with colours where `colour` says so.
    pub(crate) fn new(colour: bool, zone: Zone) -> Self {
        Self { colour, zone }
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
        let clock = self.style.zone.stamp(unix_ns);
        write!(f, "{dim}{clock}{dim:#}  GPU {:<2} {}", gpu.index, gpu.bdf)?;
        if gpu.partition > 0 {
            write!(f, "/{:<2}", gpu.partition)?;
        } else {
            f.write_str("   ")?;
        }
        f.write_str(" ")
    }
}
