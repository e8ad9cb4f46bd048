//! Named contenders, measured in interleaved rounds.

use anyhow::{Context as _, Result, ensure};

use crate::report::{Bound, Exactness, Ratio, Row, Series, number};
use crate::session::Session;
use crate::spread::Spread;
use crate::value::Value;

/// One of the values that a measurement yields.
#[derive(Debug, Clone)]
pub struct Figure {
    name: String,
    unit: String,
    ratios: Vec<(String, String, Option<Bound>)>,
    note: Option<String>,
}

impl Figure {
    /// A figure; `name` is appended to the contest's name (may be empty).
    pub fn new(name: &str, unit: &str) -> Self {
        Self { name: name.to_owned(), unit: unit.to_owned(), ratios: Vec::new(), note: None }
    }

    /// Prints contender `of` divided by contender `to`.
    pub fn ratio(mut self, of: &str, to: &str) -> Self {
        self.ratios.push((of.to_owned(), to.to_owned(), None));
        self
    }

    /// As [`Figure::ratio`], with what is wanted of the median.
    pub fn wanted(mut self, of: &str, to: &str, bound: Bound) -> Self {
        self.ratios.push((of.to_owned(), to.to_owned(), Some(bound)));
        self
    }

    /// What a reader of this row must know.
    pub fn note(mut self, note: &str) -> Self {
        self.note = Some(note.to_owned());
        self
    }
}

/// A question, who competes, and what is measured of each.
///
/// In every round each contender is measured once; who is first changes from round to round, so that a machine that gets
/// busier or warmer does not favour one.
#[derive(Debug, Clone)]
pub struct Contest {
    name: String,
    figures: Vec<Figure>,
    contenders: Vec<String>,
    rounds: u32,
}

impl Contest {
    /// A contest with this many rounds unless the command line says otherwise.
    pub fn new(name: &str, rounds: u32) -> Self {
        Self { name: name.to_owned(), figures: Vec::new(), contenders: Vec::new(), rounds }
    }

    /// A value that every measurement yields; as many calls as the closure of [`Contest::run`] returns values, in that order.
    pub fn figure(mut self, figure: Figure) -> Self {
        self.figures.push(figure);
        self
    }

    /// Those who compete; the closure of [`Contest::run`] gets their index in this order.
    pub fn contenders<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.contenders.extend(names.into_iter().map(str::to_owned));
        self
    }

    /// Measures: `measure` is called with a contender's index and returns a value for each figure, NaN for a figure that this contender does
    /// not have (the row is then without it), and [`Value::Beyond`] where it was not waited for the end. Adds a row for each figure to the session.
    ///
    /// # Errors
    ///
    /// What `measure` fails with, with contest, contender and round; when it returns another number of values, or a comparison names nobody.
    pub fn run<V: Into<Value>>(
        self,
        session: &mut Session,
        mut measure: impl FnMut(usize) -> Result<Vec<V>>,
    ) -> Result<()> {
        let rounds = session.rounds(self.rounds);
        // values[contender][figure][round]
        let mut values: Vec<Vec<Vec<Value>>> = vec![vec![Vec::new(); self.figures.len()]; self.contenders.len()];
        for round in 0..rounds {
            let mut line = Vec::new();
            for contender in order(self.contenders.len(), round) {
                let name = &self.contenders[contender];
                if !session.competes(name) {
                    values[contender].iter_mut().for_each(|rounds| rounds.push(Value::Missing));
                    continue;
                }
                let measured = measure(contender)
                    .with_context(|| format!("{}: {name}, round {} of {rounds}", self.name, round + 1))?;
                ensure!(
                    measured.len() == self.figures.len(),
                    "{}: {name} measured {} values",
                    self.name,
                    measured.len()
                );
                let measured: Vec<Value> = measured.into_iter().map(Into::into).collect();
                line.push(format!("{name} {}", measured.iter().copied().map(text).collect::<Vec<_>>().join(" / ")));
                for (figure, value) in measured.into_iter().enumerate() {
                    values[contender][figure].push(value);
                }
            }
            session.say(&format!("  {}, round {}: {}", self.name, round + 1, line.join(", ")));
        }
        for (place, figure) in self.figures.iter().enumerate() {
            let of = |name: &str| -> Result<&Vec<Value>> {
                let contender = self.contenders.iter().position(|contender| contender == name);
                let contender = contender.with_context(|| format!("{}: no contender {name}", self.name))?;
                Ok(&values[contender][place])
            };
            session.add(self.row(figure, of)?);
        }
        Ok(())
    }

    fn row<'v>(&self, figure: &Figure, values: impl Fn(&str) -> Result<&'v Vec<Value>>) -> Result<Row> {
        let series = |name: &String| -> Result<Option<Series>> {
            let values = values(name)?;
            let rounds: Vec<f64> = values.iter().map(|value| value.number()).collect();
            if rounds.iter().all(|value| value.is_nan()) {
                return Ok(None);
            }
            let spread = Spread::of(&rounds).context("no rounds")?;
            let beyond = values.iter().filter(|value| value.is_beyond()).count();
            Ok(Some(Series { name: name.clone(), spread, rounds, beyond }))
        };
        let ratio = |(of, to, wanted): &(String, String, Option<Bound>)| -> Result<Option<Ratio>> {
            let (dividend, divisor) = (values(of)?, values(to)?);
            let rounds: Vec<f64> = dividend.iter().zip(divisor).map(|(of, to)| of.number() / to.number()).collect();
            if rounds.iter().all(|ratio| ratio.is_nan()) {
                return Ok(None);
            }
            let spread = Spread::of(&rounds).context("no rounds")?;
            let is_open = |values: &[Value]| values.iter().any(|value| value.is_beyond());
            let exactness = match (is_open(dividend), is_open(divisor)) {
                (false, false) => Exactness::Exact,
                (false, true) => Exactness::Below,
                // The other way round nothing is known of it, and nothing is met.
                (true, _) => Exactness::Above,
            };
            let met = wanted.map(|bound| exactness != Exactness::Above && bound.holds(spread.median));
            Ok(Some(Ratio { of: of.clone(), to: to.clone(), spread, exactness, wanted: *wanted, met }))
        };
        Ok(Row {
            name: if figure.name.is_empty() { self.name.clone() } else { format!("{}, {}", self.name, figure.name) },
            unit: figure.unit.clone(),
            contenders: self.contenders.iter().map(series).filter_map(Result::transpose).collect::<Result<_>>()?,
            ratios: figure.ratios.iter().map(ratio).filter_map(Result::transpose).collect::<Result<_>>()?,
            note: figure.note.clone(),
        })
    }
}

/// A value in a line of progress.
fn text(value: Value) -> String {
    format!("{}{}", if value.is_beyond() { "> " } else { "" }, number(value.number()))
}

/// Contenders in the order of this round: every one is first in turn, and neighbours change sides every other time around.
fn order(contenders: usize, round: u32) -> Vec<usize> {
    let round = round as usize;
    let mut order: Vec<usize> = (0..contenders).map(|place| (place + round) % contenders).collect();
    if contenders > 2 && (round / contenders) % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Options;

    fn session(rounds: u32) -> Session {
        Session::new("test", Options { rounds: Some(rounds), ..Options::default() })
    }

    #[test]
    fn ratios_are_between_values_of_one_round() {
        let mut session = session(3);
        let mut calls = [0.0; 2];
        let contest = Contest::new("race", 9).contenders(["ours", "theirs"]);
        let contest = contest.figure(Figure::new("", "m/s").wanted("ours", "theirs", Bound::AtLeast(2.0)));
        let measure = |contender: usize| {
            calls[contender] += 1.0;
            // ours is always twice theirs, while both grow tenfold from round to round
            Ok(vec![if contender == 0 { 2.0 } else { 1.0 } * 10f64.powf(calls[contender])])
        };
        contest.run(&mut session, measure).unwrap();
        let row = &session.report().rows[0];
        assert_eq!(row.ratios[0].spread, Spread { median: 2.0, min: 2.0, max: 2.0 });
        assert_eq!((row.ratios[0].met, row.contenders[1].spread.median), (Some(true), 100.0));
        assert_eq!(session.finish().unwrap().missed().count(), 0);
    }

    #[test]
    fn everybody_is_first_and_everybody_is_measured() {
        for contenders in 1..6 {
            let mut first = std::collections::BTreeSet::new();
            for round in 0..contenders as u32 {
                let mut order = order(contenders, round);
                first.insert(order[0]);
                order.sort_unstable();
                assert_eq!(order, (0..contenders).collect::<Vec<_>>());
            }
            assert_eq!(first.len(), contenders);
        }
    }

    #[test]
    fn what_was_not_waited_for_is_printed_as_more_than() {
        let mut session = session(2);
        let contest = Contest::new("race", 9).contenders(["ours", "theirs"]);
        let contest = contest.figure(Figure::new("", "s").wanted("ours", "theirs", Bound::Under(1.0)));
        let measure =
            |contender: usize| Ok(vec![if contender == 0 { Value::Exact(3.0) } else { Value::Beyond(600.0) }]);
        contest.run(&mut session, measure).unwrap();
        let row = &session.report().rows[0];
        assert_eq!((row.contenders[0].beyond, row.contenders[1].beyond), (0, 2));
        assert_eq!((row.ratios[0].exactness, row.ratios[0].met), (Exactness::Below, Some(true)));
        let text = row.to_string();
        assert!(text.contains("> 600") && text.contains("< 0.005") && text.contains("met"), "{text}");
        let json = serde_json::to_string(row).unwrap();
        assert!(json.contains("\"beyond\":2") && json.contains("\"below\""), "{json}");
        let contest = Contest::new("race", 9).contenders(["ours", "theirs"]);
        let contest = contest.figure(Figure::new("", "s").wanted("ours", "theirs", Bound::Under(1.0)));
        let measure = |contender: usize| Ok(vec![if contender == 0 { Value::Beyond(3.0) } else { Value::Exact(9.0) }]);
        contest.run(&mut session, measure).unwrap();
        assert_eq!(session.report().rows[1].ratios[0].met, Some(false), "who has not finished has not won");
    }

    #[test]
    fn errors_name_contest_contender_and_round() {
        let contest = Contest::new("race", 2).contenders(["ours"]).figure(Figure::new("", "m/s"));
        let error = contest.run(&mut session(2), |_| -> Result<Vec<f64>> { anyhow::bail!("fell") }).unwrap_err();
        assert_eq!(format!("{error:#}"), "race: ours, round 1 of 2: fell");
    }
}
