//! Rows of results: what was measured, how the contenders compare, what was wanted.

use std::fmt;

use serde::Serialize;

use crate::machine::Machine;
use crate::spread::Spread;

/// What a ratio has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// More than this.
    Over(f64),
    /// Less than this.
    Under(f64),
}

impl Bound {
    /// Whether `value` is within.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Over(bound) => value > bound,
            Self::Under(bound) => value < bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::Over(bound) => write!(f, "> {bound}"),
            Self::Under(bound) => write!(f, "< {bound}"),
        }
    }
}

/// One contender's values of one figure.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// The contender.
    pub name: String,
    /// Its median, least and greatest.
    #[serde(flatten)]
    pub spread: Spread,
    /// The value of each round, in order.
    pub rounds: Vec<f64>,
    /// In how many rounds the end was not waited for: the true value is larger than the number.
    pub beyond: usize,
}

impl Series {
    /// What stands before the median: it is larger than the number when half of the rounds are.
    pub fn sign(&self) -> &'static str {
        if 2 * self.beyond > self.rounds.len() { "> " } else { "" }
    }
}

/// How exact a ratio is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exactness {
    /// It is what it says.
    Exact,
    /// It is smaller, because a divisor is larger than known.
    Below,
    /// It is larger, or not known at all, because a dividend is larger than known.
    Above,
}

impl Exactness {
    /// What stands before the number.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::Below => "< ",
            Self::Above => "> ",
        }
    }
}

/// How two contenders compare: one value divided by the other's of the same round.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// The dividend's name.
    pub of: String,
    /// The divisor's name.
    pub to: String,
    /// Over the rounds.
    #[serde(flatten)]
    pub spread: Spread,
    /// Whether the values were.
    pub exactness: Exactness,
    /// What was wanted of the median, if anything was.
    pub wanted: Option<Bound>,
    /// Whether the median is as wanted; `None` when nothing was wanted.
    pub met: Option<bool>,
}

/// One figure of one contest.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured, e.g. `VIF to VIF on one hypervisor, 64-byte UDP`.
    pub name: String,
    /// Unit of the values, e.g. `packets/s`.
    pub unit: String,
    /// The contenders, in the contest's order.
    pub contenders: Vec<Series>,
    /// Comparisons that were asked for.
    pub ratios: Vec<Ratio>,
    /// What a reader must know: circumstances, or why a figure is missed.
    pub note: Option<String>,
}

/// Everything a run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The benchmark's name.
    pub bench: String,
    /// The command that repeats it.
    pub command: String,
    /// What it ran on.
    pub machine: Machine,
    /// The results.
    pub rows: Vec<Row>,
}

/// A number as people read it: thousands in groups, small ones with three digits that matter.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size < 1000.0 {
        let decimals = if size >= 100.0 || size == 0.0 {
            0
        } else if size >= 10.0 {
            1
        } else if size >= 0.1 {
            2
        } else {
            4
        };
        return format!("{value:.decimals$}");
    }
    let digits = format!("{size:.0}");
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.name, self.unit)?;
        for series in &self.contenders {
            let Series { name, spread: Spread { median, min, max }, .. } = series;
            let median = format!("{}{}", series.sign(), number(*median));
            writeln!(f, "  {name:<36} {median:>14}  ({} to {})", number(*min), number(*max))?;
        }
        for Ratio { of, to, spread: Spread { median, min, max }, exactness, wanted, met } in &self.ratios {
            let median = format!("{}{median:.3}", exactness.sign());
            write!(f, "  {:<36} {median:>14}  ({min:.3} to {max:.3})", format!("{of} ÷ {to}"))?;
            match (wanted, met) {
                (Some(wanted), Some(met)) => writeln!(f, "  wanted {wanted}: {}", if *met { "met" } else { "MISSED" })?,
                _ => writeln!(f)?,
            }
        }
        match &self.note {
            Some(note) => writeln!(f, "  {note}"),
            None => Ok(()),
        }
    }
}

impl Report {
    /// The comparisons whose median is not as wanted, each with its row.
    pub fn missed(&self) -> impl Iterator<Item = (&Row, &Ratio)> {
        let all = self.rows.iter().flat_map(|row| row.ratios.iter().map(move |ratio| (row, ratio)));
        all.filter(|(_, ratio)| ratio.met == Some(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let cases = [
            (1_234_567.0, "1,234,567"),
            (1000.4, "1,000"),
            (999.4, "999"),
            (42.25, "42.2"),
            (3.456, "3.46"),
            (0.01234, "0.0123"),
            (0.0, "0"),
            (-1234.0, "-1,234"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn bounds_include_what_they_say() {
        assert!(Bound::AtLeast(0.85).holds(0.85) && !Bound::AtLeast(0.85).holds(0.849));
        assert!(Bound::AtMost(4.0).holds(4.0) && !Bound::AtMost(4.0).holds(4.1));
        assert!(!Bound::Over(1.0).holds(1.0) && !Bound::Under(1.0).holds(1.0));
    }
}
