//! Charts as inline SVG: no script, nothing from elsewhere. Colours are the page's.

use std::fmt::{self, Display, Write};

use gpuev::{EventType, Severity};

use super::document::severity;
use super::format::{Count, Length};
use super::html::Html;
use super::summary::type_name;
use super::timeline::Timeline;
use crate::moment::Zone;

/// At most `length` sums of as many neighbours each.
pub(super) fn resampled(counts: &[u64], length: usize) -> Vec<u64> {
    let each = counts.len().div_ceil(length).max(1);
    counts.chunks(each).map(|chunk| chunk.iter().sum()).collect()
}

/// Counts over time as small bars.
pub(super) struct SparkLine<'a>(pub(super) &'a [u64]);

impl Display for SparkLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = resampled(self.0, 60);
        let most = counts.iter().copied().max().unwrap_or(0).max(1);
        write!(
            f,
            "<svg class=\"spark\" viewBox=\"0 0 {} 20\" preserveAspectRatio=\"none\">",
            counts.len() * 2
        )?;
        for (place, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = scaled(*count, most, 20).max(1);
            write!(
                f,
                "<rect x=\"{}\" y=\"{}\" width=\"2\" height=\"{height}\"/>",
                place * 2,
                20 - height
            )?;
        }
        f.write_str("</svg>")
    }
}

/// `count` of `most` on a scale up to `height`, rounded up.
fn scaled(count: u64, most: u64, height: u64) -> u64 {
    let scaled = (u128::from(count) * u128::from(height)).div_ceil(u128::from(most.max(1)));
    u64::try_from(scaled).unwrap_or(height)
}

/// Height of the chart of all events; where its plot begins and ends: above is the lane of critical events; where its
/// axis begins.
const HEIGHT: u64 = 208;
const LANE: u64 = 12;
const TOP: u64 = 18;
const PLOT: u64 = 168;
const LEFT: usize = 56;
const WIDTH: usize = 960;

/// Events over time, by severity, with gaps marked.
pub(super) struct EventsOverTime<'a>(pub(super) &'a Timeline, pub(super) &'a Zone);

impl Display for EventsOverTime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(timeline, zone) = *self;
        let Some(from) = timeline.from_unix_ns() else { return Ok(()) };
        let layers =
            [Severity::Info, Severity::Warning].map(|one| (one, of_severity(timeline, one)));
        let critical = of_severity(timeline, Severity::Critical);
        let totals: Vec<u64> =
            (0..timeline.len()).map(|place| layers.iter().map(|(_, of)| of[place]).sum()).collect();
        let most = totals.iter().copied().max().unwrap_or(0).max(1);
        write!(
            f,
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Events over time\">"
        )?;
        unwatched(f, timeline)?;
        axis(f, most)?;
        for (place, total) in totals.iter().enumerate() {
            let bar = column(place, totals.len());
            let at = timeline.bucket_unix_ns(place);
            let gaps = timeline.gaps()[place];
            if *total == 0 && gaps == 0 && critical[place] == 0 {
                continue;
            }
            write!(f, "<g><title>{}</title>", Html(&told(timeline, zone, place, at)))?;
            if gaps > 0 {
                rect(f, "gap", bar, (TOP, PLOT - TOP))?;
            }
            if critical[place] > 0 {
                // Wide enough to be seen, however many bars there are.
                rect(f, Severity::Critical.name(), (bar.0, bar.1.max(3.0)), (0, LANE))?;
            }
            let mut base = PLOT;
            for (severity, counts) in &layers {
                let height = scaled(counts[place], most, PLOT - TOP).min(base - TOP);
                if height > 0 {
                    base -= height;
                    rect(f, severity.name(), bar, (base, height))?;
                }
            }
            f.write_str("</g>")?;
        }
        times(f, timeline, zone, from)?;
        f.write_str("</svg>")
    }
}

fn rect(
    f: &mut fmt::Formatter<'_>,
    class: &str,
    (x, width): (f64, f64),
    (y, height): (u64, u64),
) -> fmt::Result {
    write!(
        f,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\"/>"
    )
}

/// Bars in which nobody watched for more than half of the time: their lack of events says nothing.
fn unwatched(f: &mut fmt::Formatter<'_>, timeline: &Timeline) -> fmt::Result {
    let half = timeline.width_ns().unsigned_abs() / 2;
    let dark = timeline.watched_ns().iter().enumerate().filter(|(_, watched)| **watched < half);
    // The first and the last bar reach beyond what is told of.
    for (place, _) in dark.filter(|(place, _)| *place > 0 && *place + 1 < timeline.len()) {
        let (x, width) = column(place, timeline.len());
        rect(f, "unwatched", (x, width + 0.5), (TOP, PLOT - TOP))?;
    }
    Ok(())
}

fn of_severity(timeline: &Timeline, wanted: Severity) -> Vec<u64> {
    let mut counts = vec![0; timeline.len()];
    let types = EventType::ALL.into_iter().map(Some).chain([None]);
    for event_type in types.filter(|one| severity(*one) == wanted) {
        let series = timeline.of_type(event_type);
        counts.iter_mut().zip(series).for_each(|(sum, count)| *sum += count);
    }
    counts
}

/// What a bar stands for, in words.
fn told(timeline: &Timeline, zone: &Zone, place: usize, at: i64) -> String {
    let mut text = zone.clock(at) + " " + &zone.name_at(at);
    let types = EventType::ALL.into_iter().map(Some).chain([None]);
    for event_type in types {
        let count = timeline.of_type(event_type)[place];
        if count > 0 {
            let _infallible = write!(text, "\n{} {}", type_name(event_type), Count(count));
        }
    }
    match timeline.gaps()[place] {
        0 => {}
        gaps => text += &format!("\n{} gaps", Count(gaps)),
    }
    text
}

/// Where a bar stands and how wide it is.
#[allow(clippy::cast_precision_loss)] // some hundred pixels
fn column(place: usize, of: usize) -> (f64, f64) {
    let width = (WIDTH - LEFT) as f64 / of.max(1) as f64;
    (LEFT as f64 + width * place as f64, (width - 0.5).max(0.5))
}

fn axis(f: &mut fmt::Formatter<'_>, most: u64) -> fmt::Result {
    for (y, count) in [(TOP, most), (TOP.midpoint(PLOT), most / 2), (PLOT, 0)] {
        write!(f, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/>")?;
        let text = (y + 4).max(11);
        write!(
            f,
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>",
            LEFT - 6,
            Count(count)
        )?;
    }
    Ok(())
}

fn times(f: &mut fmt::Formatter<'_>, timeline: &Timeline, zone: &Zone, from: i64) -> fmt::Result {
    let to = timeline.bucket_unix_ns(timeline.len());
    let y = PLOT + 18;
    write!(f, "<text x=\"{LEFT}\" y=\"{y}\">{}</text>", zone.clock(from))?;
    let width = Length(timeline.width_ns().unsigned_abs());
    write!(
        f,
        "<text x=\"{}\" y=\"{y}\" text-anchor=\"middle\">{width} a bar</text>",
        (WIDTH + LEFT) / 2
    )?;
    let (to, name) = (zone.clock(to), zone.name_at(to));
    let name = Html(&name);
    write!(f, "<text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{to} {name}</text>")
}
