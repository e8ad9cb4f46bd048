//! The backend of one hypervisor where waiting for the switch is no harm: a [`Follower`] and the switch that it tells. A daemon that has other things to
//! do takes the two apart.

use crate::exchange::Committed;
use crate::follower::Follower;
use crate::model::Cookies;
use crate::switch::{Learned, Switch, SwitchError};
use crate::wiring::Wiring;
use oxbow_pipeline::ir::{Changes, Problem, Program};

/// The OpenFlow backend of one hypervisor.
pub struct Backend {
    follower: Follower,
    switch: Box<dyn Switch + Send>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("follower", &self.follower).finish_non_exhaustive()
    }
}

impl Backend {
    /// A backend that has told the switch nothing yet ([`Follower::new`]).
    #[must_use]
    pub fn new(switch: Box<dyn Switch + Send>) -> Self {
        Backend { follower: Follower::new(), switch }
    }

    /// The port numbers of the bridge. Takes effect with the next [`Backend::commit`]; returns whether something changed.
    pub fn set_wiring(&mut self, wiring: Wiring) -> bool {
        self.follower.set_wiring(wiring)
    }

    /// Puts a difference in force. After an error nothing of it is (unless the connection broke in that moment: then the next call finds out); a later
    /// call, also with an empty difference, tries again.
    ///
    /// # Errors
    /// The switch does not answer, or refuses. A flow that it refuses is reported as a problem and replaced by what closes; only when that does not
    /// help either the commit fails.
    pub fn commit(
        &mut self,
        program: &Program,
        changes: &Changes,
        cookies: Cookies<'_>,
    ) -> Result<Committed, SwitchError> {
        self.follower.follow(program, changes, cookies);
        loop {
            let Some(exchange) = self.follower.begin() else { return Ok(Committed::default()) };
            let outcome = exchange.execute(&mut *self.switch);
            if let Some(committed) = self.follower.end(program, outcome)? {
                return Ok(committed);
            }
        }
    }

    /// Makes the next [`Backend::commit`] compare and repair ([`Follower::distrust`]).
    pub fn distrust(&mut self) {
        self.follower.distrust();
    }

    /// Whether the bridge is known to hold what was committed last.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.follower.in_step()
    }

    /// Addresses that the bridge has learned by itself and nobody has confirmed by a row of FDB yet.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub fn learned(&mut self) -> Result<Vec<Learned>, SwitchError> {
        self.switch.learned()
    }

    /// What could not be held as it is.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.follower.problems()
    }

    /// What the bridge should hold ([`crate::Model::print`]).
    #[must_use]
    pub fn print(&self) -> String {
        self.follower.print()
    }

    /// How many flows and groups the bridge should hold.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        self.follower.sizes()
    }
}
