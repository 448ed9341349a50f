//! A report for a terminal: as wide as that is, with the columns that matter most.

use std::fmt::{self, Display, Write};

use super::Layout;
use super::chart::resampled;
use super::document::{Cell, Section, headline, sections, warnings};
use super::format::Length;
use super::summary::Report;
use crate::moment::Zone;

/// Characters of the curve of all events, where there is room.
const CURVE: usize = 60;
/// Characters of a curve in a table, from the longest on.
const SPARKS: [usize; 3] = [24, 16, 8];
/// Blanks before each column.
const BETWEEN: usize = 2;
/// Shorter than that, a text is no use.
const SHORTEST_TEXT: usize = 12;

/// See [`Report::text_in`].
pub(super) struct Text<'a>(pub(super) &'a Report, pub(super) &'a Layout);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report, layout) = self;
        let width = layout.width;
        let (when, much) = headline(report, &layout.zone);
        wrapped(f, width, "", &format!("GPU events, {when}"))?;
        wrapped(f, width, "", &much)?;
        for warning in warnings(report) {
            wrapped(f, width, "! ", &warning)?;
        }
        if !report.timeline.is_empty() {
            let length = width.map_or(CURVE, |width| width.saturating_sub(28).clamp(20, 2 * CURVE));
            let curve = report.timeline.clone().in_at_most(length);
            let bar = Length(curve.width_ns().unsigned_abs());
            writeln!(f, "\n{}  events, {bar} a bar", Spark(&curve.events()))?;
        }
        sections(report).iter().try_for_each(|section| write_section(f, section, layout))
    }
}

fn write_section(f: &mut fmt::Formatter<'_>, section: &Section, layout: &Layout) -> fmt::Result {
    writeln!(f, "\n{}", section.title)?;
    let table = Table::fitting(section, layout);
    for row in 0..=section.rows.len() {
        let mut line = String::new();
        for column in &table.columns {
            let width = column.width;
            let cell = cut(column.cells.get(row).map_or("", String::as_str), width);
            if column.right {
                write!(line, "  {cell:>width$}")?;
            } else {
                write!(line, "  {cell:width$}")?;
            }
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    section.notes.iter().try_for_each(|note| wrapped(f, layout.width, "  ", note))?;
    if table.left_out.is_empty() {
        return Ok(());
    }
    let left_out = table.left_out.join(", ");
    wrapped(
        f,
        layout.width,
        "  ",
        &format!("Left out for want of room (--wide shows all): {left_out}."),
    )
}

/// A section as text, in columns.
struct Table {
    columns: Vec<Column>,
    left_out: Vec<&'static str>,
}

struct Column {
    name: &'static str,
    right: bool,
    /// Words, which may be cut.
    words: bool,
    width: usize,
    /// The heading, then the cells.
    cells: Vec<String>,
}

impl Table {
    /// With as many columns as there is room for: curves get shorter, then what matters least goes, then the
    /// widest text is cut.
    fn fitting(section: &Section, layout: &Layout) -> Self {
        let room = layout.width.unwrap_or(usize::MAX);
        let mut table = Self::of(section, layout, SPARKS[0]);
        for length in &SPARKS[1..] {
            if table.width() > room {
                table = Self::of(section, layout, *length);
            }
        }
        for spare in section.spare {
            if table.width() <= room {
                break;
            }
            let before = table.columns.len();
            table.columns.retain(|column| column.name != *spare);
            if table.columns.len() < before {
                table.left_out.push(spare);
            }
        }
        let over = table.width().saturating_sub(room);
        let texts = table.columns.iter_mut().filter(|column| column.words);
        if let Some(widest) = texts.max_by_key(|column| column.width) {
            let least = SHORTEST_TEXT.min(widest.width);
            widest.width = widest.width.saturating_sub(over).max(least);
        }
        table
    }

    fn of(section: &Section, layout: &Layout, spark: usize) -> Self {
        let columns = section.columns.iter().enumerate().map(|(place, name)| {
            let cells = || section.rows.iter().filter_map(|row| row.get(place));
            let shown = cells().map(|cell| show(cell, &layout.zone, spark));
            let texts: Vec<String> = [(*name).to_owned()].into_iter().chain(shown).collect();
            let first = cells().next();
            Column {
                name,
                right: matches!(first, Some(Cell::Number(_) | Cell::Share(_))),
                words: matches!(first, Some(Cell::Text(_))),
                width: texts.iter().map(|cell| cell.chars().count()).max().unwrap_or(0),
                cells: texts,
            }
        });
        Self { columns: columns.collect(), left_out: Vec::new() }
    }

    fn width(&self) -> usize {
        self.columns.iter().map(|column| BETWEEN + column.width).sum()
    }
}

fn show(cell: &Cell, zone: &Zone, spark: usize) -> String {
    match cell {
        Cell::Text(text) | Cell::Number(text) => text.clone(),
        Cell::Share(share) => share.to_string(),
        Cell::Moment(at) => at.map_or_else(|| "-".to_owned(), |at| zone.second(at)),
        Cell::Spark(counts) => Spark(&resampled(counts, spark)).to_string(),
    }
}

/// The front of a text that is too long, and that it was.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A text in lines of at most `width`, broken at blanks; `before` stands before the first, as many blanks before the
/// others.
fn wrapped(
    f: &mut fmt::Formatter<'_>,
    width: Option<usize>,
    before: &str,
    text: &str,
) -> fmt::Result {
    let room = width.unwrap_or(usize::MAX).saturating_sub(before.len());
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    let indent = before.len();
    lines.iter().enumerate().try_for_each(|(place, line)| match place {
        0 => writeln!(f, "{before}{line}"),
        _ => writeln!(f, "{:indent$}{line}", ""),
    })
}

/// Counts as bars of one character; none at all as a blank.
struct Spark<'a>(&'a [u64]);

impl Display for Spark<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let most = u128::from(self.0.iter().copied().max().unwrap_or(0).max(1));
        self.0.iter().try_for_each(|count| match *count {
            0 => f.write_char(' '),
            count => {
                let height = (u128::from(count) * 8).div_ceil(most).clamp(1, 8);
                f.write_char(BARS[usize::try_from(height).unwrap_or(8) - 1])
            }
        })
    }
}
