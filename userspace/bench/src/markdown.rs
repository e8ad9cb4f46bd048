//! The report as a Markdown table for README: a line for each row, with the command that repeats it.

use crate::report::{Ratio, Report, Row, number};
use crate::spread::Spread;

/// The table with its machine line.
pub fn table(report: &Report) -> String {
    let mut text = format!("{}\n\n| what | figure | wanted | command |\n|---|---|---|---|\n", report.machine);
    for row in &report.rows {
        text.push_str(&line(row, &report.command));
    }
    text
}

fn line(row: &Row, command: &str) -> String {
    // Without comparisons the values speak for themselves.
    let figures = if row.ratios.is_empty() {
        let values = row.contenders.iter().map(|series| {
            let Spread { median, min, max } = series.spread;
            let median = format!("{}{}", series.sign(), number(median));
            format!("{} {median} {} ({}–{})", series.name, row.unit, number(min), number(max))
        });
        values.collect::<Vec<_>>().join("; ")
    } else {
        row.ratios.iter().map(ratio).collect::<Vec<_>>().join("; ")
    };
    let wanted: Vec<String> = row
        .ratios
        .iter()
        .filter_map(|ratio| Some((ratio, ratio.wanted?)))
        .map(|(ratio, wanted)| {
            format!("{wanted} of {}: {}", ratio.to, if ratio.met == Some(true) { "met" } else { "missed" })
        })
        .collect();
    let unit = if row.ratios.is_empty() { String::new() } else { format!(", {}", row.unit) };
    format!("| {}{unit} | {figures} | {} | `{command}` |\n", row.name, wanted.join("; "))
}

fn ratio(ratio: &Ratio) -> String {
    let Spread { median, min, max } = ratio.spread;
    let median = format!("{}{}", ratio.exactness.sign(), number(median));
    format!("{} ÷ {} {median} ({}–{})", ratio.of, ratio.to, number(min), number(max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::report::{Bound, Exactness, Series};

    #[test]
    fn a_row_is_a_line_with_its_command() {
        let spread = Spread { median: 0.9, min: 0.88, max: 0.95 };
        let spread_of_rate = Spread { median: 9e5, min: 8e5, max: 1e6 };
        let series = Series { name: "Oxbow".into(), spread: spread_of_rate, rounds: vec![], beyond: 0 };
        let ratio = Ratio {
            of: "Oxbow".into(),
            to: "bare".into(),
            spread,
            exactness: Exactness::Exact,
            wanted: Some(Bound::AtLeast(0.85)),
            met: Some(true),
        };
        let mut row = Row {
            name: "VIF to VIF".into(),
            unit: "packets/s".into(),
            contenders: vec![series],
            ratios: vec![ratio],
            note: None,
        };
        let command = "cargo xtask bench datapath";
        let expected = "| VIF to VIF, packets/s | Oxbow ÷ bare 0.90 (0.88–0.95) | ≥ 0.85 of bare: met | `cargo xtask bench datapath` |\n";
        assert_eq!(line(&row, command), expected);
        row.ratios.clear();
        let expected =
            "| VIF to VIF | Oxbow 900,000 packets/s (800,000–1,000,000) |  | `cargo xtask bench datapath` |\n";
        assert_eq!(line(&row, command), expected);
        let report =
            Report { bench: "datapath".into(), command: command.into(), machine: Machine::here(), rows: vec![row] };
        assert_eq!(table(&report).lines().count(), 5);
    }
}
