//! A report for a terminal.

use std::fmt::{self, Display, Write};

use super::chart::resampled;
use super::document::{Cell, Section, headline, sections, warnings};
use super::format::Length;
use super::summary::Report;

/// Characters of the curve of all events.
const CURVE: usize = 60;
/// Characters of a curve in a table.
const SPARK: usize = 24;

/// See [`Report::text`].
pub(super) struct Text<'a>(pub(super) &'a Report);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let (when, much) = headline(report);
        writeln!(f, "GPU events, {when}\n{much}")?;
        for warning in warnings(report) {
            writeln!(f, "! {warning}")?;
        }
        if !report.timeline.is_empty() {
            let curve = report.timeline.clone().in_at_most(CURVE);
            let width = Length(curve.width_ns().unsigned_abs());
            writeln!(f, "\n{}  events, {width} a bar", Spark(&curve.events()))?;
        }
        sections(report).iter().try_for_each(|section| write_section(f, section))
    }
}

fn write_section(f: &mut fmt::Formatter<'_>, section: &Section) -> fmt::Result {
    writeln!(f, "\n{}", section.title)?;
    let shown = |cell: &Cell| match cell {
        Cell::Text(text) | Cell::Number(text) => text.clone(),
        Cell::Share(share) => share.to_string(),
        Cell::Spark(counts) => Spark(&resampled(counts, SPARK)).to_string(),
    };
    let rows: Vec<Vec<String>> =
        section.rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let right: Vec<bool> = section.rows.first().map_or_else(Vec::new, |row| {
        row.iter().map(|cell| matches!(cell, Cell::Number(_) | Cell::Share(_))).collect()
    });
    let headings: Vec<String> = section.columns.iter().map(ToString::to_string).collect();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            let cells = rows.iter().chain([&headings]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for row in [&headings].into_iter().chain(&rows) {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(&widths).zip(&right) {
            let width = *width;
            if *right {
                write!(line, "  {cell:>width$}")?;
            } else {
                write!(line, "  {cell:width$}")?;
            }
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    section.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
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
