//! The half of the backend that knows no switch: a [`Model`], and what the bridge is known to hold. It says what has to be told, and judges what
//! came of it; who carries the [`Exchange`] out, and how long that takes, is not its business.

use crate::exchange::{Committed, Exchange, Failure};
use crate::model::{Cookies, Model};
use crate::switch::SwitchError;
use crate::wiring::Wiring;
use oxbow_pipeline::ir::{Changes, LflowId, Problem, Program};

/// Flows that a switch may refuse in one commit before it is given up.
const REFUSALS: usize = 1000;

/// Follows a program for one bridge.
#[derive(Debug, Default)]
pub struct Follower {
    model: Model,
    wiring: Wiring,
    /// The bridge is known to hold what the model has been told it was given.
    in_step: bool,
    /// Refusals in a row.
    refusals: usize,
}

impl Follower {
    /// One that has told the bridge nothing yet. What that holds stays in force until the first exchange, which makes its tables exactly what the
    /// program says, by one bundle of differences: established traffic goes from the old policy to the new one without a gap, and what has not
    /// changed since keeps its counters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The port numbers of the bridge. Takes effect with the next [`Follower::follow`]; returns whether something changed.
    pub fn set_wiring(&mut self, wiring: Wiring) -> bool {
        let changed = self.wiring != wiring;
        self.wiring = wiring;
        changed
    }

    /// Takes a difference over; the bridge is told nothing. `program` is the program after it.
    pub fn follow(&mut self, program: &Program, changes: &Changes, cookies: Cookies<'_>) {
        self.model.apply(program, changes, &self.wiring, cookies);
    }

    /// What the bridge has to be told now, nothing when it holds everything. Ends with [`Follower::end`]; until then differences may be followed, and
    /// no other exchange is begun.
    pub fn begin(&mut self) -> Option<Exchange> {
        if !self.in_step {
            self.model.begin_anew();
            let forget = self.model.forgets().clone();
            return Some(Exchange::repair(self.model.flows(), self.model.groups().clone(), forget));
        }
        let lines = self.model.begin();
        if lines.is_empty() {
            self.model.end(true);
            return None;
        }
        Some(Exchange::tell(lines))
    }

    /// What came of an exchange. `None` when a flow was refused and has been closed and reported as a problem: the next exchange may succeed.
    ///
    /// # Errors
    /// The switch does not answer, or refuses something that closing a rule does not cure. Nothing of it is in force; the next exchange tries again.
    pub fn end(
        &mut self,
        program: &Program,
        outcome: Result<Committed, Failure>,
    ) -> Result<Option<Committed>, SwitchError> {
        self.model.end(outcome.is_ok());
        match outcome {
            Ok(committed) => {
                self.in_step = true;
                self.refusals = 0;
                Ok(Some(committed))
            }
            Err(Failure { about: Some(about), error: SwitchError::Refused { bridge, at, line, reason } }) => {
                self.refusals += 1;
                if self.refusals >= REFUSALS {
                    self.refusals = 0;
                    return Err(SwitchError::Failed { bridge, what: format!("more than {REFUSALS} flows refused") });
                }
                if self.model.refuse(program, &about, &line, &reason) {
                    return Ok(None);
                }
                Err(SwitchError::Refused { bridge, at, line, reason })
            }
            Err(Failure { error, .. }) => {
                self.in_step &= matches!(error, SwitchError::Refused { .. });
                self.refusals = 0;
                Err(error)
            }
        }
    }

    /// Makes the next exchange compare what the bridge holds with what it should hold and repair it: after ovs-vswitchd was restarted (its tables
    /// are empty then), or to be sure.
    pub fn distrust(&mut self) {
        self.in_step = false;
    }

    /// Whether the bridge is known to hold what it was told last.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.in_step
    }

    /// Cookie of a logical flow that has flows here ([`Cookies`]).
    #[must_use]
    pub fn cookie(&self, lflow: LflowId) -> Option<u64> {
        self.model.cookie(lflow)
    }

    /// What could not be held as it is.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.model.problems()
    }

    /// What the bridge should hold ([`Model::print`]).
    #[must_use]
    pub fn print(&self) -> String {
        self.model.print()
    }

    /// How many flows and groups the bridge should hold.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.model.sizes()
    }
}
