//! A report as one HTML page that needs nothing else: no script, no font, no image, no network.

use std::fmt::{self, Display, Write};

use gpuev::EventType;

use super::chart::{EventsOverTime, SparkLine};
use super::document::{Cell, Section, headline, sections, warnings};
use super::format::{AtLeast, Count, Timed};
use super::summary::Report;
use crate::moment::Zone;

const STYLE: &str = include_str!("page.css");

/// Text that is no markup.
pub(super) struct Html<'a>(pub(super) &'a str);

impl Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

/// See [`Report::html`].
pub(super) struct Page<'a>(pub(super) &'a Report, pub(super) &'a Zone);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report, zone) = *self;
        let (when, much) = headline(report, zone);
        // Should a name ever get past the escaping, the browser still runs and fetches nothing.
        f.write_str(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
            <meta http-equiv=\"Content-Security-Policy\" \
            content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
            <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
        )?;
        writeln!(f, "<title>GPU events, {}</title>\n<style>\n{STYLE}</style>", Html(&when))?;
        writeln!(f, "</head>\n<body>\n<h1>GPU events</h1>\n<p class=\"when\">{}</p>", Html(&when))?;
        writeln!(f, "<p>{}</p>", Html(&much))?;
        for warning in warnings(report) {
            writeln!(f, "<p class=\"warn\">{}</p>", Html(&warning))?;
        }
        write_tiles(f, report)?;
        if !report.timeline.is_empty() {
            writeln!(f, "<section>\n<h2>Events over time</h2>\n{LEGEND}")?;
            writeln!(f, "{}\n</section>", EventsOverTime(&report.timeline, zone))?;
        }
        sections(report).iter().try_for_each(|section| write_section(f, section, zone))?;
        writeln!(
            f,
            "<footer>Times are {}. Written by gpuev {}.</footer>",
            Html(&zone.name_at(report.last_unix_ns.unwrap_or(0))),
            env!("CARGO_PKG_VERSION")
        )?;
        f.write_str("</body>\n</html>\n")
    }
}

const LEGEND: &str = "<p class=\"legend\"><span class=\"info\"></span>normal working \
    <span class=\"warning\"></span>throttling, end of a reset <span class=\"critical\"></span>memory \
    faults, resets (in the lane above) <span class=\"gap\"></span>gap: events are missing \
    <span class=\"unwatched\"></span>nobody watched</p>";

/// What one looks for first.
fn write_tiles(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let sum = |of: fn(&super::GpuSummary) -> u64| report.gpus.iter().map(of).sum::<u64>();
    let faults = report.types.of(Some(EventType::VmFault));
    let (gaps, resets) = (sum(|gpu| gpu.gaps), sum(|gpu| gpu.resets));
    let (ns, timed) = (sum(|gpu| gpu.down_ns), sum(|gpu| gpu.resets_timed));
    let known = |count, event_type| {
        let is_all = !report.left_out.some_of(Some(event_type));
        AtLeast { count, is_all }.to_string()
    };
    let tiles = [
        ("events", Count(report.events).to_string(), false),
        ("memory faults", known(faults, EventType::VmFault), faults > 0),
        ("resets", known(resets, EventType::GpuPreReset), resets > 0),
        ("down", Timed { ns, timed, all: resets }.to_string(), resets > 0),
        ("gaps", Count(gaps).to_string(), gaps > 0),
    ];
    f.write_str("<div class=\"tiles\">")?;
    for (what, value, bad) in tiles {
        let class = if bad { " class=\"bad\"" } else { "" };
        write!(f, "<div{class}><b>{}</b>{what}</div>", Html(&value))?;
    }
    f.write_str("</div>\n")
}

fn write_section(f: &mut fmt::Formatter<'_>, section: &Section, zone: &Zone) -> fmt::Result {
    writeln!(f, "<section>\n<h2>{}</h2>\n<div class=\"wide\"><table>\n<tr>", Html(section.title))?;
    let first = section.rows.first().map_or(&[][..], Vec::as_slice);
    for (column, cell) in section.columns.iter().zip(first) {
        write!(f, "<th{}>{}</th>", class(cell), Html(&column.to_lowercase()))?;
    }
    writeln!(f, "</tr>")?;
    for row in &section.rows {
        write!(f, "<tr>")?;
        row.iter().try_for_each(|cell| write_cell(f, cell, zone))?;
        writeln!(f, "</tr>")?;
    }
    writeln!(f, "</table></div>")?;
    for note in &section.notes {
        writeln!(f, "<p class=\"note\">{}</p>", Html(note))?;
    }
    writeln!(f, "</section>")
}

fn class(cell: &Cell) -> &'static str {
    match cell {
        Cell::Number(_) => " class=\"n\"",
        Cell::Share(_) => " class=\"s\"",
        Cell::Text(_) | Cell::Moment(_) | Cell::Spark(_) => "",
    }
}

fn write_cell(f: &mut fmt::Formatter<'_>, cell: &Cell, zone: &Zone) -> fmt::Result {
    write!(f, "<td{}>", class(cell))?;
    match cell {
        Cell::Text(text) | Cell::Number(text) => write!(f, "{}", Html(text))?,
        Cell::Moment(at) => match at {
            Some(at) => f.write_str(&zone.second(*at))?,
            None => f.write_str("-")?,
        },
        Cell::Spark(counts) => write!(f, "{}", SparkLine(counts))?,
        Cell::Share(share) => {
            let width = share.fraction() * 60.0;
            write!(
                f,
                "<svg class=\"bar\" viewBox=\"0 0 60 8\"><rect width=\"60\" height=\"8\"/>\
                <rect class=\"part\" width=\"{width:.1}\" height=\"8\"/></svg> {share}"
            )?;
        }
    }
    f.write_str("</td>")
}
