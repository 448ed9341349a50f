//! The table: what was measured, beside the least that a reader can do, and what the design wants.

use std::fmt;

/// The reader that does the least; ratios are to it.
const LEAST: &str = "C loop";
/// Who is measured to compare with.
const OTHERS: [&str; 3] = [LEAST, "librocm_smi64", "C sscanf"];

/// What a figure is to reach.
#[derive(Debug, Clone, Copy)]
enum Reach {
    /// So many times that of the least reader.
    Times(f64),
    AtMost(f64),
    AtLeast(f64),
}

/// What the design says, by the beginning of the figure's name.
const TARGETS: [(&str, Reach); 17] = [
    ("CPU per event", Reach::Times(1.2)),
    ("wake-ups per event", Reach::Times(1.2)),
    ("latency", Reach::Times(1.2)),
    ("lost at", Reach::Times(1.0)),
    ("unreported", Reach::AtMost(0.0)),
    ("idle wake-ups", Reach::AtMost(0.0)),
    ("decode one line", Reach::AtMost(50.0)),
    ("start of list", Reach::AtMost(10.0)),
    ("peak memory of list", Reach::AtMost(8.0)),
    ("record to disk", Reach::AtLeast(300_000.0)),
    ("not recorded", Reach::AtMost(0.0)),
    ("summarise 10 million events", Reach::AtMost(2.0)),
    ("processor cores, agent at 100000/s", Reach::AtMost(0.5)),
    ("memory, agent at 100000/s", Reach::AtMost(64.0)),
    ("yield, ", Reach::AtMost(100.0)),
    ("Python read", Reach::AtMost(500.0)),
    ("Python import", Reach::AtMost(30.0)),
];
/// What has no target of its own: it writes text besides.
const WITHOUT_RATIO: &str = "watch --json";

/// The figures, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Table {
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Figure {
    what: String,
    who: String,
    value: f64,
    unit: String,
}

impl Table {
    /// Takes a line of a benchmark; those that tell no figure are passed by.
    pub(super) fn read(&mut self, line: &str) {
        let words: Vec<&str> = line.split('\t').collect();
        let ["figure", what, who, value, unit] = words[..] else { return };
        let Ok(value) = value.parse() else { return };
        let (what, who, unit) = (what.to_owned(), who.to_owned(), unit.to_owned());
        // Beside those of the same thing, from whatever benchmark they came.
        let same = self.figures.iter().rposition(|figure| figure.what == what);
        let at = same.map_or(self.figures.len(), |last| last + 1);
        self.figures.insert(at, Figure { what, who, value, unit });
    }

    fn least(&self, what: &str) -> Option<f64> {
        let mut of_least = self.figures.iter().filter(|figure| figure.who == LEAST);
        of_least.find(|figure| figure.what == what).map(|figure| figure.value)
    }

    /// What stands behind a figure: the ratio, and whether it is what the design wants.
    fn remark(&self, figure: &Figure) -> String {
        let ratio = self.least(&figure.what).filter(|least| *least > 0.0);
        let ratio = ratio.map(|least| figure.value / least);
        let ratio_text = match ratio {
            Some(ratio) if figure.who != LEAST => format!("{ratio:.2} x"),
            _ => String::new(),
        };
        let wanted = target(figure).map(|reach| {
            let reached = match reach {
                // Of nothing, every multiple is nothing.
                Reach::Times(times) => ratio.map_or(figure.value <= 0.0, |ratio| ratio <= times),
                Reach::AtMost(most) => figure.value <= most,
                Reach::AtLeast(least) => figure.value >= least,
            };
            format!("{reach}, {}", if reached { "reached" } else { "missed" })
        });
        format!("{ratio_text:>9}   {}", wanted.unwrap_or_default())
    }
}

fn target(figure: &Figure) -> Option<Reach> {
    let compared = OTHERS.contains(&figure.who.as_str());
    let (_, reach) = TARGETS.iter().find(|(what, _)| figure.what.starts_with(what))?;
    let with_text = figure.who == WITHOUT_RATIO && matches!(reach, Reach::Times(_));
    (!compared && !with_text).then_some(*reach)
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(times) => write!(f, "≤ {times:.1} x"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for figure in &self.figures {
            let what = if figure.what == before { "" } else { &figure.what };
            let (value, places) = (figure.value, if figure.value >= 1000.0 { 0 } else { 2 });
            let remark = self.remark(figure);
            let line = format!(
                "{what:<34} {:<15} {value:>12.places$} {:<6} {remark}",
                figure.who, figure.unit
            );
            writeln!(f, "{}", line.trim_end())?;
            before = &figure.what;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[&str]) -> String {
        let mut table = Table::default();
        lines.iter().for_each(|line| table.read(line));
        table.to_string()
    }

    #[test]
    fn figures_stand_beside_the_least_reader_and_the_design() {
        let said = table(&[
            "figure\tCPU per event at 1000/s\tC loop\t10\tµs",
            "figure\tCPU per event at 1000/s\tEventReader\t11\tµs",
            "figure\tCPU per event at 1000/s\tMonitor\t13\tµs",
            "figure\tCPU per event at 1000/s\twatch --json\t30\tµs",
            "noise",
        ]);
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].ends_with("10.00 µs"), "{said}");
        assert!(lines[1].ends_with("1.10 x   ≤ 1.2 x, reached"), "{said}");
        assert!(lines[2].ends_with("1.30 x   ≤ 1.2 x, missed"), "{said}");
        assert!(lines[3].ends_with("3.00 x"), "{said}");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn limits_without_a_ratio() {
        let said = table(&[
            "figure\tidle wake-ups\tC loop\t0\t/s",
            "figure\tidle wake-ups\tMonitor\t0\t/s",
            "figure\trecord to disk\tgpuev-store\t200000\tevents/s",
        ]);
        assert!(said.contains("≤ 0, reached") && said.contains("≥ 300000, missed"), "{said}");
    }
}
